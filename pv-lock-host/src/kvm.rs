//! Kicks for vCPUs that halt inside KVM.
//!
//! With an in-kernel local APIC a HLT does not leave the kernel, and a guest's
//! `KVM_HC_KICK_CPU` is served there: KVM sends itself an interrupt with
//! delivery mode 3 (remote read), whose only effect is the latch `pv_unhalted`
//! (`arch/x86/kvm/lapic.c`, `__apic_accept_irq`). Nothing keeps userspace from
//! sending the same one, as an MSI: this is the kick, from the host.

use core::borrow::Borrow;
use core::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_IRQ_ROUTING_MSI, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, kvm_enable_cap, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::apic_id::ApicId;

/// The base of the addresses that x86 MSIs are written to.
const MSI_BASE: u32 = 0xfee0_0000;

/// Delivery mode 3 in bits 10:8: remote read, on KVM a kick.
const REMOTE_READ: u32 = 3 << 8;

/// 8-bit destination of an MSI that goes to all.
const BROADCAST: u32 = 0xff;

/// Kicks vCPUs of a VM with an in-kernel local APIC, by `KVM_SIGNAL_MSI` or,
/// for one that is kicked often or from elsewhere, by an irqfd.
///
/// `V` is a [`VmFd`] or anything that lends one: `&VmFd`, `Arc<VmFd>`. The
/// kick is sticky and works with the guest's interrupts disabled, like the
/// guest's own, but no directed yield follows it. It reaches a vCPU only once
/// its local APIC has been programmed (by the guest, or by `KVM_SET_LAPIC`):
/// before, it is counted as undelivered.
#[derive(Debug)]
pub struct KvmKick<V> {
    vm: V,
    /// Whether ids have 32 bits.
    wide: bool,
    delivered: AtomicU64,
    undelivered: AtomicU64,
}

impl<V: Borrow<VmFd>> KvmKick<V> {
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
        vm.borrow()
            .enable_cap(&cap)
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

    /// An entry for [`VmFd::set_gsi_routing`] that makes `gsi` a kick of `id`.
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
        let fd = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map_err(|error| KvmKickError::ioctl("eventfd", error.into()))?;
        self.vm
            .borrow()
            .register_irqfd(&fd, gsi)
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
        let reached = self
            .vm
            .borrow()
            .signal_msi(msi)
            .map_err(|errno| KvmKickError::ioctl("KVM_SIGNAL_MSI", errno))?;
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

/// An irqfd: each [`KickFd::kick`] is one write, from any thread or process.
#[derive(Debug)]
pub struct KickFd(EventFd);

impl KickFd {
    /// Kicks the vCPU that the GSI is routed to.
    ///
    /// # Errors
    /// The write failed.
    pub fn kick(&self) -> std::io::Result<()> {
        self.0.write(1)
    }

    /// The descriptor, to hand it to someone else.
    pub const fn as_eventfd(&self) -> &EventFd {
        &self.0
    }
}

/// Why a kick could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvmKickError {
    /// No MSI can name this id: above 254 without
    /// [`KvmKick::with_32bit_ids`], or the broadcast.
    OutOfReach(ApicId),
    /// A system call failed.
    Ioctl {
        /// The system call.
        name: &'static str,
        /// How.
        errno: errno::Error,
    },
}

impl KvmKickError {
    const fn ioctl(name: &'static str, errno: errno::Error) -> Self {
        Self::Ioctl { name, errno }
    }
}

impl fmt::Display for KvmKickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach(id) => write!(f, "no MSI can name the APIC ID {id}"),
            Self::Ioctl { name, errno } => write!(f, "{name}: {errno}"),
        }
    }
}

impl core::error::Error for KvmKickError {}
