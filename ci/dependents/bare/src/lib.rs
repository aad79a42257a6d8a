//! A hypervisor without std: a table of its own with room for eight leaves, and
//! a confidential guest's features in it.
#![no_std]

use cpuid_features::{
    CpuidReader, CpuidRegs, CpuidTable, HaltService, KickService, KvmFeatures, Profile, VmmSupport,
    WriteError, offer, verify, write_at,
};
use hypercall_abi::{Hypercall, KvmErrno, Mode, RawHypercall, to_rax};

/// The table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table([Option<(u32, CpuidRegs)>; 8]);

/// No leaf is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl CpuidReader for Table {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        let mut leaves = self.0.iter().flatten();
        leaves.find(|(at, _)| *at == leaf).map(|(_, regs)| *regs)
    }
}

impl CpuidTable for Table {
    type Error = Full;

    fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Full> {
        let place = (self.0.iter())
            .position(|one| one.is_some_and(|(at, _)| at == leaf))
            .or_else(|| self.0.iter().position(Option::is_none));
        let place = place.and_then(|at| self.0.get_mut(at)).ok_or(Full)?;
        *place = Some((leaf, regs));
        Ok(())
    }

    fn remove_leaf(&mut self, leaf: u32) {
        for one in &mut self.0 {
            if one.is_some_and(|(at, _)| at == leaf) {
                *one = None;
            }
        }
    }
}

// ANCHOR: profile
/// Shows a TD what it can use, behind Hyper-V's leaves.
///
/// # Errors
/// The table is full.
pub fn show(table: &mut Table, host: KvmFeatures) -> Result<bool, WriteError<Full>> {
    let vmm = VmmSupport {
        halts: HaltService::Kernel,
        kicks: KickService::Kernel,
        hlt_exits: true,
        excludes: Profile::Tdx.exclusions(),
        ..VmmSupport::default()
    };
    let offered = offer(host, &vmm);
    write_at(table, 0x4000_0100, &offered)?;
    Ok(verify(&offered, table).is_exact())
}
// ANCHOR_END: profile

/// Serves conversions of pages and nothing else.
pub fn serve(call: &RawHypercall, convert: impl FnOnce(u64, u64, bool) -> bool) -> u64 {
    let result = match call.decode() {
        Hypercall::MapGpaRange(call) => call.check().and_then(|range| {
            let done = convert(range.gpa(), range.pages(), range.encrypted());
            if done { Ok(0) } else { Err(KvmErrno::EINVAL) }
        }),
        _ => Err(KvmErrno::ENOSYS),
    };
    to_rax(result, Mode::Bits64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_td_is_shown_what_it_can_use() {
        let mut table = Table::default();
        assert_eq!(
            show(&mut table, KvmFeatures::from_bits_retain(0x0100_7efb)),
            Ok(true)
        );
        let features = table.leaf(0x4000_0101).map(|regs| regs.eax);
        assert_eq!(features, Some(1 << 1 | 1 << 7 | 1 << 11 | 1 << 12));
    }

    #[test]
    fn pages_are_converted() {
        let call = RawHypercall {
            nr: 12,
            args: [0x1000, 2, 0x10, 0],
            mode: Mode::Bits64,
            cpl: 0,
        };
        assert_eq!(
            serve(&call, |gpa, pages, private| (gpa, pages, private)
                == (0x1000, 2, true)),
            0
        );
        let misaligned = RawHypercall {
            args: [1, 1, 0, 0],
            ..call
        };
        assert_eq!(serve(&misaligned, |_, _, _| true), (-22_i64) as u64);
    }
}
