//! Hypercalls of any architecture with any number and registers, read by the
//! table: what a row says of its inputs is what comes out.
//!
//! The input is fixed fields, little-endian: architecture (u8), number (u64), six
//! registers (u64 each). What is missing reads as 0.

#![no_main]

mod input;

use hypercall_abi::{Arch, Mode, Place, RawHypercall, Request, Width};
use input::take;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let [arch] = take(&mut input);
    let arch = Arch::ALL[usize::from(arch) % Arch::ALL.len()];
    let number = u64::from_le_bytes(take(&mut input));
    let args = [(); 6].map(|()| u64::from_le_bytes(take(&mut input)));
    let request = Request::decode(arch, number, args);
    assert_eq!((request.arch, request.args), (arch, args));

    let Some(row) = request.row() else {
        // An unknown call has no inputs.
        assert!(
            request
                .registers()
                .iter()
                .all(|&one| request.input(one).is_none())
        );
        return;
    };
    assert_eq!((row.arch, row.nr), (arch, request.nr));
    match arch {
        // include/uapi/asm-generic/kvm_para.h and epapr_hcalls.h: KVM's are 42 << 16.
        Arch::PowerPc => assert_eq!(number, row.nr | 42 << 16),
        Arch::Arm64 => assert_eq!(number & 0xffff_ffff, row.nr),
        _ => assert_eq!(number, row.nr),
    }
    for field in row.inputs {
        let Place::In(register) = field.place else {
            continue;
        };
        let at = request.registers().iter().position(|&one| one == register);
        let value = at.and_then(|at| args.get(at)).copied();
        let expected = match field.width {
            Width::Bits32 => value.map(|value| value & 0xffff_ffff),
            _ => value,
        };
        assert_eq!(request.input(register), expected, "{}", row.name);
    }
    if arch == Arch::X86 {
        let raw = RawHypercall {
            nr: number,
            args: [args[0], args[1], args[2], args[3]],
            mode: Mode::Bits64,
            cpl: 0,
        };
        assert_eq!(raw.decode().nr().name(), Some(row.name));
    }
});
