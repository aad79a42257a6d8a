//! Kicks for vCPUs that halt inside KVM.
//!
//! With an in-kernel local APIC a HLT does not leave the kernel, and a guest's
//! `KVM_HC_KICK_CPU` is served there: KVM sends itself an interrupt with
//! delivery mode 3 (remote read), whose only effect is the latch `pv_unhalted`
//! (`arch/x86/kvm/lapic.c`, `__apic_accept_irq`). Nothing keeps userspace from
//! sending the same one, as an MSI: this is the kick, from the host.
#![expect(unsafe_code, reason = "ioctls, each with its structure")]

use core::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_IRQ_ROUTING_MSI, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, kvm_enable_cap, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_irqfd, kvm_msi,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::ioctl;
use crate::apic_id::ApicId;

/// Numbers of KVM's ioctls (include/uapi/linux/kvm.h).
const KVM_IRQFD: u8 = 0x76;
const KVM_ENABLE_CAP: u8 = 0xa3;
const KVM_SIGNAL_MSI: u8 = 0xa5;

/// The base of the addresses that x86 MSIs are written to.
const MSI_BASE: u32 = 0xfee0_0000;

/// Delivery mode 3 in bits 10:8: remote read, on KVM a kick.
const REMOTE_READ: u32 = 3 << 8;

/// 8-bit destination of an MSI that goes to all.
const BROADCAST: u32 = 0xff;

/// Kicks vCPUs of a VM with an in-kernel local APIC, by `KVM_SIGNAL_MSI` or,
/// for one that is kicked often or from elsewhere, by an irqfd.
///
/// `V` is whatever owns the VM's descriptor, or lends it: an `OwnedFd`, a
/// `BorrowedFd`, an `Arc<VmFd>` of kvm-ioctls, whose types have no `AsFd`. The
/// kick is sticky and works with the guest's interrupts disabled, like the
/// guest's own, but no directed yield follows it. It reaches a vCPU only once
/// its local APIC has been programmed (by the guest, or by `KVM_SET_LAPIC`):
/// before, it is counted as undelivered.
///
/// ```
/// use std::sync::Arc;
///
/// use kvm_ioctls::Kvm;
/// use pv_lock_host::{ApicId, KvmKick};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(kvm) = Kvm::new() else { return Ok(()) };
/// let vm = Arc::new(kvm.create_vm()?);
/// vm.create_irq_chip()?;
/// let kick = KvmKick::new(Arc::clone(&vm));
/// assert_eq!(kick.kick(ApicId(0)), Ok(false)); // there is no vCPU yet
/// assert_eq!((kick.delivered(), kick.undelivered()), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvmKick<V> {
    vm: V,
    /// Whether ids have 32 bits.
    wide: bool,
    delivered: AtomicU64,
    undelivered: AtomicU64,
}

impl<V: AsRawFd> KvmKick<V> {
    /// For APIC ids up to 254.
    pub const fn new(vm: V) -> Self {
        Self {
            vm,
            wide: false,
            delivered: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
        }
    }

