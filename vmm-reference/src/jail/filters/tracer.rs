//! What the kernel's context switches need, for a trace.

use crate::jail::call::{Call, When, call, call_if};
use crate::jail::request;

/// The rows.
pub const CALLS: &[Call] = &[
    call(
        libc::SYS_perf_event_open,
        "context switches of each new VM's threads, without capabilities: of its own only",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::ANY_OF_PERF]),
        "the same: begun and ended",
    ),
];
