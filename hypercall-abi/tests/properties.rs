//! What holds for every register, mode and result.

use std::collections::BTreeSet;

use hypercall_abi::{
    ClockPairing, ClockPairingData, Hypercall, HypercallNr, KickCpu, KvmErrno, MapGpaRange, MmuOp,
    Mode, RawHypercall, SchedYield, SendIpi, from_rax, to_rax,
};
use proptest::prelude::*;

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Bits64), Just(Mode::Bits32)]
}

/// Registers of every size, the interesting numbers and the edges often.
fn registers() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..16,
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        any::<u32>().prop_map(|low| 1 << 32 | u64::from(low)),
        (0_u64..0x1000).prop_map(|page| page << 12),
        (0_u64..64).prop_map(|bit| 1 << bit),
        (0_u64..16).prop_map(|below| u64::MAX - below),
        (0_u64..16).prop_map(|below| u64::from(u32::MAX) - below),
    ]
}

fn raws() -> impl Strategy<Value = RawHypercall> {
    let args = [registers(), registers(), registers(), registers()];
    (registers(), args, modes(), any::<u8>()).prop_map(|(nr, args, mode, cpl)| RawHypercall {
        nr,
        args,
        mode,
        cpl,
    })
}

/// A typed call with its fields as wide as the mode.
fn calls() -> impl Strategy<Value = (Hypercall, Mode)> {
    let args = [registers(), registers(), registers(), registers()];
    (0_u8..8, registers(), args, modes()).prop_map(|(kind, nr, args, mode)| {
        let [a0, a1, a2, a3] = args.map(|arg| mode.truncate(arg));
        let call = match kind {
            0 => Hypercall::VapicPollIrq,
            1 => Hypercall::MmuOp(MmuOp {
                args: [a0, a1, a2, a3],
            }),
            2 => Hypercall::KickCpu(KickCpu {
                flags: a0,
                apic_id: a1,
            }),
            3 => Hypercall::ClockPairing(ClockPairing {
                gpa: a0,
                clock_type: a1,
            }),
            4 => Hypercall::SendIpi(SendIpi {
                bitmap: [a0, a1],
                first_apic_id: a2,
                icr: a3,
                mode,
            }),
            5 => Hypercall::SchedYield(SchedYield { apic_id: a0 }),
            6 => Hypercall::MapGpaRange(MapGpaRange {
                gpa: a0,
                pages: a1,
                attributes: a2,
            }),
            _ => Hypercall::Unknown {
                // 13 and above, and what the header gives to others.
                nr: HypercallNr(mode.truncate(nr).max(13)),
                args: [a0, a1, a2, a3],
            },
        };
        (call, mode)
    })
}

