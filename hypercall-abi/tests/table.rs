//! Decode, dispatch and the typed calls against the table: its registers,
//! widths, gates and answers are what the code does.

use cpuid_features::{FEATURES, FeatureRow, KvmFeatures, LOONGARCH_FEATURES, POWERPC_FEATURES};
use hypercall_abi::{
    Answer, Arch, Enforcement, Gate, Hypercall, HypercallHandler, HypercallNr, HypercallResult,
    KvmErrno, MapGpaRange, Mode, Place, RawHypercall, Register, Request, Row, Server, Status,
    TABLE, Width, dispatch, from_rax,
};

fn x86() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| row.arch == Arch::X86)
}

/// Which argument a register is on x86; no register that is none has an index.
fn argument(register: Register) -> usize {
    let arguments = Arch::X86.convention().arguments;
    (arguments.iter())
        .position(|given| *given == register)
        .unwrap_or(usize::MAX)
}

/// Four arguments that differ in every half.
const ARGS: [u64; 4] = [
    0x1111_0001_2222_0002,
    0x3333_0003_4444_0004,
    0x5555_0005_6666_0006,
    0x7777_0007_8888_0008,
];

fn raw(row: &Row, args: [u64; 4], mode: Mode) -> RawHypercall {
    RawHypercall {
        nr: row.number_register(),
        args,
        mode,
        cpl: 0,
    }
}

/// A row's inputs are in the convention's registers, in order, each once.
#[test]
fn inputs_are_in_the_conventions_registers() {
    for row in TABLE {
        let convention = row.arch.convention();
        let mut last = None;
        for input in row.inputs {
            let Place::In(register) = input.place else {
                assert!(matches!(input.place, Place::Named(_)), "{}", row.name);
                assert_eq!(row.arch, Arch::S390);
                continue;
            };
            // LoongArch's user service passes the number's register too, and
            // s390's subcode is one.
            let known = convention.arguments.contains(&register) || register == convention.number;
            assert!(known, "{}: {register}", row.name);
            assert!(last < Some(register), "{}: {register}", row.name);
            last = Some(register);
        }
    }
}

/// The registers that a row declares survive decode and encode, and no other
/// does: `KVM_HC_MMU_OP`, whose arguments nobody reads, keeps all four.
#[test]
fn decode_takes_the_inputs_and_nothing_else() {
    for row in x86() {
        for mode in [Mode::Bits64, Mode::Bits32] {
            let call = raw(row, ARGS, mode).decode();
            assert_eq!(call.nr(), HypercallNr(row.nr));
            assert!(!matches!(call, Hypercall::Unknown { .. }), "{}", row.name);
            if row.status == Status::Deprecated {
                continue;
            }
            let back = call.encode(mode, 0).args;
            let mut expected = [0; 4];
            for input in row.inputs {
                if let Place::In(register) = input.place {
                    let nth = argument(register);
                    expected[nth] = mode.truncate(ARGS[nth]);
                }
            }
            assert_eq!(back, expected, "{} {mode:?}", row.name);
        }
    }
}

/// What the callee makes of a call: everything that a handler could read.
fn meaning(call: &Hypercall) -> String {
    match call {
        Hypercall::SendIpi(call) => match call.check() {
            Ok(ipi) => format!(
                "{} {} {} {} {:?}",
                ipi.vector(),
                ipi.delivery_mode(),
                ipi.asserted(),
                ipi.level_triggered(),
                ipi.targets().collect::<Vec<u32>>()
            ),
            Err(errno) => errno.to_string(),
        },
        Hypercall::KickCpu(call) => format!("{} {}", call.destination(), call.yield_target()),
        Hypercall::SchedYield(call) => format!("{}", call.yield_target()),
        Hypercall::ClockPairing(call) => format!("{:?} {}", call.check(), call.gpa),
        Hypercall::MapGpaRange(call) => format!("{:?} {}", call.check(), call.attributes),
        other => format!("{other:?}"),
    }
}

