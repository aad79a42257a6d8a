//! Writing and verifying over tables of VMMs that have no
//! `kvm_bindings::CpuId`: a map by leaf and sub-leaf, and a list with little
//! room.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use std::collections::HashMap;
use std::convert::Infallible;

use cpuid_features::{
    CpuidReader, CpuidRegs, CpuidTable, Dump, KvmFeatures, KvmHints, KvmLeaf, Negotiated, Profile,
    Selection, VmmSupport, WriteError, hide, negotiate, verify, write, write_at,
};

const HOST: &str = include_str!("dumps/kvm-pvm-6.18.supported");
const HYPERV_ONLY: &str = include_str!("dumps/synthetic-hyperv-only.cpuid");
const MAX_LEAF_HIGH: &str = include_str!("dumps/synthetic-max-leaf-0x40000010.cpuid");

/// As a VMM keeps it: by leaf and sub-leaf.
#[derive(Clone, Debug, Default, PartialEq)]
struct Map(HashMap<(u32, u32), CpuidRegs>);

impl Map {
    fn new(dump: &str) -> Self {
        let entries = Dump::new(dump).entries();
        Self(
            entries
                .map(|entry| ((entry.leaf, entry.subleaf), entry.regs))
                .collect(),
        )
    }
}

impl CpuidReader for Map {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        self.0.get(&(leaf, 0)).copied()
    }
}

impl CpuidTable for Map {
    type Error = Infallible;

    fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Infallible> {
        self.0.insert((leaf, 0), regs);
        Ok(())
    }

    fn remove_leaf(&mut self, leaf: u32) {
        self.0.retain(|&(at, _), _| at != leaf);
    }
}

/// A list with room for so many leaves.
#[derive(Clone, Debug, PartialEq)]
struct List {
    leaves: Vec<(u32, CpuidRegs)>,
    room: usize,
}

#[derive(Debug, PartialEq)]
struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the list is full")
    }
}

impl CpuidReader for List {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        self.leaves
            .iter()
            .find(|(at, _)| *at == leaf)
            .map(|(_, regs)| *regs)
    }
}

impl CpuidTable for List {
    type Error = Full;

    fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Full> {
        if let Some(there) = self.leaves.iter_mut().find(|(at, _)| *at == leaf) {
            there.1 = regs;
        } else if self.leaves.len() < self.room {
            self.leaves.push((leaf, regs));
        } else {
            return Err(Full);
        }
        Ok(())
    }

    fn remove_leaf(&mut self, leaf: u32) {
        self.leaves.retain(|(at, _)| *at != leaf);
    }
}

fn negotiated() -> Negotiated {
    let want: Selection = "+realtime".parse().unwrap();
    let host = KvmFeatures::CLOCKSOURCE2 | KvmFeatures::STEAL_TIME;
    negotiate(host, &VmmSupport::default(), &want).unwrap()
}

fn expected(base: u32, max_leaf: u32) -> KvmLeaf {
    let mut leaf = KvmLeaf::read(&Map::new(HOST)).unwrap();
    leaf.base = base;
    leaf.max_leaf = max_leaf;
    leaf.features = KvmFeatures::CLOCKSOURCE2 | KvmFeatures::STEAL_TIME;
    leaf.hints = KvmHints::REALTIME;
    leaf
}

#[test]
fn a_map_is_written_and_verified() {
    for (dump, base, max_leaf) in [
        (HOST, 0x4000_0000, 0x4000_0001),
        (HYPERV_ONLY, 0x4000_0100, 0x4000_0101),
        (MAX_LEAF_HIGH, 0x4000_0000, 0x4000_0010),
        ("", 0x4000_0000, 0x4000_0001),
    ] {
        let mut table = Map::new(dump);
        write(&mut table, &negotiated()).unwrap();
        assert_eq!(KvmLeaf::read(&table), Some(expected(base, max_leaf)));
        assert!(verify(&negotiated(), &table).is_exact());
    }
}

/// As a VMM does that puts Hyper-V's leaves in front.
#[test]
fn a_base_is_given() {
    let mut table = Map::new(MAX_LEAF_HIGH);
    let others = table
        .0
        .keys()
        .filter(|(leaf, _)| *leaf < 0x4000_0000)
        .count();
    write_at(&mut table, 0x4000_0200, &negotiated()).unwrap();
    assert_eq!(
        KvmLeaf::read(&table),
        Some(expected(0x4000_0200, 0x4000_0210))
    );
    assert!(!table.has_leaves(0x4000_0000));
    assert_eq!(
        table
            .0
            .keys()
            .filter(|(leaf, _)| *leaf < 0x4000_0000)
            .count(),
        others
    );

    let mut table = Map::new(HYPERV_ONLY);
    let before = table.clone();
    for base in [0x4000_0001, 0x4001_0000, 0, 0x3fff_ff00] {
        let error = write_at(&mut table, base, &negotiated()).unwrap_err();
        assert_eq!(error, WriteError::NotABase(base));
    }
    let error = write_at(&mut table, 0x4000_0000, &negotiated()).unwrap_err();
    assert_eq!(error, WriteError::Occupied(0x4000_0000));
    assert_eq!(table, before);
}