/// `kvm_pv_send_ipi` in a straight reading, over a set of existing ids: words
/// of 64 bits, a 32-bit `min`, and a map that ends at its greatest id.
fn kvm_ipi_targets(call: &SendIpi, ids: &BTreeSet<u32>) -> BTreeSet<u32> {
    let (cluster, mask) = match call.mode {
        Mode::Bits64 => (64, u64::MAX),
        Mode::Bits32 => (32, u64::from(u32::MAX)),
    };
    let max = u64::from(ids.last().copied().unwrap_or(0));
    let mut found = BTreeSet::new();
    for (word, bits) in call.bitmap.iter().enumerate() {
        let word = if word == 0 { 0 } else { cluster };
        let min = (call.first_apic_id.wrapping_add(word)) % (1 << 32);
        for bit in (0..64).filter(|bit| bits & mask & (1 << bit) != 0) {
            let id = min + bit;
            found.extend(
                ids.iter()
                    .filter(|known| min <= max && id <= max && u64::from(**known) == id),
            );
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn decode_is_total_and_keeps_the_number(raw in raws()) {
        let call = raw.decode();
        prop_assert_eq!(call.nr().0, raw.mode.truncate(raw.nr));
        if let Hypercall::Unknown { args, .. } = call {
            prop_assert_eq!(args, raw.args.map(|arg| raw.mode.truncate(arg)));
        }
    }

    /// The upper halves of all registers are as good as absent.
    #[test]
    fn a_32_bit_call_has_no_upper_halves(mut raw in raws()) {
        raw.mode = Mode::Bits32;
        let low = RawHypercall {
            nr: raw.nr & 0xffff_ffff,
            args: raw.args.map(|arg| arg & 0xffff_ffff),
            ..raw
        };
        prop_assert_eq!(raw.decode(), low.decode());
    }

    #[test]
    fn encode_then_decode_is_the_identity((call, mode) in calls(), cpl in any::<u8>()) {
        let raw = call.encode(mode, cpl);
        prop_assert_eq!(raw.decode(), call);
        prop_assert_eq!((raw.mode, raw.cpl), (mode, cpl));
    }

    /// Decoding loses only what the call does not use.
    #[test]
    fn decode_then_encode_decodes_the_same(raw in raws()) {
        let call = raw.decode();
        prop_assert_eq!(call.encode(raw.mode, raw.cpl).decode(), call);
    }

    #[test]
    fn errors_round_trip(code in 1..=KvmErrno::MAX, mode in modes()) {
        let error = KvmErrno::new(code).unwrap();
        let rax = to_rax(Err(error), mode);
        prop_assert_eq!(from_rax(rax, mode), Err(error));
        let negative = -i64::from(code);
        match mode {
            Mode::Bits64 => prop_assert_eq!(rax.cast_signed(), negative),
            Mode::Bits32 => {
                prop_assert_eq!(rax >> 32, 0);
                prop_assert_eq!(i64::from(u32::try_from(rax).unwrap().cast_signed()), negative);
            }
        }
    }

    #[test]
    fn values_round_trip(value in registers(), mode in modes()) {
        let rax = to_rax(Ok(value), mode);
        prop_assert_eq!(rax, mode.truncate(value));
        // The values that errors take are not the handler's to return.
        let errors = match mode {
            Mode::Bits64 => u64::MAX - 4094,
            Mode::Bits32 => u64::from(u32::MAX) - 4094,
        };
        prop_assert_eq!(from_rax(rax, mode).is_err(), rax >= errors);
        if rax < errors {
            prop_assert_eq!(from_rax(rax, mode), Ok(rax));
        }
    }

    #[test]
    fn ipi_targets_are_kvms(
        bitmap in [registers(), registers()],
        first in registers(),
        icr in any::<u64>().prop_map(|icr| icr & !0xc_0800),
        mode in modes(),
        ids in prop::collection::btree_set(prop_oneof![0_u32..256, any::<u32>(), Just(u32::MAX)], 0..64),
    ) {
        let call = SendIpi { bitmap, first_apic_id: first, icr, mode };
        let ipi = call.check().unwrap();
        let ours: BTreeSet<u32> = ipi.targets().filter(|id| ids.contains(id)).collect();
        prop_assert_eq!(ours, kvm_ipi_targets(&call, &ids));
        let most = match mode {
            Mode::Bits64 => 128,
            Mode::Bits32 => 64,
        };
        prop_assert!(ipi.targets().count() <= most);
    }

    /// In 128 bits nothing wraps: the test is easy to believe there.
    #[test]
    fn map_gpa_range_is_checked_as_kvm_does(
        gpa in registers(), pages in registers(), attributes in registers(),
    ) {
        let aligned = gpa % 4096 == 0;
        let wraps = u128::from(gpa >> 12) + u128::from(pages) > u128::from(u64::MAX);
        let range = MapGpaRange { gpa, pages, attributes }.check();
        prop_assert_eq!(range.is_ok(), aligned && pages != 0 && !wraps);
        if let Ok(range) = range {
            let word = u64::from(range.page_size().0)
                | if range.encrypted() { MapGpaRange::ENCRYPTED } else { 0 }
                | range.reserved();
            prop_assert_eq!(word, attributes);
        }
    }

    #[test]
    fn clock_data_round_trips(sec: i64, nsec: i64, tsc: u64, flags: u32) {
        let data = ClockPairingData { sec, nsec, tsc, flags };
        prop_assert_eq!(ClockPairingData::from_bytes(&data.to_bytes()), data);
    }
}
