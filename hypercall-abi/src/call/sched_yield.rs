/// `KVM_HC_SCHED_YIELD`: give this vCPU's time to the one of that APIC ID, if
/// that one is ready to run and does not (`kvm_sched_yield` in
/// `arch/x86/kvm/x86.c`). KVM answers 0 in any case.
///
/// ```
/// use hypercall_abi::SchedYield;
///
/// assert_eq!(SchedYield::new(3).yield_target(), 3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchedYield {
    /// a0: the register that holds the destination's APIC ID.
    pub apic_id: u64,
}

impl SchedYield {
    /// A yield to that vCPU.
    #[inline]
    #[must_use]
    pub const fn new(apic_id: u32) -> Self {
        Self {
            apic_id: apic_id as u64,
        }
    }

    /// The APIC ID to yield to: all of a0. With a bit above 31 set there is
    /// no such vCPU.
    #[inline]
    #[must_use]
    pub const fn yield_target(&self) -> u64 {
        self.apic_id
    }
}
