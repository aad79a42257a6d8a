//! The kinds of threads.

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// It runs a vCPU.
    Vcpu,
    /// It writes what the guest of `run` prints, or its statistics, or reads its
    /// input.
    Console,
    /// The main thread of `run`: console input, control socket, signals.
    EventLoop,
    /// The main thread of a command that builds one VM after another: `demo`,
    /// `conformance`, `probe`, `bench`.
    Builder,
    /// As [`ThreadKind::Builder`], with `--trace`.
    Tracer,
    /// The main thread of `study`, which traces too, and writes a report.
    Study,
}

impl ThreadKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Vcpu,
        Self::Console,
        Self::EventLoop,
        Self::Builder,
        Self::Tracer,
        Self::Study,
    ];

    /// In a few words, after "thread of".
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcpu => "a vCPU",
            Self::Console => "the console",
            Self::EventLoop => "the event loop",
            Self::Builder => "a command that builds VMs",
            Self::Tracer => "a command that builds and traces VMs",
            Self::Study => "a study",
        }
    }

    /// Its place in [`ThreadKind::ALL`].
    pub(super) fn index(self) -> usize {
        match self {
            Self::Vcpu => 0,
            Self::Console => 1,
            Self::EventLoop => 2,
            Self::Builder => 3,
            Self::Tracer => 4,
            Self::Study => 5,
        }
    }
}
