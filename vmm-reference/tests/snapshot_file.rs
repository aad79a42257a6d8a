//! A snapshot's file, damaged: each cut and each flipped bit is an error, and so is
//! a state that was made up, with its checksums right.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helper that fails is a test that fails"
)]

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use pv_lock_host::{ApicId, SavedScheduler, SavedVcpu};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_reference::devices::Bus;
use vmm_reference::devices::output::Output;
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::host::KvmHost;
use vmm_reference::irqchip::userspace::IoApic;
use vmm_reference::memory::{self, GuestMemory};
use vmm_reference::payload::image::CodeImage;
use vmm_reference::policy::Policy;
use vmm_reference::snapshot::{
    self, SavedCounts, SavedKvm, SavedMachine, SavedPlatform, SavedVm, Snapshot, SnapshotError,
};
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vm::{Restore, Vm, VmSpec};

mod common;

const PAGE: usize = 4096;

/// A VM without vCPUs: all of a state that needs no KVM.
fn saved() -> SavedVm {
    SavedVm {
        machine: SavedMachine {
            platform: SavedPlatform::Bare,
            halt_kick: HaltKick {
                halt: HaltMode::Userspace,
                transport: Transport::Port,
            },
            x2apic: true,
            enforce_features: true,
            map_gpa_range: false,
        },
        vcpus: Vec::new(),
        scheduler: SavedScheduler {
            vcpus: vec![SavedVcpu {
                apic_id: ApicId(0),
                halted: false,
                kicked: true,
                event: false,
            }],
        },
        kvm: SavedKvm {
            clock: Default::default(),
            irqchip: None,
        },
        ioapic: Some(IoApic::new()),
        devices: Bus::default().save(),
        counts: SavedCounts::default(),
    }
}

/// Two regions of a page; the second has nothing.
fn some_memory() -> GuestMemory {
    let memory = memory::allocate(&[(0, 0x1000), (0x10_0000, 0x1000)]).unwrap();
    memory.write_slice(b"first", GuestAddress(0x10)).unwrap();
    memory.write_slice(b"last", GuestAddress(0xffc)).unwrap();
    memory
}

fn written(scratch: &common::Scratch) -> PathBuf {
    let path = scratch.path("vm");
    snapshot::write(&path, &saved(), &some_memory(), &|| false).expect("is written");
    path
}

fn whole(path: &Path) -> Result<Snapshot, SnapshotError> {
    let snapshot = Snapshot::open(path)?;
    snapshot.check_memory(&|| false)?;
    Ok(snapshot)
}

#[test]
fn what_was_written_is_read() {
    let scratch = common::Scratch::new("snapshot-read");
    let path = written(&scratch);
    let snapshot = whole(&path).expect("intact");
    assert_eq!(snapshot.vm().scheduler, saved().scheduler);
    assert_eq!(snapshot.vm().machine, saved().machine);
    assert_eq!(snapshot.memory_bytes(), 0x2000);
    let memory = snapshot.map_memory().expect("is mapped");
    let mut bytes = vec![0; PAGE];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    assert_eq!(&bytes[0x10..0x15], b"first");
    assert_eq!(&bytes[0xffc..], b"last");
    assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 9);
    memory
        .read_slice(&mut bytes, GuestAddress(0x10_0000))
        .unwrap();
    assert_eq!(bytes, [0; PAGE]);
    // What the guest writes stays with it.
    memory.write_slice(b"later", GuestAddress(0x10)).unwrap();
    whole(&path).expect("as it was");
}

#[test]
fn it_is_sparse_private_and_alone() {
    let scratch = common::Scratch::new("snapshot-sparse");
    let path = scratch.path("vm");
    let memory = memory::allocate(&[(0, 64 << 20)]).unwrap();
    memory
        .write_slice(&[1; 10], GuestAddress(33 << 20))
        .unwrap();
    snapshot::write(&path, &saved(), &memory, &|| false).expect("is written");
    let metadata = path.metadata().unwrap();
    assert!(metadata.len() > 64 << 20);
    // A preamble, a page of memory and the state; file systems round up.
    assert!(metadata.blocks() * 512 < 256 << 10, "{metadata:?}");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let names = path.parent().unwrap().read_dir().unwrap();
    assert_eq!(names.count(), 1, "nothing beside it");
    whole(&path).expect("intact");
}

