//! The descriptor that KVM's statistics are read from.

#![expect(
    unsafe_code,
    reason = "an ioctl without a wrapper, and the descriptor that it makes"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _};
use std::os::unix::fs::FileExt as _;

use kvm_bindings::KVMIO;
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl;

use super::decode::{MAX_IMAGE, Stat, StatsError, decode};

vmm_sys_util::ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);

/// The statistics of one VM or vCPU. Reading waits for no vCPU: the descriptor
/// may be read while they run, and after they are gone.
#[derive(Debug)]
pub struct StatsFd(File);

impl StatsFd {
    /// The statistics of a vCPU. To be made before the vCPU's thread starts: the
    /// ioctl waits while the vCPU runs.
    ///
    /// # Errors
    /// `ENOTTY` before Linux 5.14.
    pub fn of_vcpu(vcpu: &VcpuFd) -> Result<Self, StatsError> {
        Self::open(vcpu)
    }

    /// The statistics of a VM.
    ///
    /// # Errors
    /// As [`StatsFd::of_vcpu`].
    pub fn of_vm(vm: &VmFd) -> Result<Self, StatsError> {
        Self::open(vm)
    }

    fn open(fd: &impl AsRawFd) -> Result<Self, StatsError> {
        // SAFETY: the request takes no argument and touches no memory of ours.
        let ret = unsafe { ioctl(fd, KVM_GET_STATS_FD()) };
        if ret < 0 {
            return Err(StatsError::Open(io::Error::last_os_error()));
        }
        // SAFETY: `ret` is a descriptor that the ioctl has just made; nobody
        // else has it.
        Ok(Self(unsafe { File::from_raw_fd(ret) }))
    }

    /// Reads and decodes all statistics.
    ///
    /// # Errors
    /// The descriptor can't be read, or what it gives is not in the format.
    pub fn read(&self) -> Result<Vec<Stat>, StatsError> {
        decode(&self.image()?)
    }

    /// A quick way to one statistic with a single value; None if there is none of
    /// this name.
    ///
    /// # Errors
    /// As [`StatsFd::read`], and no descriptor left.
    pub fn value_of(&self, name: &str) -> Result<Option<StatValue>, StatsError> {
        let stats = self.read()?;
        let stat = stats.iter().find(|stat| stat.name == name);
        let Some(stat) = stat.filter(|stat| stat.values.len() == 1) else {
            return Ok(None);
        };
        let file = self.0.try_clone().map_err(StatsError::Open)?;
        Ok(Some(StatValue {
            file,
            offset: stat.offset,
        }))
    }

    /// The file as KVM gives it: header, descriptors and data.
    ///
    /// # Errors
    /// The descriptor can't be read.
    pub fn image(&self) -> Result<Vec<u8>, StatsError> {
        let mut image = Vec::new();
        let mut chunk = [0; 8192];
        loop {
            let read = match self.0.read_at(&mut chunk, image.len() as u64) {
                Ok(0) => return Ok(image),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(StatsError::Read(e)),
            };
            image.extend(chunk.iter().take(read));
            if image.len() > MAX_IMAGE {
                return Err(StatsError::TooLarge(image.len()));
            }
        }
    }
}

/// One statistic of one vCPU or VM: a read of eight bytes, about a microsecond.
#[derive(Debug)]
pub struct StatValue {
    file: File,
    offset: u64,
}

impl StatValue {
    /// Its value now; None if it can't be read.
    pub fn get(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, self.offset).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }
}
