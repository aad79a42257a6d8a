//! Standard input to the guest's serial port.
//!
//! On a terminal, Ctrl-A is the escape: Ctrl-A x ends the VM, Ctrl-A Ctrl-A (or
//! Ctrl-A a) types one. What comes from a pipe goes through as it is.

use std::collections::VecDeque;
use std::io;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::fd::AsRawFd as _;

use super::input::Input;
use crate::devices::serial::Com1;
use crate::vm::VmHandle;

const CTRL_A: u8 = 0x01;
/// As much as a serial port's FIFO takes.
const CHUNK: usize = 64;
/// Keys that may wait for a guest that does not read them.
const TYPED: usize = 4096;

/// What comes of keys pressed.
#[derive(Debug, Default)]
struct Escape {
    pending: bool,
}

impl Escape {
    /// Appends what is for the guest to `to`; says whether to end the VM.
    fn filter(&mut self, keys: &[u8], to: &mut Vec<u8>) -> bool {
        for &key in keys {
            match (self.pending, key) {
                (false, CTRL_A) => self.pending = true,
                (false, key) => to.push(key),
                (true, key) => {
                    self.pending = false;
                    match key {
                        b'x' | b'X' => return true,
                        b'a' | CTRL_A => to.push(CTRL_A),
                        // No command: both keys are dropped.
                        _ => {}
                    }
                }
            }
        }
        false
    }
}

/// The subscriber that brings standard input to the guest.
#[derive(Debug)]
pub(super) struct Console {
    com1: Com1,
    vm: VmHandle,
    input: Input,
    escape: Option<Escape>,
    /// Read, and not yet the guest's.
    pending: VecDeque<u8>,
    over: bool,
}

impl Console {
    /// `terminal`: standard input is one, so that Ctrl-A is special.
    ///
    /// # Errors
    /// The system refused the thread that reads.
    pub(super) fn new(com1: Com1, vm: VmHandle, terminal: bool) -> io::Result<Self> {
        Ok(Self {
            com1,
            vm,
            input: Input::start()?,
            escape: terminal.then(Escape::default),
            pending: VecDeque::new(),
            over: false,
        })
    }

    /// Gives the guest what it has room for, and asks for more.
    fn pump(&mut self) {
        let give = self.com1.room().min(self.pending.len());
        let keys: Vec<u8> = self.pending.drain(..give).collect();
        self.com1.input(&keys);
        let room = match self.escape {
            // Read on though the guest does not: a key may be the one that ends it.
            Some(_) => TYPED.saturating_sub(self.pending.len()),
            // What the guest does not take stays where it is.
            None if self.pending.is_empty() => self.com1.room().min(CHUNK),
            None => 0,
        };
        if room > 0 && !self.over {
            self.input.ask(room);
        }
    }

    fn arrived(&mut self, keys: &[u8]) {
        if keys.is_empty() {
            self.over = true;
            return;
        }
        match &mut self.escape {
            Some(escape) => {
                let mut input = Vec::with_capacity(keys.len());
                if escape.filter(keys, &mut input) {
                    self.vm.ask_to_stop();
                }
                self.pending.extend(input);
            }
            None => self.pending.extend(keys),
        }
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps) {
        for fd in [self.com1.input_wanted(), self.input.event()] {
            // Fresh, valid descriptors, each added once.
            let _ = ops.add(Events::new(fd, EventSet::IN));
        }
        self.pump();
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if events.fd() == self.com1.input_wanted().as_raw_fd() {
            // Empty is EAGAIN: woken twice for one.
            let _ = self.com1.input_wanted().read();
        } else if let Some(keys) = self.input.take() {
            self.arrived(&keys);
        }
        self.pump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut escape, mut to) = (Escape::default(), Vec::new());
        let end = pieces.iter().any(|keys| escape.filter(keys, &mut to));
        (to, end)
    }

    #[test]
    fn ctrl_a_x_ends_and_ctrl_a_twice_types_one() {
        assert_eq!(typed(&[b"ls\r"]), (b"ls\r".to_vec(), false));
        assert_eq!(typed(&[b"a\x01", b"xb"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"\x01\x01\x01a"]), (b"\x01\x01".to_vec(), false));
        assert_eq!(typed(&[b"\x01zx\x03"]), (b"x\x03".to_vec(), false));
    }
}
