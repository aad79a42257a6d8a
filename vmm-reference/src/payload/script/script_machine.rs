//! The script guest as a state machine: the program of [`super::script_code`] for the
//! hosted backend.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hypercall_abi::{Mode, RawHypercall};

use super::{BOARD, EOI, op, record, result, script_page};
use crate::backend::hosted::{Program, ProgramExit};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::result_page;
use crate::payload::machine::word;

/// One vCPU's run of its list.
#[derive(Debug)]
pub struct ScriptMachine {
    memory: Arc<GuestMemory>,
    result_page: u64,
    list: u64,
    at: u64,
    round: u64,
    mode: Mode,
    cpl: u8,
    /// What stands in the upper halves of its registers, in 32-bit mode.
    upper: u64,
    rax: u64,
    /// Left by its HLT or call: that is done now.
    left: bool,
    /// RFLAGS.IF.
    interrupts_enabled: bool,
    /// Its interrupt handler is next.
    interrupted: bool,
}

impl ScriptMachine {
    /// The vCPU of that index at the start of its list, in that mode and at that
    /// privilege level.
    pub fn new(memory: Arc<GuestMemory>, index: u32, mode: Mode, cpl: u8, upper: u64) -> Self {
        Self {
            memory,
            result_page: result_page(index),
            list: script_page(index),
            at: 0,
            round: 0,
            mode,
            cpl,
            upper,
            rax: 0,
            left: false,
            interrupts_enabled: false,
            interrupted: false,
        }
    }

    fn field(&self, offset: u64) -> Result<u64, MemoryError> {
        memory::read_word(&self.memory, self.list + self.at * record::SIZE + offset)
    }

    fn bump(&self, offset: u64) -> Result<(), MemoryError> {
        let at = self.result_page + offset;
        let value = memory::read_word(&self.memory, at)?;
        memory::write_word(&self.memory, at, value.wrapping_add(1))
    }

    /// One operation; none: it is done, and the next one's turn.
    fn step(&mut self, exit_request: &AtomicU8) -> Result<Option<ProgramExit>, MemoryError> {
        let (code, a) = (self.field(record::OP)?, self.field(record::A)?);
        let value = self.field(record::B)?.wrapping_add(self.round);
        let record = self.list + self.at * record::SIZE;
        memory::write_word(&self.memory, self.result_page + result::AT, record)?;
        let board = memory::slice(&self.memory, BOARD, 0x1000)?;
        match code {
            op::CALL if !self.left => {
                let field = |offset| Ok::<_, MemoryError>(self.field(offset)? | self.upper);
                let call = RawHypercall {
                    nr: field(record::A)?,
                    args: [
                        field(record::B)?,
                        field(record::C)?,
                        field(record::D)?,
                        field(record::E)?,
                    ],
                    mode: self.mode,
                    cpl: self.cpl,
                };
                self.left = true;
                return Ok(Some(ProgramExit::Hypercall(call)));
            }
            op::CALL => {
                let slot = self.result_page + self.field(record::SLOT)?;
                memory::write_word(&self.memory, slot, self.mode.truncate(self.rax))?;
                self.left = false;
            }
            op::HALT if !self.left => {
                self.bump(result::HALTS)?;
                self.left = true;
                return Ok(Some(ProgramExit::Halt));
            }
            op::HALT => self.left = false,
            // The handler ran meanwhile, or this was a kick: CLI, and a look again.
            op::HALT_INTERRUPTS if self.left => {
                self.left = false;
                self.interrupts_enabled = false;
                return Ok(None);
            }
            op::HALT_INTERRUPTS => {
                let at = self.result_page + result::INTERRUPTS;
                if memory::read_word(&self.memory, at)? < a {
                    self.bump(result::HALTS)?;
                    self.left = true;
                    self.interrupts_enabled = true;
                    return Ok(Some(ProgramExit::Halt));
                }
            }
            op::INTERRUPTS_ON if !self.left => {
                self.left = true;
                self.interrupts_enabled = true;
                return Ok(Some(ProgramExit::Interrupted));
            }
            op::INTERRUPTS_ON => self.left = false,
            // SeqCst: an `xchg` of the machine code, which orders all before it
            // against all behind it.
            op::SET => drop(word(&board, a)?.swap(value, Ordering::SeqCst)),
            op::WAIT => {
                // Acquire, here and below: sees what the vCPU or host that set
                // the word did before.
                while word(&board, a)?.load(Ordering::Acquire) < value {
                    spin_loop();
                    // Relaxed: the flag only says "return".
                    if exit_request.load(Ordering::Relaxed) != 0 {
                        return Ok(Some(ProgramExit::Interrupted));
                    }
                    std::thread::yield_now();
                }
            }
            op::HALT_UNTIL => {
                if word(&board, a)?.load(Ordering::Acquire) < value {
                    self.bump(result::HALTS)?;
                    return Ok(Some(ProgramExit::Halt));
                }
            }
            op::LOAD => {
                let slot = self.result_page + self.field(record::SLOT)?;
                let value = word(&board, a)?.load(Ordering::Acquire);
                memory::write_word(&self.memory, slot, value)?;
            }
            op::LOOP => {
                self.round += 1;
                if self.round < a {
                    self.at = 0;
                    return Ok(None);
                }
            }
            _ => return Ok(Some(ProgramExit::ExitPort(0))),
        }
        self.at += 1;
        Ok(None)
    }
}

impl Program for ScriptMachine {
    fn run(&mut self, exit_request: &AtomicU8) -> Result<ProgramExit, MemoryError> {
        if std::mem::take(&mut self.interrupted) {
            self.bump(result::INTERRUPTS)?;
            return Ok(ProgramExit::WriteMsr(EOI, 0));
        }
        loop {
            // Relaxed: as above.
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok(ProgramExit::Interrupted);
            }
            if let Some(leave) = self.step(exit_request)? {
                return Ok(leave);
            }
        }
    }

    fn set_result(&mut self, rax: u64) {
        self.rax = rax;
    }

    fn interrupts_enabled(&self) -> bool {
        self.interrupts_enabled
    }

    fn interrupt(&mut self, _vector: u8) {
        self.interrupted = true;
    }
}