#[test]
fn what_a_guest_writes_before_it_is_on_the_disk_is_not_in_it() {
    let scratch = common::Scratch::new("snapshot-begun");
    let (path, memory) = (scratch.path("vm"), some_memory());
    let begun = |memory| snapshot::begin(&path, &saved(), memory, &|| false).expect("is begun");
    drop(begun(&memory));
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 0);
    let unfinished = begun(&memory);
    assert!(!path.exists());
    memory.write_slice(b"later", GuestAddress(0x10)).unwrap();
    let written = unfinished.finish(&|| false).expect("is finished");
    assert_eq!(path.metadata().unwrap().len(), written.bytes);
    let mapped = whole(&path).expect("intact").map_memory().unwrap();
    let mut bytes = [0; 5];
    mapped.read_slice(&mut bytes, GuestAddress(0x10)).unwrap();
    assert_eq!(&bytes, b"first");
}

#[test]
fn one_that_is_given_up_or_fails_leaves_what_was_there() {
    let scratch = common::Scratch::new("snapshot-given-up");
    let path = written(&scratch);
    let before = std::fs::read(&path).unwrap();
    let given_up = snapshot::write(&path, &saved(), &some_memory(), &|| true);
    assert!(matches!(given_up, Err(SnapshotError::GivenUp(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    // It is written, and its name is refused: a directory has it.
    let taken = scratch.path("taken");
    std::fs::create_dir(&taken).unwrap();
    let begun = snapshot::begin(&taken, &saved(), &some_memory(), &|| false).expect("is begun");
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 3);
    let refused = begun.finish(&|| false).unwrap_err().to_string();
    assert!(
        refused.contains("taken") && refused.lines().count() == 1,
        "{refused}"
    );
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 2);
    let nowhere = scratch.path("no/such/directory");
    let failed = snapshot::write(&nowhere, &saved(), &some_memory(), &|| false).unwrap_err();
    let said = failed.to_string();
    assert!(
        said.contains("no/such/directory") && said.lines().count() == 1,
        "{said}"
    );
}

/// On its way to the disk, before any step of that; the first ones are of a MiB.
#[test]
fn one_that_is_given_up_late_leaves_what_was_there() {
    const MIB: usize = 6;
    let scratch = common::Scratch::new("snapshot-late");
    let path = written(&scratch);
    let before = std::fs::read(&path).unwrap();
    let memory = memory::allocate(&[(0, (MIB as u64) << 20)]).unwrap();
    memory
        .write_slice(&vec![1; MIB << 20], GuestAddress(0))
        .unwrap();
    let finished = |after: usize| {
        let asked = Cell::new(0);
        let give_up = || asked.replace(asked.get() + 1) == after;
        let begun = snapshot::begin(&path, &saved(), &memory, &|| false).expect("is begun");
        let finished = begun.finish(&give_up);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
        finished
    };
    // However fast the disk is: steps of 1, 2 and 3 MiB.
    for after in 0..3 {
        let given_up = finished(after).expect_err("is given up");
        assert!(matches!(given_up, SnapshotError::GivenUp(_)), "{given_up}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "after {after} steps");
    }
    finished(usize::MAX).expect("nobody gave it up");
    let mapped = whole(&path).expect("intact").map_memory().unwrap();
    let mut bytes = [0; 5];
    mapped.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    assert_eq!(bytes, [1; 5]);
}

#[test]
fn every_flipped_bit_is_an_error() {
    let scratch = common::Scratch::new("snapshot-flip");
    let path = written(&scratch);
    let bytes = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for (at, &byte) in (0u64..).zip(&bytes) {
        for bit in 0..8 {
            file.write_all_at(&[byte ^ 1 << bit], at).unwrap();
            let said = whole(&path).expect_err("a changed file").to_string();
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        file.write_all_at(&[byte], at).unwrap();
    }
    whole(&path).expect("as it was");
}

#[test]
fn every_cut_is_an_error() {
    let scratch = common::Scratch::new("snapshot-cut");
    let path = written(&scratch);
    let len = path.metadata().unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(len + 1).unwrap();
    Snapshot::open(&path).expect_err("a byte more");
    for len in (0..len).rev() {
        file.set_len(len).unwrap();
        let said = Snapshot::open(&path).expect_err("a cut file").to_string();
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn what_is_no_snapshot_is_said_to_be_none() {
    let scratch = common::Scratch::new("snapshot-none");
    let elf = scratch.file("elf", &[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    let said = |path: &Path| Snapshot::open(path).expect_err("none").to_string();
    assert!(said(&elf).ends_with("not a snapshot of this program"));
    assert!(said(elf.parent().unwrap()).contains("not a snapshot"));
    assert!(said(&scratch.path("absent")).contains("No such file"));
    let path = written(&scratch);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&3u32.to_le_bytes(), 8).unwrap();
    let said = said(&path);
    assert!(
        said.ends_with("it has version 3 of the format, this program reads version 2"),
        "{said}"
    );
}

fn word(file: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(file[at..at + 8].try_into().unwrap())).unwrap()
}

/// `file` with its two checksums as they must be: the documented offsets.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let (at, len) = (word(&file, 16), word(&file, 24));
    let crc = crc32fast::hash(&file[at..at + len]).to_le_bytes();
    file[12..16].copy_from_slice(&crc);
    let crc = crc32fast::hash(&file[..PAGE - 4]).to_le_bytes();
    file[PAGE - 4..PAGE].copy_from_slice(&crc);
    file
}

/// Of what opens, nothing that follows panics.
fn goes_or_is_an_error(path: &Path, host: Option<&KvmHost>) {
    let Ok(snapshot) = Snapshot::open(path) else {
        return;
    };
    drop(snapshot.check_memory(&|| false));
    drop(snapshot.map_memory());
    if let Some(host) = host {
        let output = Output::default();
        let how = Restore {
            policy: Policy::default(),
            output: output.clone(),
            trace: None,
        };
        if let Err(e) = Vm::restore(&snapshot, host, how) {
            assert_eq!(e.to_string().lines().count(), 1, "{e}");
        }
        output.close();
    }
}

/// A VM of KVM that has not run.
fn of_kvm(host: &KvmHost, path: &Path) {
    let image = CodeImage::new(2, &[0xf4]).unwrap();
    let halt_kick = HaltKick {
        halt: HaltMode::Userspace,
        transport: Transport::Port,
    };
    let vm = Vm::build(&VmSpec::bare(2, halt_kick), Some(host), &image).unwrap();
    let (running, parts) = vm.start().unwrap();
    let handle = running.handle();
    handle.pause().unwrap();
    let saved = parts.save(&handle).unwrap();
    snapshot::write(path, &saved, &parts.memory, &|| false).unwrap();
    running.stop().unwrap();
}

fn changed_with_checksums(path: &Path, host: Option<&KvmHost>, cases: u32) {
    let bytes = Arc::new(std::fs::read(path).unwrap());
    let state_at = word(&bytes, 16);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let places = prop_oneof![16..32usize, state_at..bytes.len()];
    let changes = proptest::collection::vec((places, any::<u8>()), 1..4);
    let tried = runner.run(&changes, |changes| {
        let mut file = bytes.to_vec();
        for (at, value) in changes {
            file[at] = value;
        }
        let end = word(&file, 16).checked_add(word(&file, 24));
        if end.is_some_and(|end| end <= file.len()) {
            file = with_checksums(file);
        }
        std::fs::write(path, &file).unwrap();
        goes_or_is_an_error(path, host);
        Ok(())
    });
    tried.unwrap();
}

#[test]
fn a_made_up_state_never_panics() {
    let scratch = common::Scratch::new("snapshot-made-up");
    changed_with_checksums(&written(&scratch), None, 2000);
}

#[test]
fn a_made_up_state_never_panics_with_kvm() {
    let Ok(host) = KvmHost::open() else {
        println!("not run here: no usable /dev/kvm");
        return;
    };
    let scratch = common::Scratch::new("snapshot-made-up-kvm");
    let path = scratch.path("vm");
    of_kvm(&host, &path);
    goes_or_is_an_error(&path, Some(&host));
    changed_with_checksums(&path, Some(&host), 200);
}
