//! Guests that do to their interrupt controllers what no operating system would, with
//! halts in this process and in KVM: the VMM goes on, grows not, and ends in order.
//! `ci/bad-guests` measures more of it.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

#[macro_use]
mod common;
#[path = "common/bad_guests/mod.rs"]
mod bad_guests;

use std::path::Path;
use std::time::Duration;

use bad_guests::{ALL, observe};
use common::{Scratch, guests, kvm, process};

#[test]
fn none_ends_or_grows_the_vmm() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("bad-guests");
    let vmm = Path::new(env!("CARGO_BIN_EXE_vmm-reference"));
    for guest in ALL {
        for halt in ["userspace", "kernel"] {
            let window = Duration::from_millis(300);
            let options = ["--halt", halt, "--stats"];
            let seen = observe(vmm, &dir.path("."), guest, &options, window).unwrap();
            let case = format!("{}, halts in {halt}: {seen:?}", guest.name);
            assert!(seen.up && seen.ran_on, "{case}");
            assert_eq!(seen.status, Some(0), "{case}");
            assert!(!seen.stderr.contains("panicked"), "{case}");
            assert!(seen.growth_kib < 1024, "{case}");
            if guest.interrupted && halt == "userspace" {
                assert!(seen.count("vmm_interrupts") >= 10, "{case}");
            }
        }
    }
}
