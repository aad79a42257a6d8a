//! What a guest prints, until a file descriptor takes it.
//!
//! vCPUs put bytes into a bounded buffer; a thread of its own writes them, as
//! many at once as there are. A guest that prints faster than the reader reads
//! waits, as on a slow wire: memory stays bounded, and nothing is lost until
//! the VM is asked to end. Then waiting ends, and what the reader does not take
//! within a short time is dropped.
//!
//! Waiting and writing are two steps, so that a vCPU waits before it takes its
//! serial port's lock: the console needs that too, to bring the keys that end
//! the VM.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::jail::{self, ThreadKind};

/// Bytes that may wait, and one more for each vCPU that found room at the same
/// time: twice this is all the memory there is to it.
const CAPACITY: usize = 64 << 10;

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Bytes taken by the writer and not yet written.
    writing: usize,
    /// Nobody waits for room any more.
    closed: bool,
    /// The writer is gone: its descriptor takes nothing more.
    broken: bool,
    /// Why, until somebody asks.
    error: Option<io::Error>,
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// There is something to write, or the buffer is closed.
    filled: Condvar,
    /// There is room, or the buffer is closed.
    drained: Condvar,
}

impl Shared {
    // No code between lock and unlock leaves the buffer half changed.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is written any more.
    fn give_up(&self) {
        self.lock().broken = true;
        self.drained.notify_all();
    }
}

/// The end that vCPUs write to. Without a writer yet it only holds what fits.
#[derive(Clone, Debug, Default)]
pub struct Output {
    shared: Arc<Shared>,
}

impl Output {
    /// One with its writer.
    pub fn to<W: Write + Send + 'static>(to: W) -> io::Result<Self> {
        let output = Self::default();
        output.write_to("console", to)?;
        Ok(output)
    }

    /// Starts the thread of this name that writes to `to`; once.
    pub fn write_to<W: Write + Send + 'static>(&self, name: &str, to: W) -> io::Result<()> {
        let theirs = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || match jail::enter(ThreadKind::Console) {
                Ok(()) => drain(&theirs, to),
                // Where that is refused the vCPUs have not run either.
                Err(_) => theirs.give_up(),
            })?;
        Ok(())
    }

    /// Waits until there is room for a byte, or nobody waits for it any more.
    pub fn wait_for_room(&self) {
        let mut buffer = self.shared.lock();
        while buffer.bytes.len() >= CAPACITY && !buffer.closed && !buffer.broken {
            buffer = self
                .shared
                .drained
                .wait(buffer)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes `bytes` if there is room for them, all or none: whether it did. For
    /// those who can't wait.
    pub fn offer(&self, bytes: &[u8]) -> bool {
        let mut buffer = self.shared.lock();
        let room = buffer.bytes.len() + bytes.len() <= CAPACITY;
        if room && !buffer.broken {
            buffer.bytes.extend_from_slice(bytes);
            self.shared.filled.notify_one();
        }
        room
    }

    /// What the writer failed by: some of the output is lost.
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared.lock().error.take()
    }

    /// From now on no vCPU waits for room: what finds none is dropped.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.drained.notify_all();
        self.shared.filled.notify_all();
    }

    /// Waits until everything is written, or for `limit`.
    pub fn flush_within(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut buffer = self.shared.lock();
        while !buffer.broken && buffer.bytes.len() + buffer.writing > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            buffer = match self.shared.drained.wait_timeout(buffer, left) {
                Ok((buffer, _)) => buffer,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Never waits: a vCPU has waited for room before.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.shared.lock();
        let dropped = buffer.broken || (buffer.closed && buffer.bytes.len() >= CAPACITY);
        if !dropped {
            buffer.bytes.extend_from_slice(bytes);
            drop(buffer);
            self.shared.filled.notify_one();
        }
        // Said to be written even if it is not: there is no later.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drain<W: Write>(shared: &Shared, mut to: W) {
    let mut taken = Vec::with_capacity(CAPACITY);
    loop {
        let mut buffer = shared.lock();
        buffer.writing = 0;
        shared.drained.notify_all();
        while buffer.bytes.is_empty() {
            if buffer.closed {
                return;
            }
            buffer = shared
                .filled
                .wait(buffer)
                .unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut buffer.bytes, &mut taken);
        buffer.writing = taken.len();
        drop(buffer);
        let written = to.write_all(&taken).and_then(|()| to.flush());
        taken.clear();
        if let Err(e) = written {
            // The reader has gone, say: the guest prints to nobody.
            shared.lock().error = Some(e);
            shared.give_up();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader that takes a piece each time it is asked to.
    struct Slow {
        go: Receiver<()>,
        got: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            self.got.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Output, Sender<()>, Receiver<Vec<u8>>) {
        let (go, wait) = channel();
        let (send, got) = channel();
        let output = Output::to(Slow {
            go: wait,
            got: send,
        })
        .unwrap();
        (output, go, got)
    }

    /// As a vCPU prints.
    fn print(output: &mut Output, bytes: &[u8]) {
        for byte in bytes {
            output.wait_for_room();
            output.write_all(&[*byte]).unwrap();
        }
    }

    #[test]
    fn everything_arrives_in_order() {
        let (mut output, go, got) = slow();
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let theirs = sent.clone();
        let writer = std::thread::spawn(move || {
            print(&mut output, &theirs);
            output.flush_within(Duration::from_secs(60));
        });
        let mut all = Vec::new();
        while all.len() < sent.len() {
            go.send(()).unwrap();
            let piece = got.recv().unwrap();
            assert!(piece.len() <= CAPACITY, "{}", piece.len());
            all.extend(piece);
        }
        writer.join().unwrap();
        assert_eq!(all, sent);
    }

    #[test]
    fn a_flood_that_nobody_reads_ends_with_close() {
        let (mut output, _go, _got) = slow();
        let closer = output.clone();
        let flood = std::thread::spawn(move || {
            // More than there is room for: this thread has to wait.
            print(&mut output, &[b'x'; 3 * CAPACITY]);
            output.shared.lock().bytes.len()
        });
        while closer.shared.lock().bytes.len() < CAPACITY {
            std::thread::yield_now();
        }
        closer.close();
        assert!(flood.join().unwrap() <= CAPACITY);
    }

    #[test]
    fn a_reader_that_went_away_holds_nobody_up_and_is_told() {
        let (mut output, go, got) = slow();
        drop((go, got));
        print(&mut output, &[b'x'; 2 * CAPACITY]);
        output.flush_within(Duration::from_secs(60));
        assert!(output.take_error().is_some());
        assert!(output.take_error().is_none(), "once");
    }

    #[test]
    fn an_offer_is_taken_whole_or_not_at_all() {
        let output = Output::default();
        assert!(output.offer(&[b'x'; CAPACITY]));
        assert!(!output.offer(b"x"));
        assert_eq!(output.shared.lock().bytes.len(), CAPACITY);
    }
}
