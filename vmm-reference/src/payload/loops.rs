//! Guests that do one thing for ever, for `bench`: what does an exit cost?

#![expect(unsafe_code, reason = "machine code: see assembly::program")]

use hypercall_abi::{KVM_HC_KICK_CPU, doorbell};

use super::ABSENT_APIC_ID;
use super::assembly::kick;
use super::assembly::program::program;

program! {
    /// KVM_HC_KICK_CPU for nobody by the doorbell, again and again.
    pub fn doorbell_kicks = "loop_doorbell";
    kick::of_nobody!(),
    ".Lloop_doorbell:",
    "   mov  eax, {KICK_CPU}",
    "   out  {DOORBELL}, eax",
    "   jmp  .Lloop_doorbell";
    KICK_CPU = KVM_HC_KICK_CPU,
    ABSENT = ABSENT_APIC_ID,
    DOORBELL = doorbell::PORT,
}

program! {
    /// HLT, again and again.
    pub fn halts = "loop_hlt";
    ".Lloop_hlt:",
    "   hlt",
    "   jmp  .Lloop_hlt";
}