/// A bit counts if it is within the declared width, and only then.
#[test]
fn widths_are_what_counts() {
    for row in x86().filter(|row| row.status == Status::Active) {
        for mode in [Mode::Bits64, Mode::Bits32] {
            // Valid arguments, so that no check hides a difference.
            let args = match row.nr {
                10 => [1, 1, 3, 0xfd],
                12 => [0x1000, 1, 0x10, 0],
                _ => [0; 4],
            };
            let plain = meaning(&raw(row, args, mode).decode());
            for input in row.inputs {
                let Place::In(register) = input.place else {
                    panic!("{}: x86 has its inputs in registers", row.name);
                };
                for bit in [0, 7, 31, 32, 40, 63] {
                    let mut changed = args;
                    changed[argument(register)] ^= 1 << bit;
                    let differs = meaning(&raw(row, changed, mode).decode()) != plain;
                    let counts = match input.width {
                        Width::Mode => bit < 32 || mode == Mode::Bits64,
                        Width::Bits64 => true,
                        // An ICR's reserved bits change nothing.
                        Width::Bits32 => {
                            bit < 32 && (register != Register::Rsi || bit == 7 || bit == 0)
                        }
                        Width::Ignored => false,
                        _ => panic!("{}: {:?} is no register's", row.name, input.width),
                    };
                    assert_eq!(
                        differs, counts,
                        "{} {register} bit {bit} {mode:?}",
                        row.name
                    );
                }
            }
        }
    }
}

/// Answers all calls as it is told.
struct Answers(HypercallResult);

impl HypercallHandler for Answers {
    fn vapic_poll_irq(&mut self) -> HypercallResult {
        self.0
    }
    fn kick_cpu(&mut self, _: hypercall_abi::KickCpu) -> HypercallResult {
        self.0
    }
    fn send_ipi(&mut self, _: hypercall_abi::SendIpi) -> HypercallResult {
        self.0
    }
    fn sched_yield(&mut self, _: hypercall_abi::SchedYield) -> HypercallResult {
        self.0
    }
    fn clock_pairing(&mut self, _: hypercall_abi::ClockPairing) -> HypercallResult {
        self.0
    }
    fn map_gpa_range(&mut self, _: MapGpaRange) -> HypercallResult {
        self.0
    }
    fn mmu_op(&mut self, _: hypercall_abi::MmuOp) -> HypercallResult {
        self.0
    }
}

/// A handler that has nothing but the defaults.
struct Nothing;
impl HypercallHandler for Nothing {}

fn has(row: &Row, value: Answer) -> bool {
    row.returns.iter().any(|answer| answer.value == value)
}

/// dispatch refuses what the row's gate refuses, with an answer that the row
/// has.
#[test]
fn dispatch_keeps_the_gates() {
    for row in x86() {
        for mode in [Mode::Bits64, Mode::Bits32] {
            let call = raw(row, [0; 4], mode);
            let answer = |features| from_rax(dispatch(&call, features, &mut Answers(Ok(7))), mode);
            for bit in KvmFeatures::all().singles() {
                let without = Enforcement::Enforced(KvmFeatures::all() - bit);
                let refused = row.gate == Gate::Enforced(bit);
                let expected = if refused {
                    Err(KvmErrno::ENOSYS)
                } else {
                    Ok(7)
                };
                assert_eq!(answer(without), expected, "{} without {bit}", row.name);
            }
            assert_eq!(answer(Enforcement::NotEnforced), Ok(7));
            if matches!(row.gate, Gate::Enforced(_)) {
                assert!(has(row, Answer::Error(KvmErrno::ENOSYS)), "{}", row.name);
            }
            for cpl in 1..=3 {
                let rax = dispatch(
                    &RawHypercall { cpl, ..call },
                    Enforcement::NotEnforced,
                    &mut Answers(Ok(7)),
                );
                assert_eq!(from_rax(rax, mode), Err(KvmErrno::EPERM));
                assert!(has(row, Answer::Error(KvmErrno::EPERM)), "{}", row.name);
            }
        }
    }
}

