//! Registers of any content: decoded, dispatched, answered and read back.
//!
//! The input is fixed fields, little-endian: number, four arguments, the
//! handler's answer (u64 each), the guest's features (u32), the handler's
//! error (u16, 0 for none), flags (u8: bit 0 64-bit mode, bit 1 features
//! enforced), CPL (u8). What is missing reads as 0.

#![no_main]

mod input;

use cpuid_features::KvmFeatures;
use hypercall_abi::{
    ClockPairing, Enforcement, HypercallHandler, HypercallNr, HypercallResult, KickCpu, KvmErrno,
    MapGpaRange, MmuOp, Mode, RawHypercall, SchedYield, SendIpi, admit, dispatch, from_rax,
};
use input::take;
use libfuzzer_sys::fuzz_target;

/// Takes every call apart as a VMM would, and answers what it is told.
struct Handler {
    answer: HypercallResult,
    calls: u32,
}

impl Handler {
    fn answer(&mut self) -> HypercallResult {
        self.calls += 1;
        self.answer
    }
}

impl HypercallHandler for Handler {
    fn vapic_poll_irq(&mut self) -> HypercallResult {
        self.answer()
    }

    fn mmu_op(&mut self, _: MmuOp) -> HypercallResult {
        self.answer()
    }

    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        assert_eq!(
            u64::from(call.destination()),
            call.yield_target() & 0xffff_ffff
        );
        self.answer()
    }

    fn clock_pairing(&mut self, call: ClockPairing) -> HypercallResult {
        assert_eq!(call.check().is_ok(), call.clock_type == 0);
        self.answer()
    }

    fn send_ipi(&mut self, call: SendIpi) -> HypercallResult {
        match call.check() {
            Ok(ipi) => {
                let targets = ipi.targets().count();
                let bits = call.bitmap[0].count_ones() + call.bitmap[1].count_ones();
                assert!(targets <= bits as usize);
                assert!(ipi.delivery_mode() < 8);
            }
            Err(errno) => assert_eq!(errno, KvmErrno::EINVAL),
        }
        self.answer()
    }

    fn sched_yield(&mut self, call: SchedYield) -> HypercallResult {
        assert_eq!(call.yield_target(), call.apic_id);
        self.answer()
    }

    fn map_gpa_range(&mut self, call: MapGpaRange) -> HypercallResult {
        match call.check() {
            Ok(range) => {
                assert!(range.pages() > 0 && range.gpa().is_multiple_of(4096));
                assert!((range.gpa() / 4096).checked_add(range.pages()).is_some());
            }
            Err(errno) => assert_eq!(errno, KvmErrno::EINVAL),
        }
        self.answer()
    }

    fn unknown(&mut self, nr: HypercallNr, _: [u64; 4]) -> HypercallResult {
        assert!(!format!("{nr:?} {nr}").contains('\n'));
        self.answer()
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let nr = u64::from_le_bytes(take(&mut input));
    let args = [(); 4].map(|()| u64::from_le_bytes(take(&mut input)));
    let value = u64::from_le_bytes(take(&mut input));
    let features = KvmFeatures::from_bits_retain(u32::from_le_bytes(take(&mut input)));
    let error = u16::from_le_bytes(take(&mut input));
    let [flags, cpl] = take(&mut input);
    let mode = Mode::from_longmode(flags.into());
    let enforcement = if flags & 2 == 0 {
        Enforcement::NotEnforced
    } else {
        Enforcement::Enforced(features)
    };
    let raw = RawHypercall {
        nr,
        args,
        mode,
        cpl,
    };

    let call = raw.decode();
    assert_eq!(call.nr().0, mode.truncate(nr));
    assert_eq!(call.encode(mode, cpl).decode(), call);

    // What KVM guards, by number.
    let bit = match mode.truncate(nr) {
        5 => KvmFeatures::PV_UNHALT,
        10 => KvmFeatures::PV_SEND_IPI,
        11 => KvmFeatures::PV_SCHED_YIELD,
        _ => KvmFeatures::empty(),
    };
    let open = flags & 2 == 0 || features.contains(bit);

    let answer = KvmErrno::new(error).map_or(Ok(value), Err);
    let mut handler = Handler { answer, calls: 0 };
    let rax = dispatch(&raw, enforcement, &mut handler);
    assert!(mode == Mode::Bits64 || rax >> 32 == 0);
    match admit(&raw, enforcement) {
        Ok(admitted) => {
            assert_eq!((admitted, cpl, handler.calls), (call, 0, 1));
            assert!(open);
            match answer {
                Err(errno) => assert_eq!(from_rax(rax, mode), Err(errno)),
                Ok(value) => assert_eq!(rax, mode.truncate(value)),
            }
        }
        Err(errno) => {
            assert_eq!(handler.calls, 0);
            assert_eq!(from_rax(rax, mode), Err(errno));
            if cpl == 0 {
                assert_eq!(errno, KvmErrno::ENOSYS);
                assert!(!open);
            } else {
                assert_eq!(errno, KvmErrno::EPERM);
            }
        }
    }
});
