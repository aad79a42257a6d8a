//! The kinds of threads.

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// It runs a vCPU.
    Vcpu,
    /// It writes what the guest of `run` prints, or lines of statistics.
    Console,
    /// It reads standard input of `run`, or checks the snapshot that its guest goes
    /// on from.
    Reader,
    /// The main thread of `run`: console input, signals.
    EventLoop,
    /// The same with a control socket, by which snapshots can be asked for.
    Operated,
    /// The main thread of a command that builds one VM after another: `demo`,
    /// `conformance`, `probe`, `bench`.
    Builder,
    /// As [`ThreadKind::Builder`], and it writes snapshots: `bench restore`.
    Saver,
    /// As [`ThreadKind::Builder`], with `--trace`.
    Tracer,
    /// The main thread of `study`, which traces too, and writes a report.
    Study,
}

impl ThreadKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Vcpu,
        Self::Console,
        Self::Reader,
        Self::EventLoop,
        Self::Operated,
        Self::Builder,
        Self::Saver,
        Self::Tracer,
        Self::Study,
    ];

    /// In a few words, after "thread of".
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcpu => "a vCPU",
            Self::Console => "the console",
            Self::Reader => "a reader",
            Self::EventLoop => "the event loop",
            Self::Operated => "the event loop with a control socket",
            Self::Builder => "a command that builds VMs",
            Self::Saver => "a command that builds and saves VMs",
            Self::Tracer => "a command that builds and traces VMs",
            Self::Study => "a study",
        }
    }

    /// Its place in [`ThreadKind::ALL`].
    pub(super) fn index(self) -> usize {
        match self {
            Self::Vcpu => 0,
            Self::Console => 1,
            Self::Reader => 2,
            Self::EventLoop => 3,
            Self::Operated => 4,
            Self::Builder => 5,
            Self::Saver => 6,
            Self::Tracer => 7,
            Self::Study => 8,
        }
    }
}
