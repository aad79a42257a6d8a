//! Conversions from and to kvm-bindings' structures.

use cpuid_features::KvmFeatures;
use hypercall_abi::{
    Enforcement, Hypercall, HypercallHandler, HypercallResult, KVM_HC_KICK_CPU,
    KVM_HC_MAP_GPA_RANGE, KickCpu, Mode, RawHypercall, dispatch, write_result,
};
use kvm_bindings::{
    kvm_regs, kvm_sregs, kvm_xen_exit__bindgen_ty_1__bindgen_ty_1 as kvm_xen_hcall,
};

struct Kicks(Vec<u32>);

impl HypercallHandler for Kicks {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        self.0.push(call.destination());
        Ok(0)
    }
}

/// Every register different, so that no two can be mistaken.
fn regs() -> kvm_regs {
    kvm_regs {
        rax: KVM_HC_KICK_CPU,
        rbx: 0xb,
        rcx: 0xc,
        rdx: 0xd,
        rsi: 0x51,
        rdi: 0xd1,
        rsp: 0x59,
        rbp: 0xb9,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        rip: 0x19,
        rflags: 2,
    }
}

#[test]
fn registers_make_a_call_and_take_the_result() {
    let mut regs = regs();
    let raw = RawHypercall::from_regs(&regs, Mode::Bits64, 0);
    assert_eq!(raw.nr, KVM_HC_KICK_CPU);
    assert_eq!(raw.args, [0xb, 0xc, 0xd, 0x51]);

    let mut kicks = Kicks(Vec::new());
    let features = Enforcement::Enforced(KvmFeatures::PV_UNHALT);
    let rax = dispatch(&raw, features, &mut kicks);
    assert_eq!(kicks.0, [0xc]);
    write_result(&mut regs, rax);
    assert_eq!(
        regs,
        kvm_regs {
            rax: 0,
            ..self::regs()
        }
    );

    let refused = dispatch(
        &raw,
        Enforcement::Enforced(KvmFeatures::empty()),
        &mut kicks,
    );
    write_result(&mut regs, refused);
    assert_eq!(regs.rax.cast_signed(), -1000);
    assert_eq!(kicks.0.len(), 1);
}

#[test]
fn a_call_written_to_registers_is_read_back() {
    let raw = Hypercall::KickCpu(KickCpu::new(3)).encode(Mode::Bits64, 0);
    let mut written = regs();
    raw.write_to_regs(&mut written);
    assert_eq!(RawHypercall::from_regs(&written, Mode::Bits64, 0), raw);
    let others = kvm_regs {
        rax: 5,
        rbx: 0,
        rcx: 3,
        rdx: 0,
        rsi: 0,
        ..regs()
    };
    assert_eq!(written, others);
}

/// What kvm_amd of Linux 6.12 exits with for a `vmmcall` of rax 5, rbx 0 and
/// rcx 1: rdi, rsi and rdx in `params`, longmode 1, cpl 0, input 5. The
/// arguments are in the registers only.
#[test]
fn a_xen_exit_takes_its_arguments_from_the_registers() {
    let exit = kvm_xen_hcall {
        longmode: 1,
        cpl: 0,
        input: 5,
        result: 0,
        params: [0; 6],
    };
    let stopped = kvm_regs {
        rax: 5,
        rcx: 1,
        ..Default::default()
    };
    let raw = RawHypercall::from_xen_exit(&exit, &stopped);
    assert_eq!(
        raw,
        Hypercall::KickCpu(KickCpu::new(1)).encode(Mode::Bits64, 0)
    );

    let user = RawHypercall::from_xen_exit(&kvm_xen_hcall { cpl: 3, ..exit }, &stopped);
    let mut kicks = Kicks(Vec::new());
    let rax = dispatch(&user, Enforcement::NotEnforced, &mut kicks);
    assert_eq!((rax.cast_signed(), kicks.0.len()), (-1, 0));

    // No width of the field makes a privileged call of another one.
    for cpl in [1, 2, 4, 0x100, 0x1_0000, u32::MAX] {
        let exit = kvm_xen_hcall { cpl, ..exit };
        assert_ne!(RawHypercall::from_xen_exit(&exit, &stopped).cpl, 0);
    }
    let narrow = RawHypercall::from_xen_exit(
        &kvm_xen_hcall {
            longmode: 0,
            ..exit
        },
        &stopped,
    );
    assert_eq!(narrow.mode, Mode::Bits32);
}

/// `flags` of new kernels and `longmode` of old ones are one word.
#[test]
fn a_hypercall_exit_has_its_mode_in_bit_0() {
    let args = [0x1000, 1, 0x10, 0, 5, 6];
    let raw = |longmode| RawHypercall::from_hypercall_exit(KVM_HC_MAP_GPA_RANGE, &args, longmode);
    assert_eq!(raw(1).mode, Mode::Bits64);
    assert_eq!(raw(3).mode, Mode::Bits64);
    assert_eq!(raw(0).mode, Mode::Bits32);
    assert_eq!((raw(1).args, raw(1).cpl), ([0x1000, 1, 0x10, 0], 0));
    assert!(matches!(raw(1).decode(), Hypercall::MapGpaRange(call) if call.check().is_ok()));
}

/// Mode and CPL of every kind of code that a guest can run.
#[test]
fn mode_and_cpl_are_the_vcpus() {
    const PE: u64 = 1;
    const LMA: u64 = 1 << 10;
    const VM: u64 = 1 << 17;
    // cr0, efer, cs.l, ss.dpl, rflags
    let cases = [
        ("64-bit kernel", PE, LMA, 1, 0, 0, Mode::Bits64, 0),
        ("64-bit user", PE, LMA, 1, 3, 0, Mode::Bits64, 3),
        ("compatibility mode", PE, LMA, 0, 3, 0, Mode::Bits32, 3),
        ("32-bit kernel", PE, 0, 0, 0, 0, Mode::Bits32, 0),
        ("cs.l outside long mode", PE, 0, 1, 1, 0, Mode::Bits32, 1),
        ("real mode", 0, 0, 0, 3, 0, Mode::Bits32, 0),
        ("virtual-8086 mode", PE, 0, 0, 0, VM, Mode::Bits32, 3),
        ("a privilege of no CPU", PE, LMA, 1, 7, 0, Mode::Bits64, 3),
    ];
    for (what, cr0, efer, l, dpl, rflags, mode, cpl) in cases {
        let mut sregs = kvm_sregs {
            cr0,
            efer,
            ..kvm_sregs::default()
        };
        sregs.cs.l = l;
        sregs.ss.dpl = dpl;
        let regs = kvm_regs { rflags, ..regs() };
        let raw = RawHypercall::from_vcpu(&regs, &sregs);
        assert_eq!(raw, RawHypercall::from_regs(&regs, mode, cpl), "{what}");
        assert_eq!(Mode::from_sregs(&sregs), mode, "{what}");
    }
}
