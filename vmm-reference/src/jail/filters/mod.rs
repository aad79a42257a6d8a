//! The system calls of each kind of thread, as data. A new one is a row with its
//! reason in the part that needs it; `docs/JAIL.md` is printed from these rows.
//!
//! - [`every`]: what any thread needs, by Rust's and C's libraries;
//! - [`no_files`]: what fails, where nothing is to be opened;
//! - [`vcpu`], [`console`], [`reader`], [`event_loop`], [`builder`]: what a kind needs
//!   besides;
//! - [`operated`]: what an [`event_loop`] with a control socket needs besides;
//! - [`saver`], [`tracer`], [`study`]: what these need besides a [`builder`]'s.

pub mod builder;
pub mod console;
pub mod event_loop;
pub mod every;
pub mod no_files;
pub mod operated;
pub mod reader;
pub mod saver;
pub mod study;
pub mod tracer;
pub mod vcpu;

use super::ThreadKind;
use super::call::Call;

/// A list of rows. A kind has one or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of all kinds.
    Every,
    /// Of [`ThreadKind::Vcpu`], `Console`, `Reader` and `EventLoop`.
    NoFiles,
    /// Of [`ThreadKind::Vcpu`].
    Vcpu,
    /// Of [`ThreadKind::Console`].
    Console,
    /// Of [`ThreadKind::Reader`].
    Reader,
    /// Of [`ThreadKind::EventLoop`] and `Operated`.
    EventLoop,
    /// Of [`ThreadKind::Operated`].
    Operated,
    /// Of [`ThreadKind::Builder`], `Saver`, `Tracer` and `Study`.
    Builder,
    /// Of [`ThreadKind::Saver`].
    Saver,
    /// Of [`ThreadKind::Tracer`] and `Study`.
    Tracer,
    /// Of [`ThreadKind::Study`].
    Study,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Every,
        Self::NoFiles,
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

    /// A heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Every => "Every thread",
            Self::NoFiles => {
                "Files, in vCPUs' threads and all threads of `run` without a control socket"
            }
            Self::Vcpu => "A vCPU's thread",
            Self::Console => "The threads that write the console's output and lines of statistics",
            Self::Reader => "The threads that read",
            Self::EventLoop => "The event loop of `run`",
            Self::Operated => "The event loop of `run --control`",
            Self::Builder => {
                "The main thread of `demo`, `conformance`, `probe`, `bench` and `study`"
            }
            Self::Saver => "The main thread of `bench restore`",
            Self::Tracer => "The main thread of `demo --trace`, of `bench trace` and of `study`",
            Self::Study => "The main thread of `study`",
        }
    }

    /// What it is for, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Every => "By Rust's and C's libraries, and for the report of a hit.",
            Self::NoFiles => "None is opened. Who tries it all the same can do without.",
            Self::Vcpu => "Runs the guest, serves its exits, sleeps while it is halted.",
            Self::Console => {
                "`run`: named `console` and `stats`. Nothing but what every thread has."
            }
            Self::Reader => {
                "`run`: `input` reads standard input, `snapshot-check` the snapshot that the \
                 guest goes on from."
            }
            Self::EventLoop => {
                "Console input, SIGUSR1; then it stops the vCPUs and writes what was asked for."
            }
            Self::Operated => {
                "Besides an event loop's: requests of a client, who may ask for a snapshot at a \
                 path of its choice."
            }
            Self::Builder => {
                "Builds one VM after another, so that most of a VM's set-up is left to it. Their \
                 helper threads (progress bar, `bench`) have the same filter."
            }
            Self::Saver | Self::Tracer => "Besides a builder's.",
            Self::Study => "Besides a tracer's.",
        }
    }
}

/// The rows of a part.
pub fn rows(part: Part) -> &'static [Call] {
    match part {
        Part::Every => every::CALLS,
        Part::NoFiles => no_files::CALLS,
        Part::Vcpu => vcpu::CALLS,
        Part::Console => console::CALLS,
        Part::Reader => reader::CALLS,
        Part::EventLoop => event_loop::CALLS,
        Part::Operated => operated::CALLS,
        Part::Builder => builder::CALLS,
        Part::Saver => saver::CALLS,
        Part::Tracer => tracer::CALLS,
        Part::Study => study::CALLS,
    }
}

/// The rows of a kind.
pub fn of(kind: ThreadKind) -> impl Iterator<Item = &'static Call> {
    let parts: &'static [Part] = match kind {
        ThreadKind::Vcpu => &[Part::Every, Part::NoFiles, Part::Vcpu],
        ThreadKind::Console => &[Part::Every, Part::NoFiles, Part::Console],
        ThreadKind::Reader => &[Part::Every, Part::NoFiles, Part::Reader],
        ThreadKind::EventLoop => &[Part::Every, Part::NoFiles, Part::EventLoop],
        ThreadKind::Operated => &[Part::Every, Part::EventLoop, Part::Operated],
        ThreadKind::Builder => &[Part::Every, Part::Vcpu, Part::Builder],
        ThreadKind::Saver => &[Part::Every, Part::Vcpu, Part::Builder, Part::Saver],
        ThreadKind::Tracer => &[Part::Every, Part::Vcpu, Part::Builder, Part::Tracer],
        ThreadKind::Study => &[
            Part::Every,
            Part::Vcpu,
            Part::Builder,
            Part::Tracer,
            Part::Study,
        ],
    };
    parts.iter().flat_map(|&part| rows(part))
}