    /// For all APIC ids: turns on `KVM_CAP_X2APIC_API` with 32-bit ids and
    /// without the broadcast quirk (for the whole VM, and for all MSIs).
    ///
    /// The quirk is about local APICs in x2APIC mode: one that is still in xAPIC
    /// mode takes 0xff for a broadcast, and the low eight bits of its id for
    /// its own.
    ///
    /// # Errors
    /// KVM has not got this capability.
    pub fn with_32bit_ids(vm: V) -> Result<Self, KvmKickError> {
        let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X2APIC_API,
            args: [flags.into(), 0, 0, 0],
            ..Default::default()
        };
        // SAFETY: KVM reads a kvm_enable_cap for this number.
        unsafe { ioctl::write(vm.as_raw_fd(), KVM_ENABLE_CAP, &cap) }
            .map_err(|errno| KvmKickError::ioctl("KVM_CAP_X2APIC_API", errno))?;
        Ok(Self {
            wide: true,
            ..Self::new(vm)
        })
    }

    /// Kicks the vCPU with this APIC ID; says whether there is one.
    ///
    /// # Errors
    /// The id is not within reach, or there is no in-kernel local APIC.
    pub fn kick(&self, id: ApicId) -> Result<bool, KvmKickError> {
        self.signal(self.message(id)?).map(|reached| reached > 0)
    }

    /// Kicks every vCPU; gives the number of those that it reached.
    ///
    /// # Errors
    /// There is no in-kernel local APIC.
    pub fn kick_all(&self) -> Result<u32, KvmKickError> {
        let everyone = if self.wide { u32::MAX } else { BROADCAST };
        self.signal(Message::to(everyone))
    }

    /// An entry for `KVM_SET_GSI_ROUTING` that makes `gsi` a kick of `id`.
    ///
    /// The routing table is replaced as a whole and belongs to the VMM, so it
    /// is the VMM that puts this among its other entries.
    ///
    /// # Errors
    /// The id is not within reach.
    pub fn routing_entry(
        &self,
        gsi: u32,
        id: ApicId,
    ) -> Result<kvm_irq_routing_entry, KvmKickError> {
        let message = self.message(id)?;
        let mut msi = kvm_irq_routing_msi {
            address_lo: message.address_lo,
            address_hi: message.address_hi,
            data: REMOTE_READ,
            ..Default::default()
        };
        msi.__bindgen_anon_1.pad = 0;
        Ok(kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
            ..Default::default()
        })
    }

    /// A file descriptor each write to which is a kick, once `gsi` is routed.
    ///
    /// # Errors
    /// No eventfd was to be had, or KVM refused it for this GSI.
    pub fn irqfd(&self, gsi: u32) -> Result<KickFd, KvmKickError> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| KvmKickError::ioctl("eventfd", errno))?;
        let irqfd = kvm_irqfd {
            fd: fd.as_raw_fd() as u32,
            gsi,
            ..Default::default()
        };
        // SAFETY: KVM reads a kvm_irqfd for this number.
        unsafe { ioctl::write(self.vm.as_raw_fd(), KVM_IRQFD, &irqfd) }
            .map_err(|errno| KvmKickError::ioctl("KVM_IRQFD", errno))?;
        Ok(KickFd(fd))
    }

    /// Kicks by `KVM_SIGNAL_MSI` that reached a vCPU.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Kicks by `KVM_SIGNAL_MSI` that reached nobody: no such vCPU, or one
    /// whose local APIC has not been programmed.
    pub fn undelivered(&self) -> u64 {
        self.undelivered.load(Relaxed)
    }

    fn message(&self, id: ApicId) -> Result<Message, KvmKickError> {
        let everyone = if self.wide { u32::MAX } else { BROADCAST };
        if id.0 >= everyone {
            return Err(KvmKickError::OutOfReach(id));
        }
        Ok(Message::to(id.0))
    }

    fn signal(&self, message: Message) -> Result<u32, KvmKickError> {
        let msi = kvm_msi {
            address_lo: message.address_lo,
            address_hi: message.address_hi,
            data: REMOTE_READ,
            ..Default::default()
        };
        // SAFETY: KVM reads a kvm_msi for this number.
        let reached = match unsafe { ioctl::write(self.vm.as_raw_fd(), KVM_SIGNAL_MSI, &msi) } {
            // What KVM says while no vCPU of the VM has an APIC: the -1 of
            // kvm_irq_delivery_to_apic (arch/x86/kvm/irq_comm.c), as an errno.
            Err(Errno::PERM) => 0,
            other => other.map_err(|errno| KvmKickError::ioctl("KVM_SIGNAL_MSI", errno))?,
        };
        let reached = u32::try_from(reached).unwrap_or(0);
        // Relaxed: statistics.
        match reached {
            0 => self.undelivered.fetch_add(1, Relaxed),
            _ => self.delivered.fetch_add(1, Relaxed),
        };
        Ok(reached)
    }
}

/// The address of an MSI with a physical destination: bits 19:12 of the low
/// half hold its bits 7:0, and bits 31:8 of the high half the others
/// (Documentation/virt/kvm/api.rst, KVM_CAP_X2APIC_API).
#[derive(Clone, Copy)]
struct Message {
    address_lo: u32,
    address_hi: u32,
}

impl Message {
    const fn to(destination: u32) -> Self {
        Self {
            address_lo: MSI_BASE | (destination & 0xff) << 12,
            address_hi: destination & !0xff,
        }
    }
}

/// An irqfd: each [`KickFd::kick`] is one write, from any thread. It lends and
/// gives its descriptor, so that another process can kick too: a write of eight
/// bytes, the number 1.
///
/// ```
/// # use std::sync::Arc;
/// # use kvm_bindings::KvmIrqRouting;
/// # use kvm_ioctls::Kvm;
/// # use pv_lock_host::{ApicId, KvmKick};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(kvm) = Kvm::new() else { return Ok(()) };
/// # let vm = Arc::new(kvm.create_vm()?);
/// # vm.create_irq_chip()?;
/// let kick = KvmKick::new(Arc::clone(&vm));
/// let entry = kick.routing_entry(5, ApicId(0))?; // beside the VMM's own
/// vm.set_gsi_routing(&KvmIrqRouting::from_entries(&[entry]).map_err(|e| format!("{e:?}"))?)?;
/// let fd = kick.irqfd(5)?;
/// fd.kick()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KickFd(OwnedFd);

impl KickFd {
    /// Kicks the vCPU that the GSI is routed to.
    ///
    /// # Errors
    /// The write failed.
    pub fn kick(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl AsFd for KickFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<KickFd> for OwnedFd {
    fn from(kick: KickFd) -> Self {
        kick.0
    }
}

/// Why a kick could not be sent.
///
/// ```
/// use pv_lock_host::{ApicId, KvmKickError};
///
/// let error = KvmKickError::OutOfReach(ApicId(255));
/// assert_eq!(error.to_string(), "no MSI can name the APIC ID 255");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KvmKickError {
    /// No MSI can name this id: above 254 without
    /// [`KvmKick::with_32bit_ids`], or the broadcast.
    OutOfReach(ApicId),
    /// A system call failed.
    ///
    /// [`std::io::Error::from_raw_os_error`] makes an error of the number.
    Ioctl {
        /// Which one: the name of the ioctl or of the call.
        name: &'static str,
        /// The error number that it returned.
        errno: i32,
    },
}

impl KvmKickError {
    const fn ioctl(name: &'static str, errno: Errno) -> Self {
        Self::Ioctl {
            name,
            errno: errno.raw_os_error(),
        }
    }
}

impl fmt::Display for KvmKickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach(id) => write!(f, "no MSI can name the APIC ID {id}"),
            Self::Ioctl { name, errno } => {
                write!(f, "{name}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl core::error::Error for KvmKickError {}
