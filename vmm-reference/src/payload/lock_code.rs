//! The embedded guests' machine code.
//!
//! Position-independent 64-bit code without a stack, in integer instructions
//! only: KVM's emulator runs it on hosts without hardware virtualization, and
//! it knows neither SSE arithmetic nor `cmpxchg16b`. Entry: long mode, CPL 0,
//! IF = 0, `rdi` = GPA of the vCPU's result page, `rsi` = GPA of the parameter
//! page.

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

use cpuid_features::{KVM_CPUID_FEATURES, KvmFeatures};
use hypercall_abi::{KVM_HC_KICK_CPU, doorbell};

use super::layout::{issue, lock, mode, param, result, waiter};
use crate::devices::EXIT_PORT;

// The lock program. Registers that live throughout:
//   rdi result page   r8  lock page     r10 own APIC ID
//   r15 param page    r9  waiter table  r11 mode
//   r13 ticket        r14 start of the wait, then its length
//
// Order of the seed's protocol, and why a wake-up is not lost: a waiter
// publishes its ticket with `xchg` (a full barrier) and then reads SERVING; the
// unlocker writes SERVING with `xchg` and then reads the table. One of them
// sees the other. What is left, a kick between the waiter's re-check and its
// HLT, is the latch of the host: the HLT returns at once.
global_asm!(
    ".pushsection .rodata.vmm_reference_lock, \"a\"",
    ".balign 16",
    ".globl vmm_reference_lock_start", ".hidden vmm_reference_lock_start",
    "vmm_reference_lock_start:",
    "   mov  r15, rsi",
    "   mov  r8,  [r15 + {LOCK}]",
    "   mov  r9,  [r15 + {WAITERS}]",
    "   mov  r10, [rdi + {APIC_ID}]",
    "   mov  r11, [r15 + {MODE}]",
    "   cmp  r11, {CALIBRATE}",
    "   je   .Llock_calibrate",
    // "Guest checks this feature bit before enabling paravirtualized spinlock
    // support": PV mode without PV_UNHALT ends with code 1.
    "   cmp  r11, {PV}",
    "   jne  .Llock_round",
    "   mov  eax, {FEATURES_LEAF}",
    "   xor  ecx, ecx",
    "   cpuid",
    "   test eax, {PV_UNHALT}",
    "   jnz  .Llock_round",
    "   mov  eax, 1",
    "   jmp  .Llock_exit",

    // One round: draw a ticket and wait for it.
    ".Llock_round:",
    "   cmp  qword ptr [r15 + {STOP}], 0",
    "   jne  .Llock_out",
    "   rdtsc",
    "   shl  rdx, 32",
    "   or   rax, rdx",
    "   mov  r14, rax",
    "   mov  r13d, 1",
    "   lock xadd [r8 + {NEXT}], r13",
    "   cmp  [r8 + {SERVING}], r13",
    "   je   .Llock_enter",

    // Fast path: spin. STOP is looked at where it costs no hand-over: here the
    // host's kick after it ends the HLT below.
    ".Llock_spin:",
    "   mov  rcx, [r15 + {THRESHOLD}]",
    ".Llock_spin_round:",
    "   pause",
    "   cmp  [r8 + {SERVING}], r13",
    "   je   .Llock_enter",
    "   dec  rcx",
    "   jnz  .Llock_spin_round",
    "   test r11, r11",
    "   jz   .Llock_spin_on",

    // Slow path: publish, re-check, HLT.
    "   mov  rbp, r13",
    "   and  rbp, [r15 + {WAITER_MASK}]",
    "   add  rbp, rbp",
    "   mov  [r9 + rbp * {WAITER_HALF} + {WAITER_APIC_ID}], r10",
    "   lea  rax, [r13 + 1]",
    "   xchg [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], rax",
    "   cmp  [r8 + {SERVING}], r13",
    "   je   .Llock_unpublish",
    "   inc  qword ptr [rdi + {HALTS}]",
    "   hlt",
    "   cmp  [r8 + {SERVING}], r13",
    "   je   .Llock_unpublish",
    // A wake-up may be spurious: spin again, unless the host wants an end.
    ".Llock_spin_on:",
    "   cmp  qword ptr [r15 + {STOP}], 0",
    "   je   .Llock_spin",
    "   jmp  .Llock_out",
    ".Llock_unpublish:",
    "   mov  qword ptr [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], 0",

    // The critical section.
    ".Llock_enter:",
    "   rdtsc",
    "   shl  rdx, 32",
    "   or   rax, rdx",
    "   sub  rax, r14",
    "   mov  r14, rax",
    "   lea  rax, [r10 + 1]",
    "   cmp  qword ptr [r8 + {OWNER}], 0",
    "   je   .Llock_owned",
    "   inc  qword ptr [rdi + {VIOLATIONS}]",
    ".Llock_owned:",
    "   mov  [r8 + {OWNER}], rax",
    "   mov  rbx, [r8 + {COUNTER}]",
    "   mov  rcx, [r15 + {HOLD}]",
    "   jrcxz .Llock_held",
    ".Llock_hold:",
    "   dec  rcx",
    "   jnz  .Llock_hold",
    ".Llock_held:",
    "   inc  rbx",
    "   mov  [r8 + {COUNTER}], rbx",
    "   cmp  [r8 + {OWNER}], rax",
    "   je   .Llock_leave",
    "   inc  qword ptr [rdi + {VIOLATIONS}]",
    ".Llock_leave:",
    "   mov  qword ptr [r8 + {OWNER}], 0",

    // Unlock. What can be computed before the hand-over is.
    "   lea  rax, [r13 + 1]",
    "   mov  rbp, rax",
    "   and  rbp, [r15 + {WAITER_MASK}]",
    "   add  rbp, rbp",
    "   xchg [r8 + {SERVING}], rax",
    "   add  r13, 2",
    "   cmp  [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], r13",
    "   jne  .Llock_book",
    // The next ticket sleeps: KVM_HC_KICK_CPU(flags = 0, APIC ID).
    "   mov  eax, {KICK_CPU}",
    "   xor  ebx, ebx",
    "   mov  rcx, [r9 + rbp * {WAITER_HALF} + {WAITER_APIC_ID}]",
    "   cmp  qword ptr [r15 + {ISSUE}], {VMCALL}",
    "   jae  .Llock_instruction",
    "   out  {DOORBELL}, eax",
    ".Llock_kicked:",
    "   inc  qword ptr [rdi + {KICKS}]",
    "   test rax, rax",
    "   jnz  .Llock_refused",

    // Book the wait: layout::result::bucket.
    ".Llock_book:",
    "   inc  qword ptr [rdi + {ACQUISITIONS}]",
    "   cmp  r14, 4",
    "   jb   .Llock_bucket",
    "   bsr  rcx, r14",
    "   lea  rax, [rcx * 4 - 4]",
    "   sub  ecx, 2",
    "   shr  r14, cl",
    "   and  r14d, 3",
    "   add  r14, rax",
    ".Llock_bucket:",
    "   inc  qword ptr [rdi + r14 * 8 + {HISTOGRAM}]",

    // Think, then again.
    "   mov  rcx, [r15 + {THINK}]",
    "   test rcx, rcx",
    "   jz   .Llock_round",
    ".Llock_think:",
    "   dec  rcx",
    "   jnz  .Llock_think",
    "   jmp  .Llock_round",

    // Kicks by instruction, and kicks that were not answered with 0.
    ".Llock_instruction:",
    "   ja   .Llock_vmmcall",
    "   vmcall",
    "   jmp  .Llock_kicked",
    ".Llock_vmmcall:",
    "   vmmcall",
    "   jmp  .Llock_kicked",
    ".Llock_refused:",
    "   inc  qword ptr [rdi + {KICK_ERRORS}]",
    "   jmp  .Llock_book",

    // Leave. A ticket in hand is dropped: all others leave too.
    ".Llock_out:",
    "   mov  qword ptr [rdi + {DONE}], 1",
    "   xor  eax, eax",
    ".Llock_exit:",
    "   out  {EXIT_PORT}, al",
    ".Llock_off:",
    "   hlt",
    "   jmp  .Llock_off",

    // Calibration: the rounds of the spin above, on a ticket that never comes.
    ".Llock_calibrate:",
    "   rdtsc",
    "   shl  rdx, 32",
    "   or   rax, rdx",
    "   mov  r14, rax",
    "   mov  r13, -1",
    "   mov  rcx, [r15 + {THRESHOLD}]",
    ".Llock_calibrate_round:",
    "   pause",
    "   cmp  [r8 + {SERVING}], r13",
    "   je   .Llock_out",
    "   dec  rcx",
    "   jnz  .Llock_calibrate_round",
    "   rdtsc",
    "   shl  rdx, 32",
    "   or   rax, rdx",
    "   sub  rax, r14",
    "   mov  [rdi + {CALIBRATION}], rax",
    "   jmp  .Llock_out",
    ".globl vmm_reference_lock_end", ".hidden vmm_reference_lock_end",
    "vmm_reference_lock_end:",
    ".popsection",
    LOCK = const param::LOCK,
    WAITERS = const param::WAITERS,
    WAITER_MASK = const param::WAITER_MASK,
    MODE = const param::MODE,
    THRESHOLD = const param::THRESHOLD,
    HOLD = const param::HOLD,
    THINK = const param::THINK,
    STOP = const param::STOP,
    ISSUE = const param::ISSUE,
    CALIBRATE = const mode::CALIBRATE,
    PV = const mode::PV,
    FEATURES_LEAF = const KVM_CPUID_FEATURES,
    PV_UNHALT = const KvmFeatures::PV_UNHALT.bits(),
    VMCALL = const issue::VMCALL,
    NEXT = const lock::NEXT,
    SERVING = const lock::SERVING,
    OWNER = const lock::OWNER,
    COUNTER = const lock::COUNTER,
    WAITER_TICKET = const waiter::TICKET,
    WAITER_APIC_ID = const waiter::APIC_ID,
    WAITER_HALF = const waiter::SIZE / 2,
    APIC_ID = const result::APIC_ID,
    ACQUISITIONS = const result::ACQUISITIONS,
    HALTS = const result::HALTS,
    KICKS = const result::KICKS,
    KICK_ERRORS = const result::KICK_ERRORS,
    VIOLATIONS = const result::VIOLATIONS,
    DONE = const result::DONE,
    CALIBRATION = const result::CALIBRATION,
    HISTOGRAM = const result::HISTOGRAM,
    KICK_CPU = const KVM_HC_KICK_CPU,
    DOORBELL = const doorbell::PORT,
    EXIT_PORT = const EXIT_PORT,
);

