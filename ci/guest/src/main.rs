//! Issues every hypercall that hypercall-abi has a wrapper for, and compares
//! the answers. Command line: `doorbell` for the port, anything else for the
//! instruction that CPUID names. Resets the machine if all is well; else ends
//! by the exit port with the number of the step that was not.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use hypercall_abi::guest::{Hypercalls, Transport};
use hypercall_abi::{ClockPairingData, Hypercall, HypercallNr, KvmErrno};

// 32-bit entry of multiboot: flat segments, paging off, EBX = information.
// Maps the first GiB one to one and goes on in 64-bit mode, SSE on.
global_asm!(
    ".pushsection .multiboot, \"ax\"",
    ".balign 4",
    ".long 0x1badb002, 0, -0x1badb002",
    ".popsection",
    ".pushsection .text, \"ax\"",
    ".code32",
    ".globl start32",
    "start32:",
    "   cli",
    "   mov  esp, offset stack_top",
    "   mov  edi, ebx",
    "   mov  eax, offset pdpt + 3",
    "   mov  [pml4], eax",
    "   mov  eax, offset pd + 3",
    "   mov  [pdpt], eax",
    "   xor  ecx, ecx",
    "   mov  eax, 0x83",
    "2: mov  [pd + ecx * 8], eax",
    "   add  eax, 0x200000",
    "   inc  ecx",
    "   cmp  ecx, 512",
    "   jne  2b",
    "   mov  eax, offset pml4",
    "   mov  cr3, eax",
    "   mov  eax, 0x620",
    "   mov  cr4, eax",
    "   mov  ecx, 0xc0000080",
    "   rdmsr",
    "   or   eax, 0x100",
    "   wrmsr",
    "   mov  eax, 0x80000023",
    "   mov  cr0, eax",
    "   lgdt [gdt_pointer]",
    "   push 8",
    "   mov  eax, offset start64",
    "   push eax",
    "   retf",
    ".code64",
    "start64:",
    "   mov  edi, edi",
    "   call {main}",
    "   ud2",
    ".balign 8",
    "gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer: .word 23",
    "   .long gdt",
    ".popsection",
    ".pushsection .bss, \"aw\", @nobits",
    ".balign 4096",
    "pml4: .skip 4096",
    "pdpt: .skip 4096",
    "pd:   .skip 4096",
    "   .skip 65536",
    "stack_top:",
    ".popsection",
    main = sym main,
);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(0x7f)
}

/// The precompiled `core` names it, though nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

fn exit(value: u8) -> ! {
    // SAFETY: the exit port takes any byte, and ends this machine.
    unsafe { asm!("out 0xf4, al", in("al") value, options(nomem, nostack)) }
    loop {
        core::hint::spin_loop();
    }
}

fn reset() -> ! {
    // SAFETY: command 0xfe of the keyboard controller resets this machine.
    unsafe { asm!("out 0x64, al", in("al") 0xfeu8, options(nomem, nostack)) }
    loop {
        core::hint::spin_loop();
    }
}

fn expect(step: u8, holds: bool) {
    if !holds {
        exit(step);
    }
}

/// Whether multiboot's command line has `word` in it.
///
/// # Safety
/// `info` is the information block of a multiboot loader.
unsafe fn cmdline_has(info: u32, word: &[u8]) -> bool {
    // SAFETY: flags bit 2 says that the word at 16 is the address of a
    // NUL-terminated string; the loader writes both below 4 GiB, mapped here.
    unsafe {
        let words = info as usize as *const u32;
        if words.read_volatile() & 4 == 0 {
            return false;
        }
        let line = words.add(4).read_volatile() as usize as *const u8;
        let len = (0..4096).take_while(|&i| line.add(i).read() != 0).count();
        let line = core::slice::from_raw_parts(line, len);
        line.windows(word.len()).any(|part| part == word)
    }
}

extern "C" fn main(info: u32) -> ! {
    // SAFETY: entered by a multiboot loader with EBX as it says.
    let doorbell = unsafe { cmdline_has(info, b"doorbell") };
    let transport = if doorbell {
        Some(Transport::Doorbell)
    } else {
        Transport::detect()
    };
    let Some(transport) = transport else { exit(1) };
    // SAFETY: a kernel at CPL 0 in a guest whose host serves this transport.
    let calls = unsafe { Hypercalls::new(transport) };

    expect(2, calls.vapic_poll_irq() == Ok(()));
    expect(3, calls.kick_cpu(0x7fff_fffe) == Ok(()));
    // Without a local APIC in KVM the VMM does not offer it, and its dispatch
    // enforces what is offered.
    let yielded = if doorbell {
        Err(KvmErrno::ENOSYS)
    } else {
        Ok(())
    };
    expect(4, calls.sched_yield(0) == yielded);
    // Kicked before it halts, with interrupts off: this HLT returns, or the
    // run ends by its time.
    expect(5, calls.kick_cpu(0) == Ok(()));
    // SAFETY: the kick is latched, so this falls through.
    unsafe { asm!("hlt", options(nomem, nostack)) };
    let unknown = Hypercall::Unknown {
        nr: HypercallNr(0x63),
        args: [0; 4],
    };
    // SAFETY: a number that nobody has does nothing.
    expect(6, unsafe { calls.call(unknown) } == Err(KvmErrno::ENOSYS));
    // SAFETY: not enabled by this VMM's `run`, so refused; nothing is shared.
    expect(
        7,
        unsafe { calls.map_gpa_range(0, 1, 0) } == Err(KvmErrno::ENOSYS),
    );
    // SAFETY: no bit is set, so no vCPU is interrupted.
    let ipi = unsafe { calls.send_ipi([0, 0], 0, 0x20) };
    let mut page = [0; ClockPairingData::SIZE];
    let gpa = &raw const page as u64;
    // SAFETY: memory is mapped one to one, and `page` lies within it.
    let pairing = unsafe { calls.clock_pairing(&mut page, gpa) };
    expect(8, ipi == Ok(0));
    if doorbell {
        // The VMM does not serve it.
        expect(9, pairing == Err(KvmErrno::ENOSYS));
    } else {
        // By the host's clock source: both are KVM's.
        expect(
            9,
            pairing
                .as_ref()
                .map_or_else(|e| *e == KvmErrno::EOPNOTSUPP, |clock| clock.sec > 0),
        );
    }
    reset()
}
