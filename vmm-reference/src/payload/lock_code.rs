//! The lock program's machine code.

#![expect(unsafe_code, reason = "machine code: see assembly::program")]

use super::assembly::program::lock_program;
use super::assembly::{clock, frame, histogram, kick, section, ticket};
use super::layout::{mode, result};

lock_program! {
    /// The lock program.
    pub fn lock = "lock";
    "   mov  r15, rsi",
    "   mov  r8,  [rdi + {LOCK}]",
    "   mov  r9,  [rdi + {TABLE}]",
    "   mov  r10, [rdi + {APIC_ID}]",
    "   mov  r11, [r15 + {MODE}]",
    "   cmp  r11, {CALIBRATE}",
    "   je   .Llock_calibrate",
    "   cmp  r11, {PV}",
    "   jne  .Llock_round",
    frame::needs_pv_unhalt!("lock"),

    // One round: draw a ticket and wait for it.
    ".Llock_round:",
    "   cmp  qword ptr [r15 + {STOP}], 0",
    "   jne  .Llock_out",
    clock::read!(),
    "   mov  r14, rax",
    ticket::draw!("lock"),
    ticket::spin!("lock"),
    "   test r11, r11",
    "   jz   .Llock_ticket_on",
    ticket::halt!("lock"),

    ".Llock_enter:",
    clock::read!(),
    "   sub  rax, r14",
    "   mov  r14, rax",
    section::hold!("lock"),
    ticket::unlock!("lock"),
    kick::number!(),
    ticket::sleeper!(),
    kick::issue!("lock"),

    ".Llock_book:",
    "   inc  qword ptr [rdi + {ACQUISITIONS}]",
    histogram::count!("lock", "bucket"),
    section::think!("lock"),

    kick::by_instruction!("lock"),
    frame::ends!("lock"),
    ".Llock_calibrate:",
    clock::read!(),
    clock::calibration!("lock");
    LOCK = result::LOCK,
    TABLE = result::TABLE,
    CALIBRATE = mode::CALIBRATE,
    PV = mode::PV,
}
