//! A file's data on its way to the disk, in steps between which it can be given up.
//!
//! fsync(2) waits in the kernel for all that a file has to be written, and nothing ends
//! that wait: no signal's handler runs before it is over, and a process that is ended
//! by force ends after it too. With GiBs of guest memory that is seconds, and minutes
//! on a slow disk. So the data goes first, in steps of as much as the disk takes in a
//! fraction of a second; what is left for fsync is the file system's own.

#![expect(unsafe_code, reason = "rustix has no sync_file_range")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::memory::WriteFailure;

/// The largest step, in pieces of a MiB.
const MOST: usize = 32;
/// A step that took less is followed by one twice as large, ...
const SHORT: Duration = Duration::from_millis(50);
/// ... and one that took more by one half as large.
const LONG: Duration = Duration::from_millis(150);
/// No disk takes a MiB in less. A step that did had nothing to write, as the system
/// has done it meanwhile, and says nothing of the disk.
const WRITTEN: Duration = Duration::from_micros(50);

/// Has these pieces of `file`, in their order, written to the disk. `give_up` is asked
/// before each step; two at most are on their way then.
///
/// The file is not safe by that: its length and its extents are not on the disk, and
/// some file systems do nothing (overlayfs). fsync does all that is left.
pub(super) fn write_out(
    file: &File,
    mut pieces: impl Iterator<Item = Range<u64>>,
    give_up: &dyn Fn() -> bool,
) -> Result<(), WriteFailure> {
    let mut size = 1;
    // On its way while the next one begins, so that the disk has always something to do.
    let mut before: Option<Range<u64>> = None;
    loop {
        if give_up() {
            return Err(WriteFailure::GivenUp);
        }
        let step: Vec<Range<u64>> = pieces.by_ref().take(size).collect();
        let step = match (step.first(), step.last()) {
            (Some(first), Some(last)) => Some(first.start..last.end),
            _ => None,
        };
        let begun = Instant::now();
        if let Some(step) = &step
            && !range(file, step, libc::SYNC_FILE_RANGE_WRITE)?
        {
            return Ok(());
        }
        if let Some(before) = &before {
            range(file, before, WRITTEN_OUT)?;
        }
        if step.is_none() {
            return Ok(());
        }
        before = step;
        let took = begun.elapsed();
        if took > LONG {
            size = 1.max(size / 2);
        } else if took < SHORT && took >= WRITTEN * u32::try_from(size).unwrap_or(u32::MAX) {
            size = MOST.min(size * 2);
        }
    }
}

/// What has sync_file_range(2) come back when a range is on the disk.
const WRITTEN_OUT: libc::c_uint = libc::SYNC_FILE_RANGE_WAIT_BEFORE
    | libc::SYNC_FILE_RANGE_WRITE
    | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// sync_file_range(2) of the range; false where there is no such call: a sandbox around
/// this process knows fsync only.
fn range(file: &File, range: &Range<u64>, what: libc::c_uint) -> Result<bool, WriteFailure> {
    let offset = |value: u64| libc::off64_t::try_from(value).unwrap_or(libc::off64_t::MAX);
    let (at, len) = (offset(range.start), offset(range.end - range.start));
    // SAFETY: takes no pointer; the descriptor is open.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, what) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => Ok(false),
        _ => Err(WriteFailure::Io(error)),
    }
}