// Two more programs, for `probe`: what does this host do with a hypercall, and
// with HLT? `rax` at the HLT shows.
global_asm!(
    ".pushsection .rodata.vmm_reference_probe, \"a\"",
    ".balign 16",
    ".globl vmm_reference_vmcall_start", ".hidden vmm_reference_vmcall_start",
    "vmm_reference_vmcall_start:",
    "   mov  eax, {KICK_CPU}",
    "   xor  ebx, ebx",
    "   mov  ecx, {ABSENT}",
    "   vmcall",
    "   hlt",
    ".globl vmm_reference_vmcall_end", ".hidden vmm_reference_vmcall_end",
    "vmm_reference_vmcall_end:",
    ".globl vmm_reference_vmmcall_start", ".hidden vmm_reference_vmmcall_start",
    "vmm_reference_vmmcall_start:",
    "   mov  eax, {KICK_CPU}",
    "   xor  ebx, ebx",
    "   mov  ecx, {ABSENT}",
    "   vmmcall",
    "   hlt",
    ".globl vmm_reference_vmmcall_end", ".hidden vmm_reference_vmmcall_end",
    "vmm_reference_vmmcall_end:",
    ".globl vmm_reference_doorbell_start", ".hidden vmm_reference_doorbell_start",
    "vmm_reference_doorbell_start:",
    "   mov  eax, {KICK_CPU}",
    "   xor  ebx, ebx",
    "   mov  ecx, {ABSENT}",
    "   out  {DOORBELL}, eax",
    "   hlt",
    ".globl vmm_reference_doorbell_end", ".hidden vmm_reference_doorbell_end",
    "vmm_reference_doorbell_end:",
    ".popsection",
    KICK_CPU = const KVM_HC_KICK_CPU,
    ABSENT = const super::ABSENT_APIC_ID,
    DOORBELL = const doorbell::PORT,
);

