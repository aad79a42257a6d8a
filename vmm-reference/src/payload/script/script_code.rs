//! The script guest's machine code, under the rules of [`crate::payload::lock_code`];
//! `rdi` is the result page, `rsi` the list. There is a stack for the interrupt
//! handler: the upper end of the result page.

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

use hypercall_abi::doorbell;

use super::{BOARD, EOI, op, record, result};
use crate::devices::EXIT_PORT;
use crate::payload::layout::issue;
use crate::payload::lock_code::code;

// Registers that live throughout:
//   rdi result page   rbp the record      r10 the list
//   r8  board         r11 the round
global_asm!(
    ".pushsection .rodata.vmm_reference_script, \"a\"",
    ".balign 16",
    ".globl vmm_reference_script_start", ".hidden vmm_reference_script_start",
    "vmm_reference_script_start:",
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
    "   je   .Lscript_vmcall",
    "   ja   .Lscript_vmmcall",
    "   out  {DOORBELL}, eax",
    "   jmp  .Lscript_called",
    ".Lscript_vmcall:",
    "   vmcall",
    "   jmp  .Lscript_called",
    ".Lscript_vmmcall:",
    "   vmmcall",
    ".Lscript_called:",
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
    "   iretq",
    ".globl vmm_reference_script_end", ".hidden vmm_reference_script_end",
    "vmm_reference_script_end:",
    ".popsection",
    BOARD = const BOARD,
    RECORD = const record::SIZE,
    OP = const record::OP,
    A = const record::A,
    B = const record::B,
    C = const record::C,
    D = const record::D,
    E = const record::E,
    SLOT = const record::SLOT,
    ISSUE = const record::ISSUE,
    CALL = const op::CALL,
    HALT = const op::HALT,
    HALT_INTERRUPTS = const op::HALT_INTERRUPTS,
    SET = const op::SET,
    WAIT = const op::WAIT,
    HALT_UNTIL = const op::HALT_UNTIL,
    LOAD = const op::LOAD,
    LOOP = const op::LOOP,
    INTERRUPTS_ON = const op::INTERRUPTS_ON,
    EOI = const EOI,
    AT = const result::AT,
    HALTS = const result::HALTS,
    CLOBBERED = const result::CLOBBERED,
    INTERRUPTS = const result::INTERRUPTS,
    VMCALL = const issue::VMCALL,
    DOORBELL = const doorbell::PORT,
    EXIT_PORT = const EXIT_PORT,
);

// One hypercall from 32-bit code: the registers are the entry's, with whatever
// stands in their upper halves. `edi` is the result page, `ebp` the transport.
global_asm!(
    ".pushsection .rodata.vmm_reference_script, \"a\"",
    ".balign 16",
    ".code32",
    ".globl vmm_reference_call32_start", ".hidden vmm_reference_call32_start",
    "vmm_reference_call32_start:",
    "   cmp  ebp, {VMCALL}",
    "   je   .Lcall32_vmcall",
    "   ja   .Lcall32_vmmcall",
    "   out  {DOORBELL}, eax",
    "   jmp  .Lcall32_called",
    ".Lcall32_vmcall:",
    "   vmcall",
    "   jmp  .Lcall32_called",
    ".Lcall32_vmmcall:",
    "   vmmcall",
    ".Lcall32_called:",
    "   mov  [edi + {SLOT}], eax",
    "   xor  eax, eax",
    "   out  {EXIT_PORT}, al",
    ".Lcall32_off:",
    "   jmp  .Lcall32_off",
    ".globl vmm_reference_call32_end", ".hidden vmm_reference_call32_end",
    "vmm_reference_call32_end:",
    ".code64",
    ".popsection",
    VMCALL = const issue::VMCALL,
    DOORBELL = const doorbell::PORT,
    SLOT = const super::slot(0),
    EXIT_PORT = const EXIT_PORT,
);

unsafe extern "C" {
    static vmm_reference_script_start: u8;
    static vmm_reference_script_interrupt: u8;
    static vmm_reference_script_end: u8;
    static vmm_reference_call32_start: u8;
    static vmm_reference_call32_end: u8;
}

/// The program for 64-bit mode.
pub fn script() -> &'static [u8] {
    code!(vmm_reference_script_start, vmm_reference_script_end)
}

/// Where in it the interrupt handler is.
pub fn interrupt_handler() -> u64 {
    code!(vmm_reference_script_start, vmm_reference_script_interrupt).len() as u64
}

/// One hypercall from 32-bit code.
pub fn call32() -> &'static [u8] {
    code!(vmm_reference_call32_start, vmm_reference_call32_end)
}
