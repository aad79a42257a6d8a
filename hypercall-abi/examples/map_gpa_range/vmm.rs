#![expect(unsafe_code, reason = "a VM's memory is given to KVM by address")]

use std::process::ExitCode;
use std::time::Duration;
use std::{ptr, slice, thread};

use cpuid_features::{CpuidReader, Native};
use hypercall_abi::{
    Conversion, Enforcement, HypercallHandler, HypercallResult, KVM_HC_MAP_GPA_RANGE, KvmErrno,
    MapGpaRange, MemoryConverter, Mode, RawHypercall, Visibility, convert, dispatch, from_rax,
};
use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_VM_TYPES, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit};

/// Bytes of guest memory.
const SIZE: usize = 1 << 20;
/// Where the guest's code is.
const CODE: u16 = 0x1000;
/// The port to which the guest writes each answer.
const ANSWER: u16 = 0x10;
/// Bit of KVM_CAP_VM_TYPES: KVM_X86_SW_PROTECTED_VM.
const SW_PROTECTED: i32 = 1 << 1;

/// What the guest asks for, and what it is to be answered.
const CALLS: [(MapGpaRange, HypercallResult); 8] = [
    (call(0x1_0000, 16, 0x10), Ok(0)),
    (call(0x2_0000, 16, 0x11), Ok(0)),
    (call(0x1_0000, 16, 0), Ok(0)),
    // KVM refuses these by itself.
    (call(0x1_0001, 1, 0x10), Err(KvmErrno::EINVAL)),
    (call(0x1_0000, 0, 0x10), Err(KvmErrno::EINVAL)),
    // It passes these on: a reserved attribute, and what is not memory.
    (call(0x1_0000, 1, 1 << 5), Err(KvmErrno::EINVAL)),
    (call(0x10_0000, 1, 0x10), Err(KvmErrno::EINVAL)),
    (call(0xf_f000, 2, 0x10), Err(KvmErrno::EINVAL)),
];

const fn call(gpa: u64, pages: u64, attributes: u64) -> MapGpaRange {
    MapGpaRange {
        gpa,
        pages,
        attributes,
    }
}

// ANCHOR: convert
/// The guest's memory as the VMM keeps it: which pages are private.
struct Memory {
    private: [bool; SIZE / 4096],
}

impl MemoryConverter for Memory {
    fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno> {
        if !range.within(0, SIZE as u64) {
            return Err(KvmErrno::EINVAL);
        }
        let pages = self.private.iter_mut().skip((range.start / 4096) as usize);
        for page in pages.take((range.bytes / 4096) as usize) {
            *page = range.to == Visibility::Private;
        }
        Ok(())
    }
}

impl HypercallHandler for Memory {
    fn map_gpa_range(&mut self, call: MapGpaRange) -> HypercallResult {
        convert(&call, self)
    }
}
// ANCHOR_END: convert

