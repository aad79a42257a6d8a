//! A small VMM that serves `KVM_HC_MAP_GPA_RANGE`: its guest asks for its memory
//! to be made private and shared, well and badly, and each answer is compared
//! with what the ABI says.
//!
//! ```text
//! cargo run -p hypercall-abi --features kvm-bindings --example map_gpa_range
//! ```
//!
//! On an ordinary VM a conversion is recorded and has no effect, as only VMs
//! with private memory have any; whether this KVM has those is said.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "map_gpa_range/vmm.rs"]
mod vmm;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    vmm::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    eprintln!("map_gpa_range: KVM's hypercalls exist on x86-64 Linux only");
    std::process::ExitCode::FAILURE
}