/// What the calls' own checks and the handler's defaults answer is in the row.
#[test]
fn answers_are_the_rows() {
    for row in x86() {
        let call = raw(row, [0; 4], Mode::Bits64);
        let default = dispatch(&call, Enforcement::NotEnforced, &mut Nothing);
        let listed = match from_rax(default, Mode::Bits64) {
            Ok(value) => has(row, Answer::Value(value)),
            Err(errno) => {
                // Of a KVM that lacks the call altogether.
                errno == KvmErrno::ENOSYS || has(row, Answer::Error(errno))
            }
        };
        assert!(listed, "{}", row.name);
        for args in [[0, 0, 0, 0x800], [1, 1, 1, 1], [u64::MAX; 4]] {
            let checked = match raw(row, args, Mode::Bits64).decode() {
                Hypercall::SendIpi(call) => call.check().map(|_| ()),
                Hypercall::ClockPairing(call) => call.check().map(|_| ()),
                Hypercall::MapGpaRange(call) => call.check().map(|_| ()),
                _ => Ok(()),
            };
            if let Err(errno) = checked {
                assert!(has(row, Answer::Error(errno)), "{}: {errno}", row.name);
            }
        }
    }
}

/// Every hypercall that a feature's row names has that feature for its gate,
/// and every gate's feature names the call.
#[test]
fn features_and_gates_name_each_other() {
    let spaces: [(Arch, &[FeatureRow]); 3] = [
        (Arch::X86, FEATURES),
        (Arch::LoongArch, LOONGARCH_FEATURES),
        (Arch::PowerPc, POWERPC_FEATURES),
    ];
    let mut named = 0;
    for (arch, rows) in spaces {
        for feature in rows {
            for name in feature.hypercalls {
                let row = TABLE
                    .iter()
                    .find(|row| row.arch == arch && row.name == *name)
                    .unwrap_or_else(|| panic!("{name} has no row"));
                let gate = match row.gate {
                    Gate::Enforced(bit) | Gate::Advertised(bit, _) => bit.row(),
                    Gate::Word(word) => Some(word),
                    _ => None,
                };
                assert_eq!(gate, Some(feature), "{name}");
                named += 1;
            }
        }
    }
    let gated = TABLE
        .iter()
        .filter(|row| {
            matches!(
                row.gate,
                Gate::Enforced(_) | Gate::Advertised(..) | Gate::Word(_)
            )
        })
        .count();
    assert_eq!(named, gated);
}

/// arm64's function number is the low half of its function id, and the bit of
/// its gate.
#[test]
fn arm64_gates_are_function_numbers() {
    for row in TABLE.iter().filter(|row| row.arch == Arch::Arm64) {
        if let Gate::Function(number) = row.gate {
            assert_eq!(row.nr & 0xffff, number.into(), "{}", row.name);
        }
    }
}

/// A call that nobody serves has an answer all the same, and a call that some
/// kernel serves has a source in it.
#[test]
fn status_and_server_agree() {
    for row in TABLE {
        let served = row.server != Server::Nobody;
        assert_eq!(row.status == Status::Active, served, "{}", row.name);
        assert!(!row.returns.is_empty(), "{}", row.name);
        assert!(!row.since.source().is_empty(), "{}", row.name);
    }
}

/// Every row decodes on its own architecture, and gives its inputs by register.
#[test]
fn every_architecture_decodes_by_the_table() {
    let args = [0x1_0000_0001, 0x1_0000_0002, 0x1_0000_0003, 4, 5, 6];
    for row in TABLE {
        let request = Request::decode(row.arch, row.number_register(), args);
        assert_eq!(request.row(), Some(row), "{}", row.name);
        for input in row.inputs {
            let Place::In(register) = input.place else {
                continue;
            };
            let nth = (request.registers().iter())
                .position(|one| *one == register)
                .unwrap();
            let expected = match input.width {
                Width::Bits32 => args[nth] & 0xffff_ffff,
                _ => args[nth],
            };
            assert_eq!(
                request.input(register),
                Some(expected),
                "{} {register}",
                row.name
            );
        }
    }
    // No input there, no such call, and a number of another vendor's.
    let kick = Request::decode(Arch::X86, 5, args);
    assert_eq!(kick.input(Register::Rdx), None);
    assert_eq!(kick.input(Register::X0), None);
    let unknown = Request::decode(Arch::Mips, 5, args);
    assert_eq!((unknown.row(), unknown.input(Register::A0)), (None, None));
    for number in [3, 0x2b_0003, 0x1_002a_0003] {
        assert_eq!(Request::decode(Arch::PowerPc, number, args).row(), None);
    }
    // The upper half of an arm64 register is no part of the function id.
    let ptp = Request::decode(Arch::Arm64, 0xffff_ffff_8600_0001, args);
    assert!(ptp.row().is_some());
}
