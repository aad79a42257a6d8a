//! KVM_HC_KICK_CPU by each transport: [`issue`](crate::payload::layout::issue).

/// The hypercall's number and flags: `eax` and `ebx`. The APIC ID is to be in
/// `rcx`.
macro_rules! number {
    () => {
        $crate::payload::assembly::program::lines!["   mov  eax, {KICK_CPU}", "   xor  ebx, ebx"]
    };
}

/// Kicks, by the transport of the parameter page, and counts it. Answered with 0:
/// goes on behind this; else at `refused` of [`by_instruction`], which is the part
/// that a kick by the doorbell does not run through.
macro_rules! issue {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   cmp  qword ptr [r15 + {ISSUE}], {VMCALL}",
            "   jae  .L" $of "_instruction",
            "   out  {DOORBELL}, eax",
            ".L" $of "_kicked:",
            "   inc  qword ptr [rdi + {KICKS}]",
            "   test rax, rax",
            "   jnz  .L" $of "_refused",
        ]
    };
}

/// The rest of [`issue`]: kicks by instruction, and kicks that were refused, which
/// go on at `book`.
macro_rules! by_instruction {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            ".L" $of "_instruction:",
            "   ja   .L" $of "_vmmcall",
            "   vmcall",
            "   jmp  .L" $of "_kicked",
            ".L" $of "_vmmcall:",
            "   vmmcall",
            "   jmp  .L" $of "_kicked",
            ".L" $of "_refused:",
            "   inc  qword ptr [rdi + {KICK_ERRORS}]",
            "   jmp  .L" $of "_book",
        ]
    };
}

/// A hypercall with the registers as they are, by the transport that was compared
/// with VMCALL just now. Goes on behind this.
macro_rules! call {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   je   .L" $of "_vmcall",
            "   ja   .L" $of "_vmmcall",
            "   out  {DOORBELL}, eax",
            "   jmp  .L" $of "_called",
            ".L" $of "_vmcall:",
            "   vmcall",
            "   jmp  .L" $of "_called",
            ".L" $of "_vmmcall:",
            "   vmmcall",
            ".L" $of "_called:",
        ]
    };
}

/// The registers of a kick for an APIC ID that nobody has.
macro_rules! of_nobody {
    () => {
        concat!(
            $crate::payload::assembly::kick::number!(),
            "   mov  ecx, {ABSENT}"
        )
    };
}

pub(in crate::payload) use {by_instruction, call, issue, number, of_nobody};
