//! The script guest's machine code, under the rules of `payload::assembly`;
//! `rdi` is the result page, `rsi` the list. There is a stack for the interrupt
//! handler: the upper end of the result page.

#![expect(unsafe_code, reason = "machine code: see assembly::program")]

use hypercall_abi::doorbell;

use super::{BOARD, EOI, op, record, result, slot};
use crate::devices::EXIT_PORT;
use crate::payload::assembly::kick;
use crate::payload::assembly::program::{between, program};
use crate::payload::layout::issue;

// Registers that live throughout:
//   rdi result page   rbp the record      r10 the list
//   r8  board         r11 the round
program! {
    /// The program for 64-bit mode.
    pub fn script = "script";
    "   lea  rsp, [rdi + 0x1000]",
    "   mov  rbp, rsi",
    "   mov  r10, rsi",
    "   mov  r8d, {BOARD}",
    "   xor  r11d, r11d",
    "   jmp  .Lscript_dispatch",

    ".Lscript_next:",
    "   add  rbp, {RECORD}",
    ".Lscript_dispatch:",
    "   mov  [rdi + {AT}], rbp",
    "   mov  rax, [rbp + {OP}]",
    // A word of the board and what it is compared with, for all who want them.
    "   mov  rcx, [rbp + {A}]",
    "   mov  rdx, [rbp + {B}]",
    "   add  rdx, r11",
    "   cmp  eax, {CALL}",
    "   je   .Lscript_call",
    "   cmp  eax, {HALT}",
    "   je   .Lscript_halt",
    "   cmp  eax, {HALT_INTERRUPTS}",
    "   je   .Lscript_halt_interrupts",
    "   cmp  eax, {SET}",
    "   je   .Lscript_set",
    "   cmp  eax, {WAIT}",
    "   je   .Lscript_wait",
    "   cmp  eax, {HALT_UNTIL}",
    "   je   .Lscript_halt_until",
    "   cmp  eax, {LOAD}",
    "   je   .Lscript_load",
    "   cmp  eax, {LOOP}",
    "   je   .Lscript_loop",
    "   cmp  eax, {INTERRUPTS_ON}",
    "   je   .Lscript_interrupts_on",
    "   xor  eax, eax",
    ".Lscript_exit:",
    "   out  {EXIT_PORT}, al",
    ".Lscript_off:",
    "   jmp  .Lscript_off",

    ".Lscript_call:",
    "   mov  rax, [rbp + {A}]",
    "   mov  rbx, [rbp + {B}]",
    "   mov  rcx, [rbp + {C}]",
    "   mov  rdx, [rbp + {D}]",
    "   mov  rsi, [rbp + {E}]",
    "   cmp  qword ptr [rbp + {ISSUE}], {VMCALL}",
    kick::call!("script"),
    "   mov  r9, [rbp + {SLOT}]",
    "   mov  [rdi + r9], rax",
    // No register but RAX may have changed.
    "   cmp  rbx, [rbp + {B}]",
    "   jne  .Lscript_clobbered",
    "   cmp  rcx, [rbp + {C}]",
    "   jne  .Lscript_clobbered",
    "   cmp  rdx, [rbp + {D}]",
    "   jne  .Lscript_clobbered",
    "   cmp  rsi, [rbp + {E}]",
    "   je   .Lscript_next",
    ".Lscript_clobbered:",
    "   inc  qword ptr [rdi + {CLOBBERED}]",
    "   jmp  .Lscript_next",

    ".Lscript_halt:",
    "   inc  qword ptr [rdi + {HALTS}]",
    "   hlt",
    "   jmp  .Lscript_next",

    // STI takes effect behind the HLT: no interrupt comes between the look and
    // the sleep.
    ".Lscript_halt_interrupts:",
    "   cmp  [rdi + {INTERRUPTS}], rcx",
    "   jae  .Lscript_next",
    "   inc  qword ptr [rdi + {HALTS}]",
    "   sti",
    "   hlt",
    "   cli",
    "   jmp  .Lscript_halt_interrupts",

    ".Lscript_set:",
    "   xchg [r8 + rcx], rdx",
    "   jmp  .Lscript_next",

    ".Lscript_wait:",
    "   pause",
    "   cmp  [r8 + rcx], rdx",
    "   jb   .Lscript_wait",
    "   jmp  .Lscript_next",

    ".Lscript_halt_until:",
    "   cmp  [r8 + rcx], rdx",
    "   jae  .Lscript_next",
    "   inc  qword ptr [rdi + {HALTS}]",
    "   hlt",
    "   jmp  .Lscript_halt_until",

    ".Lscript_load:",
    "   mov  rax, [r8 + rcx]",
    "   mov  r9, [rbp + {SLOT}]",
    "   mov  [rdi + r9], rax",
    "   jmp  .Lscript_next",

    ".Lscript_loop:",
    "   inc  r11",
    "   cmp  r11, rcx",
    "   jae  .Lscript_next",
    "   mov  rbp, r10",
    "   jmp  .Lscript_dispatch",

    ".Lscript_interrupts_on:",
    "   sti",
    "   jmp  .Lscript_next",

    ".globl vmm_reference_script_interrupt", ".hidden vmm_reference_script_interrupt",
    "vmm_reference_script_interrupt:",
    "   inc  qword ptr [rdi + {INTERRUPTS}]",
    "   push rax",
    "   push rcx",
    "   push rdx",
    "   mov  ecx, {EOI}",
    "   xor  eax, eax",
    "   xor  edx, edx",
    "   wrmsr",
    "   pop  rdx",
    "   pop  rcx",
    "   pop  rax",
    "   iretq";
    BOARD = BOARD,
    RECORD = record::SIZE,
    OP = record::OP,
    A = record::A,
    B = record::B,
    C = record::C,
    D = record::D,
    E = record::E,
    SLOT = record::SLOT,
    ISSUE = record::ISSUE,
    CALL = op::CALL,
    HALT = op::HALT,
    HALT_INTERRUPTS = op::HALT_INTERRUPTS,
    SET = op::SET,
    WAIT = op::WAIT,
    HALT_UNTIL = op::HALT_UNTIL,
    LOAD = op::LOAD,
    LOOP = op::LOOP,
    INTERRUPTS_ON = op::INTERRUPTS_ON,
    EOI = EOI,
    AT = result::AT,
    HALTS = result::HALTS,
    CLOBBERED = result::CLOBBERED,
    INTERRUPTS = result::INTERRUPTS,
    VMCALL = issue::VMCALL,
    DOORBELL = doorbell::PORT,
    EXIT_PORT = EXIT_PORT,
}

program! {
    /// One hypercall from 32-bit code: the registers are the entry's, with whatever
    /// stands in their upper halves. `edi` is the result page, `ebp` the transport.
    pub fn call32 = "call32";
    ".code32",
    "   cmp  ebp, {VMCALL}",
    kick::call!("call32"),
    "   mov  [edi + {SLOT}], eax",
    "   xor  eax, eax",
    "   out  {EXIT_PORT}, al",
    ".Lcall32_off:",
    "   jmp  .Lcall32_off",
    ".code64";
    VMCALL = issue::VMCALL,
    DOORBELL = doorbell::PORT,
    SLOT = slot(0),
    EXIT_PORT = EXIT_PORT,
}

/// Where in [`script`] the interrupt handler is.
pub fn interrupt_handler() -> u64 {
    between!(
        "vmm_reference_script_start",
        "vmm_reference_script_interrupt"
    )
    .len() as u64
}
