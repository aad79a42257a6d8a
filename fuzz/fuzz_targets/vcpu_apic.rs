//! What a guest does to its local APIC by its vCPU's exits: any MSR, any load and store
//! outside memory, HLT, in any order, on two vCPUs of one VM; with PV_EOI, steal time
//! and the test device's lines. Against a vCPU that holds the delivery of interrupts to
//! KVM's rules.
//!
//! Twelve bytes an operation: kind and which of the two, a register (u16), eight of
//! value, what the guest did to its IF and CR8.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pv_lock_host::{ApicId, HaltScheduler};
use vmm_reference::backend::{BackendError, ExitRequest, Interruptible, PrivateIo as _};
use vmm_reference::devices::test_device::GsiLines as _;
use vmm_reference::interrupts::{Controllers, Readiness, VcpuApic, WhileHalted};
use vmm_reference::irqchip::userspace::Features;
use vmm_reference::kicks::Kicks;
use vmm_reference::memory::{self, GuestMemory};
use vmm_reference::signals;
use vmm_reference::threads::VcpuThreads;

const IDS: [ApicId; 2] = [ApicId(0), ApicId(1)];
const PV_EOI: u32 = 0x4b56_4d04;
const STEAL_TIME: u32 = 0x4b56_4d03;
/// Bytes of guest memory.
const BYTES: u64 = 0x1_0000;

/// A vCPU of KVM, as far as interrupts matter.
#[derive(Debug, Default)]
struct Kvm {
    enabled: bool,
    queued: bool,
    cr8: u8,
    waits: bool,
}

impl Interruptible for Kvm {
    fn interrupts_enabled(&mut self) -> bool {
        self.enabled
    }

    fn accepts_interrupt(&mut self) -> bool {
        self.enabled && !self.queued
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError> {
        assert!(self.enabled && !self.queued, "the one before is lost");
        assert!(vector >= 16, "an exception's vector");
        assert!(vector >> 4 > self.cr8, "below the task priority");
        self.queued = true;
        Ok(())
    }

    fn want_window(&mut self, _wanted: bool) {}

    fn nmi(&mut self) -> Result<(), BackendError> {
        assert!(!self.waits, "before its SIPI");
        Ok(())
    }

    fn cr8(&mut self) -> u8 {
        self.cr8
    }

    fn set_cr8(&mut self, cr8: u8) {
        assert!(cr8 <= 15, "KVM_RUN would fail");
        self.cr8 = cr8;
    }

    fn init(&mut self) -> Result<(), BackendError> {
        *self = Self {
            waits: true,
            ..Self::default()
        };
        Ok(())
    }

    fn startup(&mut self, _page: u8) -> Result<(), BackendError> {
        assert!(self.waits, "a SIPI that nobody waits for");
        self.waits = false;
        Ok(())
    }

    fn set_run_states(&mut self, at: Option<u64>) -> Result<(), BackendError> {
        // KVM's record has 48 bytes.
        assert!(
            at.is_none_or(|at| at % 64 == 16 && at + 48 <= BYTES),
            "{at:x?}"
        );
        Ok(())
    }

    fn set_running(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A timer's signal needs a handler, and PV_EOI memory; once.
static MEMORY: LazyLock<Arc<GuestMemory>> = LazyLock::new(|| {
    signals::install().expect("handlers");
    Arc::new(memory::allocate(&[(0, BYTES)]).expect("64 KiB"))
});

fuzz_target!(|operations: &[u8]| {
    let memory = &*MEMORY;
    let (scheduler, _parkers) = HaltScheduler::new(&IDS).expect("two IDs");
    let threads = VcpuThreads::new(IDS.map(|_| Arc::new(ExitRequest::polled())));
    let kicks = Kicks::new(scheduler.kicker(), None);
    let shared = Controllers::new(&IDS, kicks, threads).expect("two IDs");
    let shared = Arc::new(shared);
    let mut vcpus = IDS.map(|id| {
        let apic = VcpuApic::new(Arc::clone(&shared), id, Features::default(), Arc::default());
        let apic = apic.expect("one each").with_pv_eoi(Arc::clone(memory));
        let apic = apic.with_steal_time(Arc::clone(memory));
        let kvm = Kvm {
            waits: apic.waits_for_sipi(),
            ..Kvm::default()
        };
        (apic, kvm)
    });
    for operation in operations.chunks_exact(12) {
        let [kind, low, high, a, b, c, d, e, f, g, h, guest] = *operation else {
            return;
        };
        let register = u16::from_le_bytes([low, high]);
        let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let Some((apic, kvm)) = vcpus.get_mut(usize::from(kind >> 7)) else {
            return;
        };
        // Before each run; and what the guest did in it.
        match apic.before_run(kvm).expect("KVM refuses nothing") {
            Readiness::Run => assert!(!apic.waits_for_sipi()),
            Readiness::Wait => assert!(apic.waits_for_sipi()),
            Readiness::Reset => return,
        }
        if apic.waits_for_sipi() {
            if matches!(apic.while_halted(kvm), Ok(WhileHalted::Wake)) {
                assert!(!apic.waits_for_sipi());
            }
            continue;
        }
        kvm.queued &= guest & 1 == 0;
        kvm.enabled = guest & 2 != 0;
        if guest & 4 != 0 {
            kvm.cr8 = guest >> 4;
        }
        let any = u32::from(register) | (u32::from(a) << 16);
        match kind & 7 {
            0 => drop(apic.msr_read(0x800 + u32::from(register & 0x1ff))),
            1 => drop(apic.msr_write(0x800 + u32::from(register & 0x1ff), value)),
            2 => {
                // IA32_APIC_BASE, legal more often than not.
                let keep = if kind & 8 == 0 { 0xfff_fd00 } else { u64::MAX };
                let _ = apic.msr_write(0x1b, value & keep);
            }
            3 => {
                // With a byte or a record in memory, or anything.
                let (msr, keep) = match kind >> 3 & 3 {
                    0 => (PV_EOI, 0xfffd),
                    1 => (STEAL_TIME, 0xffc1),
                    2 => (PV_EOI, u64::MAX),
                    _ => (STEAL_TIME, u64::MAX),
                };
                if apic.msr_write(msr, value & keep) {
                    assert_eq!(apic.msr_read(msr), Some(value & keep));
                }
            }
            // Others are nobody's.
            4 if matches!(any, 0x1b | PV_EOI | STEAL_TIME | 0x800..=0x8ff) => {}
            4 => assert!(apic.msr_read(any).is_none() && !apic.msr_write(any, value)),
            5 => {
                let bytes = value.to_le_bytes();
                let size = 1 + usize::from(kind >> 3 & 7);
                let page =
                    [0xfee0_0000, 0xfec0_0000, value & 0xffff_f000, 0][usize::from(high & 3)];
                let gpa = page + u64::from(register & 0xfff);
                let _ = apic.mmio_write(gpa, &bytes[..size]);
                let mut data = [0xee; 8];
                let _ = apic.mmio_read(gpa, &mut data[..size]);
            }
            6 => shared.set(u32::from(low & 31), high & 1 != 0),
            _ => match apic.while_halted(kvm).expect("KVM refuses nothing") {
                WhileHalted::Sleep(until) => assert!(kvm.enabled || until.is_none()),
                WhileHalted::Wake => {}
                WhileHalted::Reset => return,
            },
        }
    }
});
