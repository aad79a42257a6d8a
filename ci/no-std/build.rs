//! The program has its own `_start`, and takes `memcpy` and friends from libc,
//! as `core` expects of its platform.

fn main() {
    println!("cargo::rustc-link-arg-bins=-nostartfiles");
    println!("cargo::rustc-link-arg-bins=-lc");
}
