//! Kernel files that are cut, or hold more than anybody looks through.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::common::guests::{self};
use crate::common::{Scratch, finish, kvm, linux, run};

fn refused(kernel: &Path, what: &str) {
    let said = finish(&mut run(kernel));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert_eq!((said.stdout.as_str(), said.stderr.lines().count()), ("", 1));
    assert!(said.stderr.contains(what), "{what}: {said:?}");
}

#[test]
fn a_bzimage_that_is_cut_is_refused_by_name() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("files-cut");
    let image = linux::bzimage();
    // From behind its header to one byte too few.
    for cut in (0x280..image.len()).step_by(61).chain([image.len() - 1]) {
        let path = dir.file("cut", &image[..cut]);
        refused(&path, &format!("there are {cut}"));
    }
}

/// What a real one says of its size: a Debian kernel is as long as that, and a
/// signature longer. Here a header alone.
#[test]
fn a_bzimage_of_old_setup_sectors_is_measured_right() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("files-old");
    let mut image = linux::bzimage();
    // 0 stands for 4 sectors.
    image[0x1f1] = 0;
    let paragraphs = u32::from_le_bytes(image[0x1f4..0x1f8].try_into().unwrap());
    let need = 5 * 512 + 16 * paragraphs;
    refused(&dir.file("old", &image), &format!("at least {need} bytes"));
}

/// A vmlinux whose program headers name `count` notes of `bytes` each, none of
/// which is on the disk.
fn notes(path: &Path, count: u16, bytes: u64) {
    let mut image = guests::vmlinux();
    image.splice(56..58, count.to_le_bytes());
    for _ in 0..count {
        let mut header = [0u8; 56];
        header[0] = 4;
        header[8..16].copy_from_slice(&0x10_0000u64.to_le_bytes());
        header[32..40].copy_from_slice(&bytes.to_le_bytes());
        header[40..48].copy_from_slice(&bytes.to_le_bytes());
        image.extend(header);
    }
    let file = File::create(path).unwrap();
    file.write_all_at(&image, 0).unwrap();
    file.set_len(0x10_0000 + bytes).unwrap();
}

#[test]
fn notes_without_end_are_refused_and_not_read() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("files-notes");
    for (count, bytes) in [(1, 8 << 20), (60, 8 << 20), (17, 16)] {
        let path = dir.path("notes");
        notes(&path, count, bytes);
        refused(&path, &format!("{count} segments of notes"));
    }
}
