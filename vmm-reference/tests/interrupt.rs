//! Interrupts into a vCPU of /dev/kvm that has no local APIC in KVM, and its local
//! APIC's MSRs as exits: what `run --halt userspace` rests on, with a guest of a few
//! bytes in real mode. Where there is no KVM each test says so.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::sync::Arc;

use kvm_bindings::kvm_regs;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_reference::backend::kvm::{KvmVcpu, map_memory};
use vmm_reference::backend::{Exit, Interruptible as _, PrivateIo, VcpuBackend as _, exit_on_msrs};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::host::KvmHost;
use vmm_reference::memory;

const CODE: u64 = 0x1000;
/// Handlers: each writes its vector to the exit port and returns.
const HANDLERS: u64 = 0x2000;
const STACK: u64 = 0x8000;
const RFLAGS_IF: u64 = 1 << 9;

/// A vCPU in real mode at `code`, interrupts off.
fn vcpu(code: &[u8]) -> Option<KvmVcpu> {
    let host = match KvmHost::open() {
        Ok(host) => host,
        Err(e) => {
            println!("not run here: {e}");
            return None;
        }
    };
    let memory = Arc::new(memory::allocate(&[(0, 0x10000)]).unwrap());
    let vm = host.kvm.create_vm().unwrap();
    map_memory(&vm, &memory).unwrap();
    exit_on_msrs(&vm, &[]).unwrap();
    for vector in 0..=u8::MAX {
        let at = HANDLERS + 8 * u64::from(vector);
        let handler = [0x50, 0xb0, vector, 0xe6, 0xf4, 0x58, 0xcf, 0x90];
        memory.write_slice(&handler, GuestAddress(at)).unwrap();
        let entry = u32::try_from(at).unwrap().to_le_bytes();
        memory
            .write_slice(&entry, GuestAddress(4 * u64::from(vector)))
            .unwrap();
    }
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let mut vcpu = KvmVcpu::new(vm.create_vcpu(0).unwrap(), memory).unwrap();
    vcpu.inject_without_exit(&vm).unwrap();
    vcpu.set_cpuid(&host.cpuid).unwrap();
    let mut sregs = vcpu.fd().get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.fd().set_sregs(&sregs).unwrap();
    let regs = kvm_regs {
        rip: CODE,
        rsp: STACK,
        rflags: 2,
        ..Default::default()
    };
    vcpu.fd().set_regs(&regs).unwrap();
    Some(vcpu)
}

fn run(vcpu: &mut KvmVcpu) -> Exit {
    vcpu.run(&Bus::default(), &mut ()).expect("the guest runs")
}

