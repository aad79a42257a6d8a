//! Linux's boot protocols, on /dev/kvm, with small programs in place of Linux.
//! Linux itself boots in the lab.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use common::{Scratch, finish, kvm, linux, run};

fn prints_what_it_is_handed(name: &str, image: &[u8]) {
    if !kvm() {
        return;
    }
    let dir = Scratch::new(name);
    let kernel = dir.file("kernel", image);
    let initrd = dir.file("initrd", b"what the initrd holds");
    let mut command = run(&kernel);
    command.args(["--cmdline", "hello world"]).arg("--initrd");
    let said = finish(command.arg(initrd));
    assert_eq!(
        said.stdout, "hello world:what the initrd holds\n",
        "{said:?}"
    );
    assert_eq!(said.status, Some(7), "{said:?}");
}

#[test]
fn a_bzimage_by_its_64_bit_entry() {
    prints_what_it_is_handed("bzimage", &linux::bzimage());
}

#[test]
fn a_vmlinux_by_its_entry_point() {
    prints_what_it_is_handed("vmlinux", &linux::vmlinux());
}

#[test]
fn a_vmlinux_with_a_note_by_pvh() {
    prints_what_it_is_handed("pvh", &linux::pvh());
}
