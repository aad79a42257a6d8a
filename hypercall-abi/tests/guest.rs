//! The issuing side, as far as it can be watched outside of a guest.
//!
//! At CPL 3 the doorbell's `out` faults before it does anything. A signal
//! handler plays the hypervisor: it looks at the instruction and the
//! registers, answers in rax and steps over it.
#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "a signal handler reads and writes registers")]

use std::arch::asm;
use std::ffi::c_void;
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};

use cpuid_features::CpuidRegs;
use hypercall_abi::guest::{Hypercalls, Transport};
use hypercall_abi::{ClockPairingData, Hypercall, KvmErrno, Mode, RawHypercall, doorbell};

/// rax, rbx, rcx, rdx, rsi at the instruction. Written by the handler and read
/// by the thread that it interrupts: program order is all there is.
static SEEN: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
/// The first eight bytes at the instruction.
static CODE: AtomicU64 = AtomicU64::new(0);
/// What the handler puts into rax.
static ANSWER: AtomicI64 = AtomicI64::new(0);
/// Where the handler writes, as a host would for CLOCK_PAIRING.
static MEMORY: AtomicPtr<ClockPage> = AtomicPtr::new(ptr::null_mut());
/// One test at a time: the statics are shared.
static ONE: Mutex<()> = Mutex::new(());

type ClockPage = [u8; ClockPairingData::SIZE];

const DATA: ClockPairingData = ClockPairingData {
    sec: 1_337_000_000,
    nsec: 5,
    tsc: 77,
    flags: 0,
};

#[expect(clippy::indexing_slicing, reason = "the C library's own indices")]
extern "C" fn play_hypervisor(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a ucontext_t to a handler with SA_SIGINFO, and
    // nothing else refers to it.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let gregs = &mut context.uc_mcontext.gregs;
    let index = |register: i32| usize::try_from(register).unwrap_or(0);
    let registers = [
        libc::REG_RAX,
        libc::REG_RBX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RSI,
    ];
    for (seen, register) in SEEN.iter().zip(registers) {
        seen.store(gregs[index(register)] as u64, Ordering::Relaxed);
    }
    let rip = gregs[index(libc::REG_RIP)] as u64;
    // SAFETY: the instruction was fetched from there, and code goes on behind
    // it: at least the two instructions that end the asm block.
    let code = unsafe { ptr::read_unaligned(ptr::with_exposed_provenance::<u64>(address(rip))) };
    CODE.store(code, Ordering::Relaxed);
    if code & 0xff != 0xe7 {
        // SAFETY: a fault that is no doorbell is a bug; this ends the test.
        unsafe { libc::abort() };
    }
    let memory = MEMORY.load(Ordering::Relaxed);
    if !memory.is_null() {
        // SAFETY: the test lends it for the time of its call.
        unsafe { memory.write(DATA.to_bytes()) };
    }
    gregs[index(libc::REG_RAX)] = ANSWER.load(Ordering::Relaxed);
    // `out imm8, eax` is two bytes.
    gregs[index(libc::REG_RIP)] += 2;
}

fn address(register: u64) -> usize {
    usize::try_from(register).unwrap_or(0)
}

fn install() {
    // SAFETY: all zeroes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = play_hypervisor as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler touches the context and atomics alone, which is
    // async-signal-safe, and `action` is filled in.
    let result = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0);
}

fn doorbell() -> Hypercalls {
    install();
    // SAFETY: the handler serves the doorbell. CPL 3 is why it is reached.
    unsafe { Hypercalls::new(Transport::Doorbell) }
}

/// The call that the handler saw.
fn seen() -> RawHypercall {
    let [rax, rbx, rcx, rdx, rsi] = SEEN.each_ref().map(|seen| seen.load(Ordering::Relaxed));
    RawHypercall {
        nr: rax,
        args: [rbx, rcx, rdx, rsi],
        mode: Mode::Bits64,
        cpl: 0,
    }
}

#[test]
fn the_doorbell_has_the_abis_registers() {
    let _one = ONE.lock().unwrap();
    let hypercalls = doorbell();
    ANSWER.store(-1000, Ordering::Relaxed);
    for nr in 0..64 {
        let args = [nr + 1, nr + 2, nr + 3, nr + 4].map(|arg| arg << 33 | arg);
        let call = RawHypercall {
            nr: nr << 40 | nr,
            args,
            mode: Mode::Bits64,
            cpl: 0,
        };
        // SAFETY: the handler does nothing but look.
        let result = unsafe { hypercalls.call(call.decode()) };
        assert_eq!(result, Err(KvmErrno::ENOSYS));
        assert_eq!(seen().decode(), call.decode());
    }
    let [out, port, ..] = CODE.load(Ordering::Relaxed).to_le_bytes();
    assert_eq!((out, port), (0xe7, doorbell::PORT));
}

