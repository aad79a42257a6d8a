//! What a booted guest is to be, and whether this host can be asked for it.

use std::path::PathBuf;
use std::str::FromStr;

use cpuid_features::Selection;

use crate::boot::BootSource;
use crate::boot::acpi::Hardware;
use crate::boot::format::Format;
use crate::halt_mode::HaltMode;
use crate::memory::ram;
use crate::policy::{Policy, YieldPolicy};
use crate::transport::{HaltKick, Transport};

/// Bytes of guest memory: `256M`, `1G`, `65536K`, or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a memory size is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// No number, or another suffix.
    #[error("not a number with K, M, G or T behind it")]
    NotANumber,
    /// Beyond 64 bits.
    #[error("more than any machine has")]
    TooLarge,
    /// A guest needs the first MiB and some.
    #[error("less than {} MiB", ram::MIN_BYTES >> 20)]
    TooSmall,
    /// KVM maps pages.
    #[error("not a multiple of 4K")]
    NotPages,
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(text: &str) -> Result<Self, MemorySizeError> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text.get(digits.len()..) {
            Some("" | "B") => 0,
            Some("K" | "k" | "KiB") => 10,
            Some("M" | "m" | "MiB") => 20,
            Some("G" | "g" | "GiB") => 30,
            Some("T" | "t" | "TiB") => 40,
            _ => return Err(MemorySizeError::NotANumber),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(MemorySizeError::NotANumber);
        }
        let number: u64 = digits.parse().map_err(|_| MemorySizeError::TooLarge)?;
        let bytes = number
            .checked_mul(1 << shift)
            .ok_or(MemorySizeError::TooLarge)?;
        if bytes < ram::MIN_BYTES {
            return Err(MemorySizeError::TooSmall);
        }
        if bytes % 4096 != 0 {
            return Err(MemorySizeError::NotPages);
        }
        Ok(Self(bytes))
    }
}

/// Where a guest comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Kernel, initrd and command line.
    Boot(BootSource),
    /// A snapshot at this path, which says all else about the VM.
    Snapshot(PathBuf),
}

/// A guest to boot, or to go on with.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Where it comes from.
    pub source: Source,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Size of its RAM.
    pub memory: MemorySize,
    /// Who puts its halted vCPUs to sleep.
    pub halt: HaltMode,
    /// How its hypercalls reach this process; None: as [`RunConfig::halt_kick`]
    /// says.
    pub transport: Option<Transport>,
    /// What its scheduler does beyond waking whom is kicked; None: as
    /// [`RunConfig::policy`] says.
    pub yielding: Option<YieldPolicy>,
    /// The guest may use x2APIC mode; of effect where vCPUs halt in this process.
    pub x2apic: bool,
    /// Paravirtual features by name, on and off.
    pub pv: Selection,
    /// The guest has a test device.
    pub test_device: bool,
    /// Print KVM's statistics at the end.
    pub stats: bool,
    /// Path of the control socket, if there is to be one.
    pub control: Option<PathBuf>,
    /// Where to write what each vCPU did.
    pub trace: Option<PathBuf>,
}

/// What this host can't give.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// More vCPUs than its KVM runs in one VM.
    #[error("--cpus {asked}: this host's KVM runs at most {most} vCPUs a VM")]
    Cpus {
        /// The number that was asked for.
        asked: u32,
        /// KVM_CAP_MAX_VCPUS.
        most: usize,
    },
    /// More memory than it has.
    #[error("--memory {} MiB: this host has {} MiB", asked >> 20, have >> 20)]
    Memory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes there are.
        have: u64,
    },
    /// A transport that this host has not.
    #[error("--transport xen: this host's KVM offers no Xen intercept (see probe)")]
    NoXen,
    /// A transport that this guest does not use.
    #[error(
        "--transport port: Linux makes its hypercalls by an instruction; the port is for multiboot programs"
    )]
    LinuxByPort,
}

impl RunConfig {
    /// How its vCPUs halt and are kicked: in KVM and by KVM, or in this process.
    /// Kicks come to this process by KVM's Xen intercept if the host has it, for
    /// that is how Linux makes them; or by the doorbell port, if the kernel is a
    /// multiboot program. Else KVM gets them and none reaches a vCPU that halts
    /// here: the guest is not offered any.
    ///
    /// A transport that was asked for is for halts in KVM too: kicks come here
    /// then, where the scheduler's policy sees them, and go on to KVM.
    ///
    /// # Errors
    /// The host does not have that transport, or the guest does not use it.
    pub fn halt_kick(&self, format: Format, xen: bool) -> Result<HaltKick, ConfigError> {
        let multiboot = matches!(format, Format::Multiboot(_));
        let transport = match (self.transport, self.halt) {
            (Some(Transport::Xen), _) if !xen => return Err(ConfigError::NoXen),
            (Some(Transport::Port), _) if !multiboot => return Err(ConfigError::LinuxByPort),
            (Some(transport), _) => transport,
            (None, HaltMode::Userspace) if multiboot => Transport::Port,
            (None, HaltMode::Userspace) if xen => Transport::Xen,
            (None, HaltMode::Userspace | HaltMode::Kernel) => Transport::Kvm,
        };
        Ok(HaltKick {
            halt: self.halt,
            transport,
        })
    }

