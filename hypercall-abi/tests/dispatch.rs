//! KVM's order of checks, and what a guest reads.

use cpuid_features::KvmFeatures;
use hypercall_abi::{
    Arch, ClockPairing, Enforcement, Gate, Hypercall, HypercallHandler, HypercallNr,
    HypercallResult, KVM_HC_KICK_CPU, KVM_HC_MAP_GPA_RANGE, KickCpu, KvmErrno, MapGpaRange, MmuOp,
    Mode, RawHypercall, SchedYield, SendIpi, TABLE, admit, dispatch, from_rax,
};

/// Serves everything, and says which call it was.
#[derive(Default)]
struct Recorder {
    seen: Option<Hypercall>,
}

impl Recorder {
    /// What it answers: a value that no refusal looks like.
    const SERVED: u64 = 0x5e_12_7e_d0;

    fn record(&mut self, call: Hypercall) -> HypercallResult {
        self.seen = Some(call);
        Ok(Self::SERVED)
    }
}

impl HypercallHandler for Recorder {
    fn vapic_poll_irq(&mut self) -> HypercallResult {
        self.record(Hypercall::VapicPollIrq)
    }
    fn mmu_op(&mut self, call: MmuOp) -> HypercallResult {
        self.record(Hypercall::MmuOp(call))
    }
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        self.record(Hypercall::KickCpu(call))
    }
    fn clock_pairing(&mut self, call: ClockPairing) -> HypercallResult {
        self.record(Hypercall::ClockPairing(call))
    }
    fn send_ipi(&mut self, call: SendIpi) -> HypercallResult {
        self.record(Hypercall::SendIpi(call))
    }
    fn sched_yield(&mut self, call: SchedYield) -> HypercallResult {
        self.record(Hypercall::SchedYield(call))
    }
    fn map_gpa_range(&mut self, call: MapGpaRange) -> HypercallResult {
        self.record(Hypercall::MapGpaRange(call))
    }
    fn unknown(&mut self, nr: HypercallNr, args: [u64; 4]) -> HypercallResult {
        self.record(Hypercall::Unknown { nr, args })
    }
}

/// Serves nothing beyond the defaults.
struct Nothing;
impl HypercallHandler for Nothing {}

const fn raw(nr: u64, args: [u64; 4], mode: Mode, cpl: u8) -> RawHypercall {
    RawHypercall {
        nr,
        args,
        mode,
        cpl,
    }
}

/// Negated, as `-KVM_EPERM` and `-KVM_ENOSYS` are in the guest's RAX. The
/// codes are compared with the kernel's header in `header.rs`.
const fn negated(code: i64, mode: Mode) -> u64 {
    mode.truncate(u64::from_ne_bytes(code.wrapping_neg().to_ne_bytes()))
}

/// What `guest_pv_has` guards in `arch/x86/kvm/x86.c`, by number and bit. The
/// bits are compared with the kernel's header by cpuid-features.
const GUARDED: [(u64, KvmFeatures); 3] = [
    (5, KvmFeatures::PV_UNHALT),
    (10, KvmFeatures::PV_SEND_IPI),
    (11, KvmFeatures::PV_SCHED_YIELD),
];

/// The five bits that have to do with a hypercall, in every combination,
/// alone and among all others; each number; each CPL; both modes.
#[test]
fn every_gate_at_every_cpl() {
    let bits = [
        KvmFeatures::MMU_OP,
        KvmFeatures::PV_UNHALT,
        KvmFeatures::PV_SEND_IPI,
        KvmFeatures::PV_SCHED_YIELD,
        KvmFeatures::HC_MAP_GPA_RANGE,
    ];
    let everything = KvmFeatures::from_bits_retain(u32::MAX);
    let others = everything.difference(bits.iter().copied().collect());
    let (mut served, mut refused, mut forbidden) = (0, 0, 0);
    for subset in 0..1_u32 << bits.len() {
        let shown: KvmFeatures = bits
            .iter()
            .enumerate()
            .filter(|(nth, _)| subset & (1 << nth) != 0)
            .map(|(_, bit)| *bit)
            .collect();
        for features in [
            Enforcement::NotEnforced,
            Enforcement::Enforced(shown),
            Enforcement::Enforced(shown.union(others)),
        ] {
            for nr in (0..=20).chain([63, 64, 1000, u64::from(u32::MAX)]) {
                for cpl in 0..=3 {
                    for mode in [Mode::Bits64, Mode::Bits32] {
                        let guard = GUARDED.iter().find(|(guarded, _)| *guarded == nr);
                        let open = match (features, guard) {
                            (Enforcement::Enforced(shown), Some((_, bit))) => shown.contains(*bit),
                            _ => true,
                        };
                        let expected = if cpl != 0 {
                            forbidden += 1;
                            negated(1, mode)
                        } else if open {
                            served += 1;
                            Recorder::SERVED
                        } else {
                            refused += 1;
                            negated(1000, mode)
                        };
                        let mut recorder = Recorder::default();
                        let call = raw(nr, [1, 2, 3, 4], mode, cpl);
                        let rax = dispatch(&call, features, &mut recorder);
                        assert_eq!(rax, expected, "{call:?} {features:?}");
                        // Served means seen, typed; refused means not seen.
                        let seen = (cpl == 0 && open).then(|| call.decode());
                        assert_eq!(recorder.seen, seen, "{call:?} {features:?}");
                    }
                }
            }
        }
    }
    println!("{served} served, {refused} without the feature, {forbidden} from CPL 1 to 3");
}

