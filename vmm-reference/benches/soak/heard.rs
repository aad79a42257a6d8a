//! What a guest of the soak has printed, read to its end and judged.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::common::Patience;

/// Between two looks at the time.
const LOOK: Duration = Duration::from_millis(200);

/// The `n`th letter of what a guest is given to print again. None is one that it
/// prints by itself.
pub(crate) fn letter(n: u64) -> u8 {
    const LETTERS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let at = usize::try_from(n % 36).unwrap_or(0);
    LETTERS.get(at).copied().unwrap_or(b'0')
}

/// What a restored copy is given: its guest may still have to print letters.
pub(crate) const MARK: u8 = b'!';

/// Which bytes are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// "up", "k" for each time that it was woken, and [`letter`]s in their order.
    Letters,
    /// The same from any letter on, and [`MARK`]s.
    Copy,
    /// This one again and again.
    Only(u8),
}

/// How much of it there was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bytes: u64,
    pub(crate) woken: u64,
    pub(crate) letters: u64,
    pub(crate) marks: u64,
    /// The output is over.
    pub(crate) over: bool,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// The next letter, of a copy.
    next: Option<u8>,
    wrong: Option<String>,
}

/// The output of one guest.
#[derive(Debug)]
pub(crate) struct Heard {
    expected: Expected,
    state: Mutex<State>,
    changed: Condvar,
}

impl Heard {
    /// Reads it on a thread of its own.
    pub(crate) fn listen(mut from: impl Read + Send + 'static, expected: Expected) -> Arc<Self> {
        let heard = Arc::new(Self {
            expected,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = from.read(&mut buffer).unwrap_or(0);
                theirs.add(buffer.get(..read).unwrap_or_default());
                if read == 0 {
                    return;
                }
                if matches!(theirs.expected, Expected::Only(_)) {
                    // A guest that floods is to wait for its reader.
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        heard
    }

    fn add(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counts.over |= bytes.is_empty();
        for &byte in bytes {
            state.add(byte, self.expected);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counts
    }

    /// What was wrong, if anything was.
    pub(crate) fn wrong(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.wrong.clone()
    }

    /// Waits until this is so; whether it was within `limit`.
    pub(crate) fn until(&self, limit: Duration, is_so: impl Fn(&Counts) -> bool) -> bool {
        let mut patience = Patience::new(limit);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_so(&state.counts) {
            if patience.is_over() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl State {
    fn add(&mut self, byte: u8, expected: Expected) {
        let at = self.counts.bytes;
        self.counts.bytes += 1;
        let right = match (expected, byte) {
            (Expected::Only(only), byte) => byte == only,
            (Expected::Letters, byte) if at < 2 => byte == if at == 0 { b'u' } else { b'p' },
            (_, b'k') => {
                self.counts.woken += 1;
                true
            }
            (Expected::Copy, MARK) => {
                self.counts.marks += 1;
                true
            }
            (Expected::Letters, byte) => byte == letter(self.counts.letters),
            (Expected::Copy, byte) => self.next.is_none_or(|next| next == byte),
        };
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            self.counts.letters += 1;
            let following = (0..36).find(|&n| letter(n) == byte).map(|n| letter(n + 1));
            self.next = following;
        }
        if !right && self.wrong.is_none() {
            self.wrong = Some(format!("byte {at} of its output is {byte:#x}"));
        }
    }
}