/// What a guest of this host loses; the rest of the table stays.
#[test]
fn kvm_is_hidden() {
    let mut table = Map::new(HOST);
    let shown = KvmLeaf::read(&table);
    let mut rest = table.clone();
    rest.0.retain(|(leaf, _), _| leaf >> 8 != 0x40_0000);
    rest.0.get_mut(&(1, 0)).unwrap().ecx = 0x0120_2000; // bit 31 is gone
    let hidden = hide(&mut table).unwrap();
    assert_eq!((hidden.leaf, hidden.bare), (shown, true));
    assert_eq!(table, rest);
    // 0x01007efb has 14 bits.
    assert_eq!(hidden.lost().count(), 14);
    assert!(
        hidden
            .to_string()
            .starts_with("lost: clocksource (kvmclock")
    );
    // Once more: there is nothing to lose.
    let again = hide(&mut table).unwrap();
    assert_eq!((again.leaf, again.bare), (None, true));
    assert_eq!(
        again.to_string(),
        "nothing is lost: no feature of KVM's was shown"
    );
    assert_eq!(table, rest);
}

/// Hyper-V's leaves stay, and with them the bit that says that there is a
/// hypervisor.
#[test]
fn kvm_is_hidden_behind_hyperv() {
    let before = Map::new(HYPERV_ONLY);
    let mut table = before.clone();
    write_at(&mut table, 0x4000_0100, &negotiated()).unwrap();
    let hidden = hide(&mut table).unwrap();
    assert_eq!(hidden.leaf.map(|leaf| leaf.base), Some(0x4000_0100));
    assert!(!hidden.bare);
    assert_eq!(table, before);
}

/// Linux's arch/x86/kvm for TDX serves one of KVM's MSRs, and QEMU's list for a TD
/// is this: what is left of all that a host reports.
#[test]
fn profiles_leave_out_what_their_guests_cannot_use() {
    let left = |profile: Profile| {
        (profile.exclusions().iter()).fold(KvmFeatures::all(), |left, one| left - one.features)
    };
    let msrs = left(Profile::Tdx).singles().filter_map(KvmFeatures::row);
    let msrs: Vec<u32> = msrs.flat_map(|row| row.msrs).map(|msr| msr.index).collect();
    assert_eq!(msrs, [0x4b56_4d05]);
    assert!(left(Profile::SevSnp).contains(KvmFeatures::STEAL_TIME | KvmFeatures::PV_EOI));
    assert!(!left(Profile::SevSnp).intersects(KvmFeatures::ASYNC_PF));
    assert_eq!(Profile::ALL.map(Profile::name), ["sev-snp", "tdx"]);
}

/// Whatever leaf the list has no room for, it is as it was.
#[test]
fn a_full_list_stays_as_it_was() {
    let leaves: Vec<_> = (Dump::new(HOST).entries())
        .filter(|entry| entry.subleaf == 0)
        .map(|entry| (entry.leaf, entry.regs))
        .collect();
    let features_gone: Vec<_> = (leaves.iter().copied())
        .filter(|(leaf, _)| *leaf != 0x4000_0001)
        .collect();
    let kvm_gone: Vec<_> = (leaves.iter().copied())
        .filter(|(leaf, _)| !(0x4000_0000..0x4000_0100).contains(leaf))
        .collect();
    for (leaves, missing) in [(leaves, 0), (features_gone, 1), (kvm_gone, 2)] {
        for base in [None, Some(0x4000_0100)] {
            for short in 0..=missing {
                let mut list = List {
                    room: leaves.len() + missing - short,
                    leaves: leaves.clone(),
                };
                let before = list.clone();
                let written = match base {
                    Some(base) => write_at(&mut list, base, &negotiated()),
                    None => write(&mut list, &negotiated()),
                };
                if short == 0 {
                    written.unwrap();
                    assert!(verify(&negotiated(), &list).is_exact());
                } else {
                    let error = written.unwrap_err();
                    assert_eq!(error, WriteError::Table(Full));
                    assert_eq!(error.to_string(), "the list is full");
                    list.leaves.sort_by_key(|(leaf, _)| *leaf);
                    let mut before = before;
                    before.leaves.sort_by_key(|(leaf, _)| *leaf);
                    assert_eq!(list, before, "{base:?} {missing} {short}");
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn registers_of_the_standard_library() {
    use std::arch::x86_64::CpuidResult;
    let regs = CpuidRegs {
        eax: 1,
        ebx: 2,
        ecx: 3,
        edx: 4,
    };
    let there = CpuidResult::from(regs);
    assert_eq!((there.eax, there.ebx, there.ecx, there.edx), (1, 2, 3, 4));
    assert_eq!(CpuidRegs::from(there), regs);
}