/// The table's gates are the ones the test above knows, and cpuid-features'
/// table says the same of each bit.
#[test]
fn gates_are_those_of_cpuid_features() {
    for row in TABLE.iter().filter(|row| row.arch == Arch::X86) {
        let guard = GUARDED.iter().find(|(nr, _)| *nr == row.nr);
        match (row.gate, guard) {
            (Gate::Enforced(bit), Some((_, guard))) => assert_eq!(bit, *guard, "{}", row.name),
            (Gate::Enforced(_), None) | (_, Some(_)) => panic!("{}: {:?}", row.name, row.gate),
            _ => {}
        }
    }
}

#[test]
fn privilege_comes_before_the_number() {
    for nr in [KVM_HC_KICK_CPU, 0, 99, u64::MAX] {
        for cpl in [1, 2, 3, 255] {
            let call = raw(nr, [0; 4], Mode::Bits64, cpl);
            assert_eq!(admit(&call, Enforcement::NotEnforced), Err(KvmErrno::EPERM));
            let rax = dispatch(&call, Enforcement::NotEnforced, &mut Recorder::default());
            assert_eq!(rax, u64::MAX);
        }
    }
}

/// The values were read in the RAX of a guest of kvm_amd (docs: an unknown
/// number gives -1000).
#[test]
fn unknown_numbers_read_as_minus_1000() {
    let call = |mode| raw(0x63, [0; 4], mode, 0);
    let answer = |mode| dispatch(&call(mode), Enforcement::NotEnforced, &mut Nothing);
    assert_eq!(answer(Mode::Bits64), 0xffff_ffff_ffff_fc18);
    assert_eq!(answer(Mode::Bits32), 0xffff_fc18);
}

/// KVM switches on all 64 bits of RAX in 64-bit mode, on 32 otherwise.
#[test]
fn the_number_is_as_wide_as_the_mode() {
    let high = 1 << 32 | KVM_HC_KICK_CPU;
    let decode = |mode| raw(high, [0; 4], mode, 0).decode();
    assert!(matches!(decode(Mode::Bits32), Hypercall::KickCpu(_)));
    assert!(matches!(decode(Mode::Bits64), Hypercall::Unknown { nr, .. } if nr.0 == high));
}

/// Upper halves do not carry a call past its gate.
#[test]
fn the_gate_is_of_the_truncated_number() {
    for (nr, bit) in GUARDED {
        let call = raw(1 << 32 | nr, [0; 4], Mode::Bits32, 0);
        let closed = Enforcement::Enforced(!bit);
        assert_eq!(admit(&call, closed), Err(KvmErrno::ENOSYS));
        assert_eq!(admit(&call, Enforcement::Enforced(bit)), Ok(call.decode()));
    }
}

/// 4095 is the last code (`MAX_ERRNO` of the kernel); -4096 is a value.
#[test]
fn errors_end_at_4095() {
    for mode in [Mode::Bits64, Mode::Bits32] {
        assert_eq!(
            from_rax(negated(4095, mode), mode),
            Err(KvmErrno::new(4095).unwrap())
        );
        assert_eq!(from_rax(negated(4096, mode), mode), Ok(negated(4096, mode)));
        assert_eq!(from_rax(negated(1, mode), mode), Err(KvmErrno::EPERM));
        assert_eq!(from_rax(0, mode), Ok(0));
    }
    // After a 32-bit call the upper half is nobody's.
    assert_eq!(from_rax(0xffff_ffff_0000_0000, Mode::Bits32), Ok(0));
}

/// Numbers that the header gives to PowerPC and MIPS are unknown on x86.
#[test]
fn other_architectures_numbers_are_unknown() {
    for nr in [3, 4, 6, 7, 8] {
        let call = raw(nr, [0; 4], Mode::Bits64, 0);
        assert!(matches!(call.decode(), Hypercall::Unknown { .. }), "{nr}");
        let rax = dispatch(&call, Enforcement::NotEnforced, &mut Nothing);
        assert_eq!(rax, negated(1000, Mode::Bits64));
    }
}

