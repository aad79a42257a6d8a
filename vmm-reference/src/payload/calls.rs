//! Guests that issue one hypercall and halt, for `probe`: what does this host do
//! with it, and with HLT? `rax` at the HLT shows.

#![expect(unsafe_code, reason = "machine code: see assembly::program")]

use hypercall_abi::{KVM_HC_KICK_CPU, doorbell};

use super::ABSENT_APIC_ID;
use super::assembly::kick;
use super::assembly::program::program;

program! {
    /// VMCALL with KVM_HC_KICK_CPU for nobody, then HLT.
    pub fn vmcall = "vmcall";
    kick::of_nobody!(),
    "   vmcall",
    "   hlt";
    KICK_CPU = KVM_HC_KICK_CPU,
    ABSENT = ABSENT_APIC_ID,
}

program! {
    /// VMMCALL with KVM_HC_KICK_CPU for nobody, then HLT.
    pub fn vmmcall = "vmmcall";
    kick::of_nobody!(),
    "   vmmcall",
    "   hlt";
    KICK_CPU = KVM_HC_KICK_CPU,
    ABSENT = ABSENT_APIC_ID,
}

program! {
    /// The doorbell with KVM_HC_KICK_CPU for nobody, then HLT.
    pub fn doorbell_kick = "doorbell";
    kick::of_nobody!(),
    "   out  {DOORBELL}, eax",
    "   hlt";
    KICK_CPU = KVM_HC_KICK_CPU,
    ABSENT = ABSENT_APIC_ID,
    DOORBELL = doorbell::PORT,
}
