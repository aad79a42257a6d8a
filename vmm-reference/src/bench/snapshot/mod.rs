//! Snapshots: whether a guest that halts and kicks all the time survives many of
//! them, and how long one takes beside the bare writing and mapping of its bytes.
//!
//! - [`rounds`]: saved and restored again and again, each time in a new process;
//! - [`speed`]: how long a snapshot and a restore take;
//! - `child`: such a process, driven by its control socket.
//!
//! The main thread of [`rounds`] stays out of the jail: a filter is never loosened,
//! not by exec either, so that each process that it starts would have this one's
//! besides its own, and could not open what it needs.

mod child;
pub mod rounds;
pub mod speed;