/// `kvm_pv_kick_cpu_op` takes an int, `kvm_sched_yield` an unsigned long.
#[test]
fn a_kick_is_32_bits_wide_and_its_yield_64() {
    let wide = 0x0000_0005_8765_4321;
    let call = raw(KVM_HC_KICK_CPU, [7, wide, 0, 0], Mode::Bits64, 0);
    let Hypercall::KickCpu(kick) = call.decode() else {
        panic!("{call:?}");
    };
    assert_eq!(
        (kick.destination(), kick.yield_target()),
        (0x8765_4321, wide)
    );
    let call = RawHypercall {
        mode: Mode::Bits32,
        ..call
    };
    let Hypercall::KickCpu(kick) = call.decode() else {
        panic!("{call:?}");
    };
    assert_eq!(
        (kick.destination(), kick.yield_target()),
        (0x8765_4321, 0x8765_4321)
    );
}

#[test]
fn only_wall_clocks_pair() {
    let pair = |clock_type| ClockPairing {
        gpa: 0x1000,
        clock_type,
    };
    assert_eq!(pair(0).check(), Ok(0x1000));
    assert_eq!(pair(1).check(), Err(KvmErrno::EOPNOTSUPP));
    assert_eq!(pair(u64::MAX).check(), Err(KvmErrno::EOPNOTSUPP));
}

/// The fields of an ICR of Linux: vector 0xfd fixed, an NMI, and the masks
/// that KVM refuses.
#[test]
fn the_icr_is_taken_apart() {
    let call = |icr| SendIpi {
        bitmap: [0b101, 1],
        first_apic_id: 8,
        icr,
        mode: Mode::Bits64,
    };
    let ipi = call(0xfd).check().unwrap();
    assert_eq!((ipi.vector(), ipi.delivery_mode()), (0xfd, 0));
    assert!(!ipi.asserted() && !ipi.level_triggered());
    assert_eq!(ipi.targets().collect::<Vec<_>>(), [8, 10, 72]);
    let nmi = call(0x4400).check().unwrap();
    assert_eq!((nmi.vector(), nmi.delivery_mode()), (0, 4));
    assert!(nmi.asserted());
    for refused in [0x800, 0x4_0000, 0x8_0000, 0xc_0800] {
        assert_eq!(call(refused | 0xfd).check(), Err(KvmErrno::EINVAL));
    }
    let narrow = SendIpi {
        mode: Mode::Bits32,
        ..call(0xfd)
    };
    let targets = narrow.check().unwrap().targets();
    assert_eq!(targets.collect::<Vec<_>>(), [8, 10, 40]);
}

/// Reserved attribute bits are the VMM's to judge: KVM passes them on.
#[test]
fn a_range_keeps_its_attributes() {
    let call = raw(
        KVM_HC_MAP_GPA_RANGE,
        [0x20_0000, 512, 0x31, 9],
        Mode::Bits64,
        0,
    );
    let Hypercall::MapGpaRange(call) = call.decode() else {
        panic!("{call:?}");
    };
    let range = call.check().unwrap();
    assert_eq!((range.gpa(), range.pages()), (0x20_0000, 512));
    assert_eq!(range.bytes(), Some(0x20_0000));
    assert!(range.encrypted());
    assert_eq!((range.page_size().0, range.reserved()), (1, 0x20));
}

/// A trait object will do.
#[test]
fn handlers_can_be_dyn() {
    let handler: &mut dyn HypercallHandler = &mut Nothing;
    let poll = raw(1, [0; 4], Mode::Bits64, 0);
    assert_eq!(dispatch(&poll, Enforcement::NotEnforced, handler), 0);
}

#[test]
fn debug_prints_the_kernels_name() {
    assert_eq!(format!("{:?}", HypercallNr::KICK_CPU), "KVM_HC_KICK_CPU");
    assert_eq!(format!("{:?}", HypercallNr(99)), "HypercallNr(0x63)");
    assert_eq!(format!("{:?}", KvmErrno::ENOSYS), "KVM_ENOSYS");
    assert_eq!(
        KvmErrno::ENOSYS.to_string(),
        "hypercall failed: -KVM_ENOSYS (-1000)"
    );
    assert_eq!(
        KvmErrno::new(11).unwrap().to_string(),
        "hypercall failed: -11"
    );
    assert_eq!(KvmErrno::new(0), None);
    assert_eq!(KvmErrno::new(4096), None);
}