/// rbx belongs to the caller's caller: the block that borrows it gives it
/// back. The compiler is not told that the block writes it, so that nothing
/// else would.
#[test]
fn rbx_survives() {
    extern "C" fn kick() {
        // SAFETY: the handler serves the doorbell.
        let hypercalls = unsafe { Hypercalls::new(Transport::Doorbell) };
        hypercalls.kick_cpu(3).ok();
    }
    let _one = ONE.lock().unwrap();
    install();
    ANSWER.store(0, Ordering::Relaxed);
    let sentinel = 0x5e17_13e1_u64;
    let left: u64;
    // SAFETY: calls a function by the C ABI, with its clobbers declared and
    // rbx saved around it.
    unsafe {
        asm!(
            "mov r12, rbx",
            "mov rbx, r13",
            "call {kick}",
            "mov r13, rbx",
            "mov rbx, r12",
            kick = sym kick,
            out("r12") _,
            inout("r13") sentinel => left,
            clobber_abi("C"),
        );
    }
    assert_eq!(left, sentinel);
    assert_eq!((seen().nr, seen().args), (5, [0, 3, 0, 0]));
}

#[test]
fn each_wrapper_issues_its_call() {
    let _one = ONE.lock().unwrap();
    let hypercalls = doorbell();
    ANSWER.store(0, Ordering::Relaxed);

    assert_eq!(hypercalls.kick_cpu(u32::MAX), Ok(()));
    assert_eq!((seen().nr, seen().args), (5, [0, 0xffff_ffff, 0, 0]));
    assert_eq!(hypercalls.sched_yield(9), Ok(()));
    assert_eq!((seen().nr, seen().args), (11, [9, 0, 0, 0]));
    assert_eq!(hypercalls.vapic_poll_irq(), Ok(()));
    assert_eq!((seen().nr, seen().args), (1, [0; 4]));

    ANSWER.store(3, Ordering::Relaxed);
    // SAFETY: the handler sends nothing.
    let sent = unsafe { hypercalls.send_ipi([5, 1], 64, 0xfd) };
    assert_eq!(sent, Ok(3));
    assert_eq!((seen().nr, seen().args), (10, [5, 1, 64, 0xfd]));

    ANSWER.store(-22, Ordering::Relaxed);
    // SAFETY: the handler maps nothing.
    let mapped = unsafe { hypercalls.map_gpa_range(0x1000, 2, 0x10) };
    assert_eq!(mapped, Err(KvmErrno::EINVAL));
    assert_eq!((seen().nr, seen().args), (12, [0x1000, 2, 0x10, 0]));
    assert!(matches!(seen().decode(), Hypercall::MapGpaRange(_)));
}

#[test]
fn clock_pairing_reads_what_the_host_wrote() {
    let _one = ONE.lock().unwrap();
    let hypercalls = doorbell();
    ANSWER.store(0, Ordering::Relaxed);
    let mut page = MaybeUninit::new([0xff; ClockPairingData::SIZE]);
    MEMORY.store(page.as_mut_ptr(), Ordering::Relaxed);
    // SAFETY: initialized above.
    let page = unsafe { page.assume_init_mut() };
    // SAFETY: the handler writes to the page and nowhere else.
    let paired = unsafe { hypercalls.clock_pairing(page, 0x7000) };
    MEMORY.store(ptr::null_mut(), Ordering::Relaxed);
    assert_eq!(paired, Ok(DATA));
    assert_eq!((seen().nr, seen().args), (9, [0x7000, 0, 0, 0]));
}

/// VMCALL and VMMCALL cannot be watched as the doorbell is: the hypervisor of
/// this machine, if any, would answer them. Which one is chosen can.
#[test]
fn the_vendor_decides() {
    /// Vendors as CPUID leaf 0 spells them: ebx, edx, ecx.
    fn machine(vendor: &'static [u8; 12], kvm: bool) -> impl Fn(u32) -> Option<CpuidRegs> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| vendor[at + byte]));
        let (ebx, edx, ecx) = (word(0), word(4), word(8));
        move |leaf| match leaf {
            0 => Some(CpuidRegs {
                eax: 0xd,
                ebx,
                ecx,
                edx,
            }),
            // "KVMKVMKVM\0\0\0"
            0x4000_0000 if kvm => Some(CpuidRegs {
                eax: 0x4000_0001,
                ebx: 0x4b4d_564b,
                ecx: 0x564b_4d56,
                edx: 0x4d,
            }),
            _ => None,
        }
    }
    let choice = |vendor, kvm| Transport::from_cpuid(&machine(vendor, kvm));
    assert_eq!(choice(b"GenuineIntel", true), Some(Transport::Vmcall));
    assert_eq!(choice(b"AuthenticAMD", true), Some(Transport::Vmmcall));
    assert_eq!(choice(b"HygonGenuine", true), Some(Transport::Vmmcall));
    assert_eq!(choice(b"CentaurHauls", true), Some(Transport::Vmcall));
    assert_eq!(choice(b"AuthenticAMD", false), None);
    println!("this machine: {:?}", Transport::detect());
}
