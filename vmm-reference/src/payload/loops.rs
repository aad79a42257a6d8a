//! Guests that do one thing for ever, for `bench`: what does an exit cost?

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

use hypercall_abi::{KVM_HC_KICK_CPU, doorbell};

use super::lock_code::code;

global_asm!(
    ".pushsection .rodata.vmm_reference_loops, \"a\"",
    ".globl vmm_reference_loop_doorbell_start", ".hidden vmm_reference_loop_doorbell_start",
    "vmm_reference_loop_doorbell_start:",
    "   mov  eax, {KICK_CPU}",
    "   xor  ebx, ebx",
    "   mov  ecx, {ABSENT}",
    ".Lloop_doorbell:",
    "   mov  eax, {KICK_CPU}",
    "   out  {DOORBELL}, eax",
    "   jmp  .Lloop_doorbell",
    ".globl vmm_reference_loop_doorbell_end", ".hidden vmm_reference_loop_doorbell_end",
    "vmm_reference_loop_doorbell_end:",
    ".globl vmm_reference_loop_hlt_start", ".hidden vmm_reference_loop_hlt_start",
    "vmm_reference_loop_hlt_start:",
    ".Lloop_hlt:",
    "   hlt",
    "   jmp  .Lloop_hlt",
    ".globl vmm_reference_loop_hlt_end", ".hidden vmm_reference_loop_hlt_end",
    "vmm_reference_loop_hlt_end:",
    ".popsection",
    KICK_CPU = const KVM_HC_KICK_CPU,
    ABSENT = const super::ABSENT_APIC_ID,
    DOORBELL = const doorbell::PORT,
);

unsafe extern "C" {
    static vmm_reference_loop_doorbell_start: u8;
    static vmm_reference_loop_doorbell_end: u8;
    static vmm_reference_loop_hlt_start: u8;
    static vmm_reference_loop_hlt_end: u8;
}

/// KVM_HC_KICK_CPU for nobody by the doorbell, again and again.
pub fn doorbell_kicks() -> &'static [u8] {
    code!(
        vmm_reference_loop_doorbell_start,
        vmm_reference_loop_doorbell_end
    )
}

/// HLT, again and again.
pub fn halts() -> &'static [u8] {
    code!(vmm_reference_loop_hlt_start, vmm_reference_loop_hlt_end)
}
