//! No C runtime, fixed addresses, and the layout of guest.ld.
fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for arg in ["-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg={arg}");
    }
    println!("cargo:rustc-link-arg=-T{dir}/guest.ld");
    println!("cargo:rerun-if-changed=guest.ld");
}
