//! How the program is linked: for a quick start (`ci/boot-time`).

use std::env::var;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("ENV") != "gnu" {
        return;
    }
    // The unwinder from the compiler's archive instead of libgcc_s.so, for each
    // shared library has to be found, mapped and relocated at every start. Linked
    // statically it is there anyway.
    if !target("FEATURE").split(',').any(|f| f == "crt-static") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
    // The addresses that have to be adjusted at every start, in a table of a few
    // pages instead of 25. Read by glibc 2.36 and later.
    if glibc() >= Some((2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, on which the program is to run.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
