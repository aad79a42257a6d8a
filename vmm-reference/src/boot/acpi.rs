//! ACPI tables: how a guest learns of its processors, of the I/O APIC, of
//! COM1, and how to turn itself off.
//!
//! | table | says |
//! |---|---|
//! | RSDP, XSDT | where the others are |
//! | FADT | power management ports, reset by the keyboard controller |
//! | FACS | nothing; full ACPI hardware has one |
//! | DSDT | `\_S5` (off) and COM1 |
//! | MADT | a local APIC for each vCPU, the I/O APIC |

use acpi_tables::{Aml, aml, facs::FACS, fadt, gas, madt, rsdp::Rsdp, sdt::Sdt, xsdt::XSDT};
use vm_memory::{Bytes as _, GuestAddress};

use super::BootError;
use super::reset_vector::RESET_VECTOR;
use crate::devices::{i8042, pm, serial};
use crate::memory::GuestMemory;
use crate::memory::ram::ACPI_START;

const OEM_ID: [u8; 6] = *b"KVM-PV";
const OEM_TABLE_ID: [u8; 8] = *b"VMM-REF ";
const OEM_REVISION: u32 = 1;
/// As KVM's in-kernel chips have them.
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
/// MADT flag: the PC's two 8259 are there too.
const PCAT_COMPAT: u32 = 1;
/// Length of a table's header, then address and flags of a MADT.
const SDT_HEADER: u32 = 36;
/// FADT IAPC_BOOT_ARCH: legacy devices (COM1) are there, no 8042, no VGA, no
/// CMOS clock.
const LEGACY_DEVICES: u16 = 1 << 0;
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// An APIC ID from here on has no room in a local APIC entry.
const FIRST_X2APIC_ID: u32 = 255;

/// Which hardware the tables tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// A PC's: 8259 and 8254 beside the APICs, a power management timer.
    Full,
    /// APICs and nothing else that interrupts or counts: a guest does not look for
    /// the older parts then.
    Reduced,
}

/// The tables, each with its GPA.
#[derive(Debug)]
pub struct Tables {
    parts: Vec<(u64, Vec<u8>)>,
    end: u64,
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

impl Tables {
    /// Tables for vCPUs with these APIC IDs.
    pub fn new(apic_ids: &[u32], hardware: Hardware) -> Self {
        let mut tables = Self {
            parts: Vec::new(),
            // The RSDP, which is written last, comes first: a guest looks for
            // it from here on.
            end: ACPI_START + 0x40,
        };
        let fadt = match hardware {
            Hardware::Full => {
                let facs = tables.add(bytes(&FACS::new()));
                let dsdt = tables.add(dsdt());
                fadt(dsdt, facs)
            }
            Hardware::Reduced => {
                let dsdt = tables.add(dsdt());
                reduced_fadt(dsdt)
            }
        };
        let fadt = tables.add(fadt);
        let madt = tables.add(madt(apic_ids, hardware));
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        xsdt.add_entry(fadt);
        xsdt.add_entry(madt);
        let xsdt = tables.add(bytes(&xsdt));
        let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
        tables.parts.push((ACPI_START, rsdp));
        tables
    }

    fn add(&mut self, table: Vec<u8>) -> u64 {
        // A FACS lies on a 64-byte boundary; no other table minds.
        let gpa = self.end.next_multiple_of(64);
        self.end = gpa + table.len() as u64;
        self.parts.push((gpa, table));
        gpa
    }

    /// GPA of the RSDP.
    pub fn root(&self) -> u64 {
        ACPI_START
    }

    /// Where all of them lie.
    pub fn range(&self) -> std::ops::Range<u64> {
        ACPI_START..self.end
    }

    /// Each table with its GPA; the RSDP is the last.
    pub fn parts(&self) -> &[(u64, Vec<u8>)] {
        &self.parts
    }

