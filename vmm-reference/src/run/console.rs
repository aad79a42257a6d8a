//! Standard input to the guest's serial port.
//!
//! On a terminal, Ctrl-A is the escape: Ctrl-A x ends the VM, Ctrl-A Ctrl-A (or
//! Ctrl-A a) types one. What comes from a pipe goes through as it is.

use std::io;
use std::os::fd::AsFd as _;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::fd::AsRawFd as _;

use crate::devices::serial::Com1;
use crate::vm::VmHandle;

const CTRL_A: u8 = 0x01;
/// As much as a serial port's FIFO takes.
const CHUNK: usize = 64;

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

/// The subscriber that reads standard input.
#[derive(Debug)]
pub(super) struct Console {
    com1: Com1,
    vm: VmHandle,
    escape: Option<Escape>,
    reading: bool,
    over: bool,
}

impl Console {
    /// `terminal`: standard input is one, so that Ctrl-A is special.
    pub(super) fn new(com1: Com1, vm: VmHandle, terminal: bool) -> Self {
        Self {
            com1,
            vm,
            escape: terminal.then(Escape::default),
            reading: false,
            over: false,
        }
    }

    fn watch_input(&mut self, ops: &mut EventOps, on: bool) {
        if self.over || self.reading == on {
            return;
        }
        let stdin = io::stdin();
        let event = Events::new(&stdin, EventSet::IN);
        let done = if on {
            ops.add(event)
        } else {
            ops.remove(event)
        };
        // A file or /dev/null can't be waited for: then there is no input.
        self.over = done.is_err();
        self.reading = on && done.is_ok();
    }

    fn read(&mut self, ops: &mut EventOps) {
        let room = self.com1.room().min(CHUNK);
        if room == 0 {
            // Until the guest has read: `in_buffer_empty` says so.
            return self.watch_input(ops, false);
        }
        let mut chunk = [0; CHUNK];
        let Some(space) = chunk.get_mut(..room) else {
            return;
        };
        match rustix::io::read(io::stdin().as_fd(), space) {
            Ok(0) => {
                self.watch_input(ops, false);
                self.over = true;
            }
            Ok(n) => {
                let keys = chunk.get(..n).unwrap_or_default();
                match &mut self.escape {
                    Some(escape) => {
                        let mut input = Vec::with_capacity(n);
                        if escape.filter(keys, &mut input) {
                            self.vm.ask_to_stop();
                        }
                        self.com1.input(&input);
                    }
                    None => self.com1.input(keys),
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => {
                self.watch_input(ops, false);
                self.over = true;
            }
        }
    }
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps) {
        // A fresh, valid descriptor, added once.
        let _ = ops.add(Events::new(self.com1.input_wanted(), EventSet::IN));
        self.watch_input(ops, true);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.com1.input_wanted().as_raw_fd() {
            // Empty is EAGAIN: woken twice for one.
            let _ = self.com1.input_wanted().read();
            self.watch_input(ops, true);
        } else {
            self.read(ops);
        }
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