pub(crate) fn main() -> ExitCode {
    // Where there is no hardware virtualization a hypercall never completes.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(10));
        eprintln!("map_gpa_range: the guest's hypercalls do not complete on this host");
        std::process::exit(1);
    });
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("map_gpa_range: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let failed = |what: &'static str| move |error| format!("{what}: {error}");
    let kvm = Kvm::new().map_err(failed("/dev/kvm"))?;
    let types = kvm.check_extension_raw(KVM_CAP_VM_TYPES.into());
    let attributes = kvm.check_extension_raw(KVM_CAP_MEMORY_ATTRIBUTES.into());
    let protected = types & SW_PROTECTED != 0 && attributes != 0;
    println!(
        "private memory: {} (KVM_CAP_VM_TYPES {types:#x}, KVM_CAP_MEMORY_ATTRIBUTES {attributes:#x})",
        if protected {
            "this KVM has it for software-protected VMs; this VM is an ordinary one"
        } else {
            "none: this KVM has no software-protected VMs (CONFIG_KVM_SW_PROTECTED_VM, Linux 6.8 \
             or later), so no page of guest_memfd is converted; conversions are recorded only"
        }
    );
    let may = kvm.check_extension_raw(KVM_CAP_EXIT_HYPERCALL.into());
    if may & (1 << KVM_HC_MAP_GPA_RANGE) == 0 {
        return Err(format!(
            "this KVM hands no hypercall to userspace (KVM_CAP_EXIT_HYPERCALL {may:#x})"
        ));
    }

    let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_EXIT_HYPERCALL,
        ..kvm_enable_cap::default()
    };
    cap.args[0] = 1 << KVM_HC_MAP_GPA_RANGE;
    vm.enable_cap(&cap)
        .map_err(failed("KVM_CAP_EXIT_HYPERCALL"))?;

    // SAFETY: an anonymous mapping at an address of the kernel's choice touches
    // nothing that is there.
    let ram = unsafe {
        libc::mmap(
            ptr::null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if ram == libc::MAP_FAILED {
        return Err(format!("mmap: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the mapping is readable, writable, SIZE bytes long, is never
    // unmapped, and no guest runs while this slice is used.
    let bytes = unsafe { slice::from_raw_parts_mut(ram.cast::<u8>(), SIZE) };
    for (to, from) in bytes.iter_mut().skip(CODE.into()).zip(code()) {
        *to = from;
    }
    let region = kvm_userspace_memory_region {
        memory_size: SIZE as u64,
        userspace_addr: ram as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the mapping is as long as the region says and outlives the VM.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;

    let mut vcpu = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
    let mut sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
    let mut regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
    regs.rip = CODE.into();
    vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))?;

    let mut memory = Memory {
        private: [false; SIZE / 4096],
    };
    let (mut calls, mut exits) = (CALLS.iter(), 0);
    loop {
        match vcpu.run().map_err(failed("KVM_RUN"))? {
            // ANCHOR: exit
            VcpuExit::Hypercall(exit) => {
                let raw =
                    RawHypercall::from_hypercall_exit(exit.nr, &exit.args, exit.longmode.into());
                *exit.ret = dispatch(&raw, Enforcement::NotEnforced, &mut memory);
                exits += 1;
            }
            // ANCHOR_END: exit
            VcpuExit::IoOut(ANSWER, data) => {
                let answer = data.try_into().map_or(0, u32::from_le_bytes);
                let result = from_rax(answer.into(), Mode::Bits32);
                let (call, expected) = calls.next().ok_or("an answer too many")?;
                let MapGpaRange {
                    gpa,
                    pages,
                    attributes,
                } = call;
                println!("gpa {gpa:#x}, {pages} pages, attributes {attributes:#x}: {result:?}");
                if result != *expected {
                    return Err(format!("expected {expected:?}"));
                }
            }
            VcpuExit::Hlt => break,
            other => return Err(format!("unexpected exit: {other:?}")),
        }
    }
    let private: Vec<usize> = (memory.private.iter().enumerate())
        .filter_map(|(page, private)| private.then_some(page))
        .collect();
    println!(
        "{exits} exits; private pages {:#x} to {:#x}",
        private.first().unwrap_or(&0),
        private.last().unwrap_or(&0)
    );
    let as_asked = private == (0x20..0x30).collect::<Vec<_>>();
    if calls.next().is_none() && exits == 6 && as_asked {
        Ok(())
    } else {
        Err("not all that the guest asked for was done".into())
    }
}

/// Real-mode code: each call by the CPU's own hypercall instruction, each answer
/// to the port, and HLT.
fn code() -> Vec<u8> {
    let amd = Native
        .leaf(0)
        .is_some_and(|regs| regs.ebx == u32::from_le_bytes(*b"Auth"));
    let instruction = if amd {
        [0x0f, 0x01, 0xd9]
    } else {
        [0x0f, 0x01, 0xc1]
    };
    // mov r32, imm32 with an operand-size prefix.
    let load = |opcode, value: u64| {
        let [a, b, c, d, ..] = value.to_le_bytes();
        [0x66, opcode, a, b, c, d]
    };
    let mut code = Vec::new();
    for (call, _) in CALLS {
        code.extend(load(0xb8, KVM_HC_MAP_GPA_RANGE));
        code.extend(load(0xbb, call.gpa));
        code.extend(load(0xb9, call.pages));
        code.extend(load(0xba, call.attributes));
        code.extend(instruction);
        // out ANSWER, eax
        code.extend([0x66, 0xe7, ANSWER.to_le_bytes()[0]]);
    }
    code.push(0xf4);
    code
}