    /// Puts them into guest memory.
    pub fn write(&self, memory: &GuestMemory) -> Result<(), BootError> {
        if self.end > RESET_VECTOR {
            return Err(BootError::AcpiSize(self.end - ACPI_START));
        }
        for (gpa, table) in &self.parts {
            memory.write_slice(table, GuestAddress(*gpa))?;
        }
        Ok(())
    }
}

fn sdt(signature: [u8; 4], revision: u8, content: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(
        signature,
        SDT_HEADER,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(content);
    table.as_slice().to_vec()
}

fn dsdt() -> Vec<u8> {
    let mut content = Vec::new();
    // SLP_TYPa, SLP_TYPb, two reserved.
    let off = aml::Package::new(vec![
        &pm::SLEEP_TYPE_OFF,
        &aml::ZERO,
        &aml::ZERO,
        &aml::ZERO,
    ]);
    aml::Name::new("_S5_".into(), &off).to_aml_bytes(&mut content);
    // PNP0501: a 16550A-compatible serial port.
    let uart = aml::EISAName::new("PNP0501");
    let ports = aml::IO::new(serial::COM1, serial::COM1, 1, serial::PORTS);
    // Consumer, edge, active high, not shared.
    let interrupt = aml::Interrupt::new(true, true, false, false, serial::COM1_GSI);
    let resources = aml::ResourceTemplate::new(vec![&ports, &interrupt]);
    let names = [
        aml::Name::new("_HID".into(), &uart),
        aml::Name::new("_UID".into(), &aml::ZERO),
        aml::Name::new("_CRS".into(), &resources),
    ];
    let children = names.iter().map(|name| name as &dyn Aml).collect();
    aml::Device::new("_SB_.COM1".into(), children).to_aml_bytes(&mut content);
    sdt(*b"DSDT", 2, &content)
}

fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    let mut fadt = fadt::FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(fadt::Flags::Wbinvd)
        .flag(fadt::Flags::ProcC1)
        .flag(fadt::Flags::PwrButton)
        .flag(fadt::Flags::SlpButton)
        .flag(fadt::Flags::FixRtc)
        .flag(fadt::Flags::TmrValExt)
        .flag(fadt::Flags::ResetRegSup);
    // Below 4 GiB, and only one of the two fields may be set.
    fadt.firmware_ctrl = u32::try_from(facs).unwrap_or_default().into();
    fadt.sci_int = pm::SCI_GSI.into();
    // No SMI command: the machine is in ACPI mode from the start.
    fadt.pm1a_evt_blk = u32::from(pm::EVENT).into();
    fadt.pm1_evt_len = pm::EVENT_LEN;
    fadt.pm1a_cnt_blk = u32::from(pm::CONTROL).into();
    fadt.pm1_cnt_len = pm::CONTROL_LEN;
    fadt.pm_tmr_blk = u32::from(pm::TIMER).into();
    fadt.pm_tmr_len = pm::TIMER_LEN;
    let io = |port: u16, bits, size| {
        gas::GAS::new(gas::AddressSpace::SystemIo, bits, 0, size, u64::from(port))
    };
    fadt.x_pm1a_evt_blk = io(pm::EVENT, 8 * pm::EVENT_LEN, gas::AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(
        pm::CONTROL,
        8 * pm::CONTROL_LEN,
        gas::AccessSize::WordAccess,
    );
    fadt.x_pm_tmr_blk = io(pm::TIMER, 8 * pm::TIMER_LEN, gas::AccessSize::DwordAccess);
    // C2 and C3 are not there.
    fadt.p_lvl2_lat = 0xffff.into();
    fadt.p_lvl3_lat = 0xffff.into();
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = io(i8042::COMMAND, 8, gas::AccessSize::ByteAccess);
    fadt.reset_value = i8042::RESET;
    bytes(&fadt.finalize())
}

/// As [`fadt`], for hardware-reduced ACPI: sleep and reset registers.
fn reduced_fadt(dsdt: u64) -> Vec<u8> {
    let mut fadt = fadt::FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(fadt::Flags::HwReducedAcpi)
        .flag(fadt::Flags::Wbinvd)
        .flag(fadt::Flags::ProcC1)
        .flag(fadt::Flags::PwrButton)
        .flag(fadt::Flags::SlpButton)
        .flag(fadt::Flags::ResetRegSup);
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = byte_port(i8042::COMMAND);
    fadt.reset_value = i8042::RESET;
    fadt.sleep_control_reg = byte_port(pm::SLEEP_CONTROL);
    fadt.sleep_status_reg = byte_port(pm::SLEEP_STATUS);
    bytes(&fadt.finalize())
}

fn byte_port(port: u16) -> gas::GAS {
    gas::GAS::new(
        gas::AddressSpace::SystemIo,
        8,
        0,
        gas::AccessSize::ByteAccess,
        u64::from(port),
    )
}

fn madt(apic_ids: &[u32], hardware: Hardware) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    let flags = match hardware {
        Hardware::Full => PCAT_COMPAT,
        Hardware::Reduced => 0,
    };
    content.extend_from_slice(&flags.to_le_bytes());
    for (uid, &id) in (0u32..).zip(apic_ids) {
        match (u8::try_from(uid), u8::try_from(id)) {
            (Ok(uid), Ok(id)) if u32::from(id) < FIRST_X2APIC_ID => {
                let enabled = madt::EnabledStatus::Enabled;
                content.extend(bytes(&madt::ProcessorLocalApic::new(uid, id, enabled)));
            }
            _ => content.extend_from_slice(&local_x2apic(uid, id)),
        }
    }
    let id = u8::try_from(apic_ids.len()).unwrap_or(0);
    content.extend(bytes(&madt::IoApic::new(id, IO_APIC, 0)));
    sdt(*b"APIC", 5, &content)
}

/// Processor Local x2APIC structure (ACPI 6.5, 5.2.12.12), which acpi_tables
/// does not have.
fn local_x2apic(uid: u32, id: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    let enabled = 1u32;
    let fields = [0x1009_u32, id, enabled, uid];
    for (to, field) in entry.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    // Type 9, length 16, two reserved: the first field, as one word.
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ram::RamLayout;

    fn table(tables: &Tables, signature: [u8; 4]) -> &[u8] {
        tables
            .parts()
            .iter()
            .map(|(_, t)| t.as_slice())
            .find(|t| t.starts_with(&signature))
            .unwrap()
    }

    #[test]
    fn every_table_sums_to_zero() {
        for n in [1, 2, 64, 254, 255, 256, 1000] {
            let ids: Vec<u32> = (0..n).collect();
            let tables = Tables::new(&ids, Hardware::Full);
            for (gpa, t) in tables.parts() {
                // A FACS has no checksum.
                if t.starts_with(b"FACS") {
                    assert_eq!(gpa % 64, 0);
                    continue;
                }
                let sum = t.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
                assert_eq!(sum, 0, "{:?}", t.get(..8));
            }
        }
    }

    /// ACPI 6.5, 5.2.12: walks the entries as a guest does.
    fn processors(madt: &[u8]) -> Vec<u32> {
        let mut rest = &madt[44..];
        let mut ids = Vec::new();
        while let [kind, len, body @ ..] = rest {
            match kind {
                0 => ids.push(u32::from(body[1])),
                1 => assert_eq!(*len, 12),
                9 => ids.push(u32::from_le_bytes(body[2..6].try_into().unwrap())),
                other => panic!("entry of type {other}"),
            }
            rest = &rest[usize::from(*len)..];
        }
        ids
    }

    #[test]
    fn each_vcpu_has_its_entry() {
        for n in [1u32, 4, 64, 255, 300] {
            let ids: Vec<u32> = (0..n).collect();
            assert_eq!(
                processors(table(&Tables::new(&ids, Hardware::Full), *b"APIC")),
                ids
            );
        }
    }

    #[test]
    fn too_many_processors_are_an_error_not_an_overlap() {
        let memory = RamLayout::new(4 << 20).allocate().unwrap();
        let ids: Vec<u32> = (0..4096).collect();
        Tables::new(&ids, Hardware::Full).write(&memory).unwrap();
        let ids: Vec<u32> = (0..9000).collect();
        let error = Tables::new(&ids, Hardware::Full)
            .write(&memory)
            .unwrap_err();
        assert!(matches!(error, BootError::AcpiSize(_)), "{error}");
    }
}