unsafe extern "C" {
    static vmm_reference_lock_start: u8;
    static vmm_reference_lock_end: u8;
    static vmm_reference_vmcall_start: u8;
    static vmm_reference_vmcall_end: u8;
    static vmm_reference_vmmcall_start: u8;
    static vmm_reference_vmmcall_end: u8;
    static vmm_reference_doorbell_start: u8;
    static vmm_reference_doorbell_end: u8;
}

// Global, since the assembly and its users may be compiled apart; hidden, so
// that nothing outside this program sees the names.
/// The bytes between two symbols.
macro_rules! code {
    ($start:ident, $end:ident) => {{
        let start = &raw const $start;
        let end = &raw const $end;
        let len = end as usize - start as usize;
        // SAFETY:
        // - valid for reads of `len` bytes, all initialized: the assembly above
        //   emits them between the two labels of one read-only section;
        // - alignment: u8 has none;
        // - never written, and `len` is far below isize::MAX.
        unsafe { core::slice::from_raw_parts(start, len) }
    }};
}

pub(super) use code;

/// The lock program.
pub fn lock() -> &'static [u8] {
    code!(vmm_reference_lock_start, vmm_reference_lock_end)
}

/// VMCALL with KVM_HC_KICK_CPU for nobody, then HLT.
pub fn vmcall() -> &'static [u8] {
    code!(vmm_reference_vmcall_start, vmm_reference_vmcall_end)
}

/// VMMCALL with KVM_HC_KICK_CPU for nobody, then HLT.
pub fn vmmcall() -> &'static [u8] {
    code!(vmm_reference_vmmcall_start, vmm_reference_vmmcall_end)
}

/// The doorbell with KVM_HC_KICK_CPU for nobody, then HLT.
pub fn doorbell_kick() -> &'static [u8] {
    code!(vmm_reference_doorbell_start, vmm_reference_doorbell_end)
}