/// Runs on through exits that need nothing.
fn run_to_event(vcpu: &mut KvmVcpu) -> Exit {
    loop {
        match run(vcpu) {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
}

const fn exit_port(value: u8) -> Exit {
    Exit::Bus(BusEvent::Exit(value))
}

#[test]
fn a_vector_ends_a_halt_with_interrupts_on() {
    // sti; hlt; mov al, 1; out 0xf4, al
    let Some(mut vcpu) = vcpu(&[0xfb, 0xf4, 0xb0, 1, 0xe6, 0xf4]) else {
        return;
    };
    assert!(!vcpu.accepts_interrupt(), "it has not run yet");
    assert_eq!(run(&mut vcpu), Exit::Halt);
    assert!(vcpu.interrupts_enabled() && vcpu.accepts_interrupt());
    vcpu.interrupt(0x31).unwrap();
    assert!(!vcpu.accepts_interrupt(), "one at a time");
    assert_eq!(run(&mut vcpu), exit_port(0x31));
    assert!(!vcpu.interrupts_enabled(), "in the handler");
    assert_eq!(run(&mut vcpu), exit_port(1));
}

#[test]
fn a_run_ends_when_a_vector_can_be_delivered() {
    // mov al, 1; out 0xf4, al; sti; nop; nop; mov al, 2; out 0xf4, al; hlt
    let code = [
        0xb0, 1, 0xe6, 0xf4, 0xfb, 0x90, 0x90, 0xb0, 2, 0xe6, 0xf4, 0xf4,
    ];
    let Some(mut vcpu) = vcpu(&code) else { return };
    assert_eq!(run(&mut vcpu), exit_port(1));
    assert!(!vcpu.accepts_interrupt());
    vcpu.want_window(true);
    // A KVM that emulates the guest may come to the port first.
    while !vcpu.accepts_interrupt() {
        assert!(matches!(run(&mut vcpu), Exit::Interrupted | Exit::Bus(_)));
    }
    vcpu.want_window(false);
    vcpu.interrupt(0x32).unwrap();
    assert_eq!(run_to_event(&mut vcpu), exit_port(0x32));
}

#[test]
fn an_nmi_ends_a_halt_with_interrupts_off() {
    // cli; hlt; mov al, 1; out 0xf4, al
    let Some(mut vcpu) = vcpu(&[0xfa, 0xf4, 0xb0, 1, 0xe6, 0xf4]) else {
        return;
    };
    assert_eq!(run(&mut vcpu), Exit::Halt);
    assert!(!vcpu.interrupts_enabled());
    vcpu.nmi().unwrap();
    assert_eq!(run(&mut vcpu), exit_port(2));
    assert_eq!(run(&mut vcpu), exit_port(1));
}

/// An NMI comes in between vectors, and with one.
#[test]
fn vectors_and_nmis_do_not_keep_each_other_out() {
    // sti; hlt; jmp to the hlt
    let Some(mut vcpu) = vcpu(&[0xfb, 0xf4, 0xeb, 0xfd]) else {
        return;
    };
    assert_eq!(run(&mut vcpu), Exit::Halt);
    for vector in [0x31, 0x32] {
        vcpu.interrupt(vector).unwrap();
        assert_eq!(run(&mut vcpu), exit_port(vector));
        assert_eq!(run_to_event(&mut vcpu), Exit::Halt);
        vcpu.nmi().unwrap();
        assert_eq!(run_to_event(&mut vcpu), exit_port(2));
        assert_eq!(run_to_event(&mut vcpu), Exit::Halt);
    }
    // The vector is queued first; which handler runs first is the processor's.
    vcpu.interrupt(0x33).unwrap();
    vcpu.nmi().unwrap();
    let mut seen = [run_to_event(&mut vcpu), run_to_event(&mut vcpu)];
    seen.sort_by_key(|exit| *exit == exit_port(2));
    assert_eq!(seen, [exit_port(0x33), exit_port(2)]);
    assert_eq!(run_to_event(&mut vcpu), Exit::Halt);
}

/// SDM table "Processor States Following Power-up, Reset, or INIT", and the SIPI's
/// page; what was queued before is gone.
#[test]
fn init_and_startup() {
    // sti; hlt
    let Some(mut vcpu) = vcpu(&[0xfb, 0xf4]) else {
        return;
    };
    assert_eq!(run(&mut vcpu), Exit::Halt);
    vcpu.nmi().unwrap();
    vcpu.interrupt(0x31).unwrap();
    vcpu.init().unwrap();
    let (regs, sregs) = (
        vcpu.fd().get_regs().unwrap(),
        vcpu.fd().get_sregs().unwrap(),
    );
    assert_eq!((regs.rip, regs.rflags, regs.rsp), (0xfff0, 2, 0));
    assert_eq!((sregs.cs.selector, sregs.cs.base), (0xf000, 0xffff_0000));
    assert_eq!(sregs.cr0 & !0x6000_0000, 0x10);
    assert_eq!((sregs.cr3, sregs.cr4, sregs.efer), (0, 0, 0));
    assert_eq!((sregs.idt.base, sregs.idt.limit), (0, 0xffff));
    assert_eq!(regs.rflags & RFLAGS_IF, 0);
    assert!(!vcpu.accepts_interrupt() && !vcpu.interrupts_enabled());
    vcpu.startup(0x01).unwrap();
    let (regs, sregs) = (
        vcpu.fd().get_regs().unwrap(),
        vcpu.fd().get_sregs().unwrap(),
    );
    assert_eq!(
        (sregs.cs.selector, sregs.cs.base, regs.rip),
        (0x100, 0x1000, 0)
    );
    // The code again: it halts, and nothing was left queued.
    assert_eq!(run_to_event(&mut vcpu), Exit::Halt);
}

/// Notes accesses to MSRs: 0x802 reads as 0x55, 0x80b and 0x1b are taken.
#[derive(Default)]
struct Msrs(Vec<(u32, Option<u64>)>);

impl PrivateIo for Msrs {
    fn mmio_read(&mut self, _gpa: u64, _data: &mut [u8]) -> bool {
        false
    }

    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) -> bool {
        false
    }

    fn msr_read(&mut self, index: u32) -> Option<u64> {
        self.0.push((index, None));
        (index == 0x802).then_some(0x55)
    }

    fn msr_write(&mut self, index: u32, value: u64) -> bool {
        self.0.push((index, Some(value)));
        matches!(index, 0x80b | 0x1b)
    }
}

/// `mov ecx, index` with an operand size prefix.
fn ecx(index: u32) -> Vec<u8> {
    [&[0x66, 0xb9], index.to_le_bytes().as_slice()].concat()
}

#[test]
fn msrs_of_the_local_apic_exit_and_others_are_gp() {
    let (rdmsr, wrmsr, out) = ([0x0f, 0x32], [0x0f, 0x30], [0xe6, 0xf4]);
    // mov eax, value; xor edx, edx
    let value = |v: u32| {
        let bytes = v.to_le_bytes();
        [&[0x66, 0xb8], bytes.as_slice(), &[0x66, 0x31, 0xd2]].concat()
    };
    let code = [
        ecx(0x802).as_slice(),
        &rdmsr,
        &out,
        &value(0),
        &ecx(0x80b),
        &wrmsr,
        &value(0xfee0_0900 & !0x800),
        &ecx(0x1b),
        &wrmsr,
        &ecx(0x1b),
        &rdmsr,
        &out,
        // #GP: its handler writes 13.
        &ecx(0x8ff),
        &rdmsr,
    ]
    .concat();
    let Some(mut vcpu) = vcpu(&code) else { return };
    let mut own = Msrs::default();
    let mut run = |own: &mut Msrs| loop {
        match vcpu.run(&Bus::default(), own).unwrap() {
            Exit::Interrupted => {}
            exit => return exit,
        }
    };
    assert_eq!(run(&mut own), exit_port(0x55));
    assert_eq!(run(&mut own), exit_port(0), "the new base, as KVM reads it");
    assert_eq!(run(&mut own), exit_port(13));
    let wanted = [
        (0x802, None),
        (0x80b, Some(0)),
        (0x1b, Some(0xfee0_0100)),
        (0x8ff, None),
    ];
    assert_eq!(own.0, wanted);
    let sregs = vcpu.fd().get_sregs().unwrap();
    assert_eq!(sregs.apic_base, 0xfee0_0100, "off, by KVM's register too");
}
