//! Prints what KVM on this host can offer, `KVM_GET_SUPPORTED_CPUID`, as a raw
//! dump: how the fixtures of `tests/dumps` are recorded.

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    use cpuid_features::DumpEntry;
    use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
    use kvm_ioctls::Kvm;

    let reported = Kvm::new().and_then(|kvm| kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES));
    match reported {
        Ok(cpuid) => {
            println!("CPU:");
            for entry in cpuid.as_slice() {
                println!("{}", DumpEntry::from(entry));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("supported: cannot ask /dev/kvm: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    eprintln!("supported: KVM's CPUID exists on x86-64 Linux only");
    ExitCode::FAILURE
}
