//! The script guest: a small program that does what a list of operations says.
//!
//! A list is what a test of an interface consists of: "vCPU 1 says that it is
//! ready and halts; vCPU 0 kicks it; what is in RAX?". The program that carries
//! it out exists twice, as machine code ([`script_code`]) for KVM and as a state
//! machine ([`script_machine`]) for the hosted backend.
//!
//! All vCPUs share the *board*, a page of words in which they and the host show
//! each other how far they are. What a vCPU finds goes into the *slots* of its
//! result page.

pub mod script_code;
pub mod script_machine;

use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image;

/// GPA of the board.
pub const BOARD: u64 = image::LOCK_PAGE;
/// GPA of the list of vCPU 0; the others' follow, a page each.
pub const SCRIPTS: u64 = image::WAITERS;
/// Words of the board, a cache line each.
pub const WORDS: u64 = 16;
/// vCPUs of a script guest.
pub const MAX_VCPUS: usize = 8;
/// Operations of a list, its end included.
pub const MAX_OPS: usize = (0x1000 / record::SIZE) as usize;
/// The vector of a case's own interrupts.
pub const VECTOR: u8 = 0x40;
/// All vectors with a handler. It counts ([`result::INTERRUPTS`]) and ends the
/// interrupt at the local APIC, which is in x2APIC mode.
pub const VECTORS: core::ops::Range<u8> = VECTOR..0x60;
/// The EOI register of a local APIC in x2APIC mode, an MSR.
const EOI: u32 = 0x80b;

/// A record: what an operation is in memory.
pub mod record {
    /// Which operation, one of [`op`](super::op).
    pub const OP: u64 = 0x00;
    /// The first of five operands.
    pub const A: u64 = 0x08;
    /// The second operand.
    pub const B: u64 = 0x10;
    /// The third operand.
    pub const C: u64 = 0x18;
    /// The fourth operand.
    pub const D: u64 = 0x20;
    /// The fifth operand.
    pub const E: u64 = 0x28;
    /// Where a result goes, an offset into the result page.
    pub const SLOT: u64 = 0x30;
    /// For calls: one of [`issue`](crate::payload::layout::issue).
    pub const ISSUE: u64 = 0x38;
    /// Bytes of a record.
    pub const SIZE: u64 = 0x40;
}

/// Codes of the operations. Words of the board are given by their offset; a
/// value always has the number of the round added to it.
pub mod op {
    /// The end: 0 to the exit port.
    pub const EXIT: u64 = 0;
    /// Hypercall A(B, C, D, E); RAX to the slot.
    pub const CALL: u64 = 1;
    /// HLT, with interrupts off.
    pub const HALT: u64 = 2;
    /// HLT with interrupts on, until the handler has run A times.
    pub const HALT_INTERRUPTS: u64 = 3;
    /// Word A of the board becomes B.
    pub const SET: u64 = 4;
    /// Spins until word A is at least B.
    pub const WAIT: u64 = 5;
    /// Halts until word A is at least B: look, HLT, look again. What a waiter
    /// of the seed's protocol does.
    pub const HALT_UNTIL: u64 = 6;
    /// Word A of the board, to the slot.
    pub const LOAD: u64 = 7;
    /// One more round from the operation at offset B on, as long as there are
    /// fewer than A.
    pub const LOOP: u64 = 8;
    /// STI.
    pub const INTERRUPTS_ON: u64 = 9;
}

/// The result page of a vCPU.
pub mod result {
    /// GPA of the record it is at.
    pub const AT: u64 = 0x08;
    /// HLTs executed.
    pub const HALTS: u64 = 0x10;
    /// Calls after which a register other than RAX had changed.
    pub const CLOBBERED: u64 = 0x18;
    /// Runs of the interrupt handler.
    pub const INTERRUPTS: u64 = 0x20;
    /// First of the slots.
    pub const SLOTS: u64 = 0x100;
    /// How many there are.
    pub const COUNT: u64 = 16;
}

/// An operation of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A hypercall; RAX goes to the slot of this number.
    Call {
        /// The number, in RAX.
        nr: u64,
        /// The arguments, in RBX, RCX, RDX, RSI.
        args: [u64; 4],
        /// A number below [`result::COUNT`].
        slot: u64,
    },
    /// HLT, with interrupts off.
    Halt,
    /// HLT with interrupts on, until the handler has run this often.
    HaltInterrupts(u64),
    /// Interrupts are on from here on.
    InterruptsOn,
    /// A word of the board gets a value, plus the round.
    Set(u64, u64),
    /// Spins until a word is at least a value, plus the round.
    Wait(u64, u64),
    /// Halts until a word is at least a value, plus the round.
    HaltUntil(u64, u64),
    /// A word, into a slot.
    Load(u64, u64),
    /// The whole list again, that many rounds in all.
    Loop(u64),
}

/// Offset of a word of the board.
pub const fn word(index: u64) -> u64 {
    (index % WORDS) * 64
}

/// Offset of a slot in the result page.
pub const fn slot(index: u64) -> u64 {
    result::SLOTS + 8 * (index % result::COUNT)
}

impl Op {
    /// Code, five operands, slot.
    const fn encode(self) -> (u64, [u64; 5], u64) {
        match self {
            Self::Call { nr, args, slot: s } => {
                let [a0, a1, a2, a3] = args;
                (op::CALL, [nr, a0, a1, a2, a3], slot(s))
            }
            Self::Halt => (op::HALT, [0; 5], 0),
            Self::InterruptsOn => (op::INTERRUPTS_ON, [0; 5], 0),
            Self::HaltInterrupts(n) => (op::HALT_INTERRUPTS, [n, 0, 0, 0, 0], 0),
            Self::Set(w, value) => (op::SET, [word(w), value, 0, 0, 0], 0),
            Self::Wait(w, value) => (op::WAIT, [word(w), value, 0, 0, 0], 0),
            Self::HaltUntil(w, value) => (op::HALT_UNTIL, [word(w), value, 0, 0, 0], 0),
            Self::Load(w, s) => (op::LOAD, [word(w), 0, 0, 0, 0], slot(s)),
            Self::Loop(rounds) => (op::LOOP, [rounds, 0, 0, 0, 0], 0),
        }
    }
}

/// GPA of a vCPU's list.
pub const fn script_page(index: u32) -> u64 {
    SCRIPTS + index as u64 * 0x1000
}

/// Writes a vCPU's list, with an end behind it.
pub fn install(
    memory: &GuestMemory,
    index: u32,
    ops: &[Op],
    issue: u64,
) -> Result<(), MemoryError> {
    debug_assert!(ops.len() < MAX_OPS);
    let ends = std::iter::once((op::EXIT, [0; 5], 0));
    let records = ops.iter().map(|op| op.encode()).chain(ends);
    for (i, (code, operands, slot)) in (0u64..).zip(records) {
        let at = script_page(index) + i * record::SIZE;
        memory::write_word(memory, at + record::OP, code)?;
        for (field, value) in (0u64..).zip(operands) {
            memory::write_word(memory, at + record::A + 8 * field, value)?;
        }
        memory::write_word(memory, at + record::SLOT, slot)?;
        memory::write_word(memory, at + record::ISSUE, issue)?;
    }
    Ok(())
}