    /// What its scheduler does beyond waking whom is kicked: unless it was chosen,
    /// nothing where the guest's interrupts come from this process. Holds know of
    /// them, and gain nothing there: docs/LINUX.md has the figures.
    pub fn policy(&self) -> Policy {
        let usual = match self.halt {
            HaltMode::Kernel => Policy::default().yielding,
            HaltMode::Userspace => YieldPolicy::Nothing,
        };
        Policy {
            yielding: self.yielding.unwrap_or(usual),
            ..Policy::default()
        }
    }

    /// What its ACPI tables tell of.
    pub fn hardware(&self) -> Hardware {
        match self.halt {
            HaltMode::Kernel => Hardware::Full,
            HaltMode::Userspace => Hardware::Reduced,
        }
    }

    /// Checks it against this host.
    ///
    /// # Errors
    /// The host does not have what it asks for.
    pub fn check(&self, max_vcpus: usize) -> Result<(), ConfigError> {
        if usize::try_from(self.cpus).map_or(true, |cpus| cpus > max_vcpus) {
            return Err(ConfigError::Cpus {
                asked: self.cpus,
                most: max_vcpus,
            });
        }
        // A mapping is cheap and would be granted; using it would be the end.
        let have = host_memory();
        if self.memory.bytes() > have {
            return Err(ConfigError::Memory {
                asked: self.memory.bytes(),
                have,
            });
        }
        Ok(())
    }
}

/// RAM that Linux has, in bytes.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_whole_and_checked() {
        let size = |text: &str| text.parse::<MemorySize>().map(MemorySize::bytes);
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(size("2MiB"), Ok(2 << 20));
        assert_eq!(size("3g"), Ok(3 << 30));
        assert_eq!(size("8388608"), Ok(8 << 20));
        assert_eq!(size("0"), Err(MemorySizeError::TooSmall));
        assert_eq!(size("1M"), Err(MemorySizeError::TooSmall));
        assert_eq!(size("4194305"), Err(MemorySizeError::NotPages));
        assert_eq!(size("99999999T"), Err(MemorySizeError::TooLarge));
        assert_eq!(size("99999999999999999999"), Err(MemorySizeError::TooLarge));
        for wrong in ["", "M", "-1M", "1.5G", "256X", "0x100M", "256 M"] {
            assert_eq!(size(wrong), Err(MemorySizeError::NotANumber), "{wrong}");
        }
    }

    #[test]
    fn a_transport_is_the_guest_s_unless_one_is_asked_for() {
        use HaltMode::{Kernel, Userspace};
        use Transport::{Kvm, Port, Xen};
        let linux = Format::Elf;
        let config = |halt, transport| RunConfig {
            source: Source::Snapshot(PathBuf::new()),
            cpus: 1,
            memory: MemorySize(1 << 30),
            halt,
            transport,
            yielding: None,
            x2apic: true,
            test_device: false,
            pv: Selection::default(),
            stats: false,
            control: None,
            trace: None,
        };
        let transport = |halt, asked, xen| {
            let chosen = config(halt, asked).halt_kick(linux, xen);
            chosen
                .map(|chosen| chosen.transport)
                .map_err(|e| e.to_string())
        };
        assert_eq!(transport(Kernel, None, true), Ok(Kvm));
        assert_eq!(transport(Userspace, None, true), Ok(Xen));
        assert_eq!(transport(Userspace, None, false), Ok(Kvm));
        assert_eq!(transport(Kernel, Some(Xen), true), Ok(Xen));
        assert!(transport(Kernel, Some(Xen), false).is_err_and(|e| e.contains("--transport xen")));
        let by_port = transport(Userspace, Some(Port), true);
        assert!(by_port.is_err_and(|e| e.contains("--transport port")));
    }

    #[test]
    fn a_hosts_memory_is_what_proc_says() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = meminfo.lines().find(|line| line.starts_with("MemTotal:"));
        let kib: u64 = total
            .unwrap()
            .split(' ')
            .rev()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(host_memory(), kib * 1024);
    }
}
