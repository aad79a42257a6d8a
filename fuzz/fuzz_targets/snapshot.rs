//! A snapshot of unknown origin: the file as it comes, or a state that was made up
//! behind a page of memory, with both checksums right. What opens is used: its
//! memory is checked and mapped.
//!
//! The first byte says which: even the file, odd a state.

#![no_main]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::GuestMemoryBackend as _;
use vmm_reference::snapshot::{self, Snapshot};

const PAGE: usize = 4096;

/// The format as its documentation has it.
fn behind_a_preamble(state: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 2 * PAGE];
    file[..8].copy_from_slice(b"KVMPVVM\x1a");
    file[8..12].copy_from_slice(&snapshot::VERSION.to_le_bytes());
    file[12..16].copy_from_slice(&crc32fast::hash(state).to_le_bytes());
    file[16..24].copy_from_slice(&(2 * PAGE as u64).to_le_bytes());
    file[24..32].copy_from_slice(&(state.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(&file[..PAGE - 4]);
    file[PAGE - 4..PAGE].copy_from_slice(&crc.to_le_bytes());
    file.extend_from_slice(state);
    file
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let made_up = kind % 2 == 1;
    let bytes = match made_up {
        false => rest.to_vec(),
        true => behind_a_preamble(rest),
    };
    let mut file: File = memfd_create("snapshot", MemfdFlags::CLOEXEC)
        .expect("a file in memory")
        .into();
    file.write_all(&bytes).expect("written");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let snapshot = match Snapshot::open(Path::new(&path)) {
        Ok(snapshot) => snapshot,
        Err(e) => {
            assert_eq!(e.to_string().lines().count(), 1, "{e}");
            return;
        }
    };
    // Its memory is the page that is there.
    assert_eq!(snapshot.memory_bytes(), PAGE as u64);
    if snapshot.check_memory(&|| false).is_err() {
        assert!(made_up);
        return;
    }
    let memory = snapshot.map_memory().expect("a page at a place that was checked");
    assert_eq!(memory.num_regions(), 1);
});
