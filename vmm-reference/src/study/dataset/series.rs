//! How a vCPU waits for its lock, who halts it, and how it is kicked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a vCPU waits for its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiter {
    /// In the order of arrival, busy for ever.
    Ticket,
    /// Whoever is first when the lock is free: unfair.
    TestAndSet,
    /// In the order of arrival, but a waiter that is due and does not take the
    /// lock in time is overtaken.
    Preemptable,
    /// In the order of arrival; halts past a threshold, and is kicked.
    PvTicket,
    /// A queue of waiters, each on a cache line of its own (MCS); halts past a
    /// threshold, and is kicked.
    PvQueue,
    /// As a Linux kernel does that sees a hypervisor but no PV_UNHALT: whoever is
    /// first when the lock is free (test-and-set; virt_spin_lock in
    /// arch/x86/include/asm/qspinlock.h).
    LinuxNative,
    /// As a Linux kernel does on hardware, and with `nopvspin`: a queue that spins.
    LinuxQueue,
    /// As a Linux kernel does that sees PV_UNHALT: a queue, and halts.
    LinuxPv,
}

/// Who puts a waiter to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Halts {
    /// Nobody: the waiter spins.
    Never,
    /// This process: HLT exits to it, and the vCPU's thread sleeps in pv-lock-host.
    Userspace,
    /// KVM: HLT does not leave the kernel.
    Kernel,
}

/// How a kick's hypercall leaves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// There is none: the waiter spins.
    None,
    /// The doorbell port, to this process.
    Port,
    /// A hypercall instruction that KVM's Xen intercept brings to this process.
    Xen,
    /// A hypercall instruction that KVM serves.
    Kvm,
    /// A call within this process: the hosted backend.
    Hosted,
}

/// A line of a figure: everything but the load and the number of vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// How a vCPU waits.
    pub waiter: Waiter,
    /// Who puts it to sleep.
    pub halts: Halts,
    /// How its kick leaves the guest.
    pub transport: Transport,
}

impl Series {
    /// It halts and is kicked.
    pub const fn is_pv(self) -> bool {
        matches!(
            self.waiter,
            Waiter::PvTicket | Waiter::PvQueue | Waiter::LinuxPv
        )
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.waiter {
            Waiter::Ticket => "ticket, spins",
            Waiter::TestAndSet => "test-and-set, spins",
            Waiter::Preemptable => "preemptable ticket, spins",
            Waiter::PvTicket => "PV ticket",
            Waiter::PvQueue => "PV queue",
            Waiter::LinuxNative => "Linux without PV_UNHALT (test-and-set)",
            Waiter::LinuxQueue => "Linux with nopvspin (a queue that spins)",
            Waiter::LinuxPv => "Linux with PV locks",
        })?;
        f.write_str(match self.halts {
            Halts::Never => "",
            Halts::Userspace => ", halts here",
            Halts::Kernel => ", halts in KVM",
        })?;
        f.write_str(match self.transport {
            Transport::None | Transport::Hosted => "",
            Transport::Port => ", kicks by port",
            Transport::Xen => ", kicks by Xen intercept",
            Transport::Kvm => ", kicks in KVM",
        })
    }
}
