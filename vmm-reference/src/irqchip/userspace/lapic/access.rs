//! Reads and writes of registers, by the page and by MSRs.

use super::registers::{self as reg, esr, svr};
use super::state::LapicState;
use super::{Effect, GeneralProtection, Lapic, Mode, icr, lvt, timer};
use crate::irqchip::userspace::bus::x2apic_logical_id;
use crate::irqchip::userspace::message::{Delivery, Destination};

/// The register does not exist, or not in this direction.
struct NoSuchRegister;

impl Lapic {
    /// Reads `data.len()` bytes at `offset` of the page, in xAPIC mode. What is
    /// no register reads as 0 and is an error in the ESR; so does an access that
    /// is not within the first four of a register's sixteen bytes.
    pub fn read_page(&mut self, offset: u64, data: &mut [u8], now: u64) {
        self.sync(now);
        data.fill(0);
        let value = match self.read(reg_at(offset), false, now) {
            Ok(value) => value,
            Err(NoSuchRegister) => {
                self.error(esr::ILLEGAL_REGISTER);
                0
            }
        };
        let skip = usize::try_from(offset % reg::STRIDE).unwrap_or(usize::MAX);
        let bytes = value.to_le_bytes();
        let bytes = bytes.iter().take(4).skip(skip);
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    /// Writes `data` at `offset` of the page, in xAPIC mode. Registers are
    /// written whole, by 32 bits at a multiple of 16; anything else is ignored.
    pub fn write_page(&mut self, offset: u64, data: &[u8], now: u64) -> Option<Effect> {
        self.sync(now);
        let &[a, b, c, d] = data else {
            return None;
        };
        if !offset.is_multiple_of(reg::STRIDE) {
            return None;
        }
        let (register, value) = (reg_at(offset), u32::from_le_bytes([a, b, c, d]));
        match register {
            // Read-only.
            reg::ID | reg::VERSION | reg::PPR | reg::CURRENT_COUNT | reg::APR | reg::RRD => None,
            reg::ISR..=reg::IRR_LAST => None,
            reg::LDR => {
                self.state.ldr = value & 0xff00_0000;
                self.publish();
                None
            }
            reg::DFR => {
                // Bits 27:0 are ones.
                self.state.dfr = value | 0x0fff_ffff;
                self.publish();
                None
            }
            reg::ICR_HIGH => {
                let low = self.state.icr & 0xffff_ffff;
                self.state.icr = icr::kept(u64::from(value) << 32 | low, false);
                None
            }
            reg::ICR => {
                let high = self.state.icr & !0xffff_ffff;
                self.command(high | u64::from(value), false)
            }
            reg::SELF_IPI => {
                self.error(esr::ILLEGAL_REGISTER);
                None
            }
            _ => self
                .write(register, value, now)
                .unwrap_or_else(|NoSuchRegister| {
                    self.error(esr::ILLEGAL_REGISTER);
                    None
                }),
        }
    }

    /// Reads the MSR `index`, of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// It is not in x2APIC mode, or there is no such register, or it can't be
    /// read.
    pub fn read_msr(&mut self, index: u32, now: u64) -> Result<u64, GeneralProtection> {
        let register = self.x2apic_register(index)?;
        self.sync(now);
        let value = self.read(register, true, now);
        value.map_err(|NoSuchRegister| GeneralProtection)
    }

    /// Writes the MSR `index`, of 0x800 to 0x8ff.
    ///
    /// # Errors
    /// It is not in x2APIC mode, or there is no such register, or it can't be
    /// written, or `value` has a reserved bit.
    pub fn write_msr(
        &mut self,
        index: u32,
        value: u64,
        now: u64,
    ) -> Result<Option<Effect>, GeneralProtection> {
        let register = self.x2apic_register(index)?;
        self.sync(now);
        if register == reg::ICR {
            return match icr::is_reserved(value) {
                true => Err(GeneralProtection),
                false => Ok(self.command(value, true)),
            };
        }
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        let legal = match register {
            reg::TPR | reg::SELF_IPI => value & !0xff == 0,
            reg::EOI | reg::ESR => value == 0,
            reg::SVR => value & !svr::WRITABLE == 0,
            reg::DIVIDE => value & !timer::DIVIDE_WRITABLE == 0,
            reg::LVT..=reg::LVT_LAST => {
                lvt::Table::index(register).is_some_and(|i| !lvt::Table::is_reserved(i, value))
            }
            reg::INITIAL_COUNT => true,
            _ => false,
        };
        match legal {
            true => self
                .write(register, value, now)
                .map_err(|NoSuchRegister| GeneralProtection),
            false => Err(GeneralProtection),
        }
    }

    fn x2apic_register(&self, index: u32) -> Result<u32, GeneralProtection> {
        let register = index.checked_sub(reg::MSR_BASE);
        let register = register.filter(|&register| register < reg::MSR_COUNT);
        match self.mode() {
            Mode::X2Apic => register.ok_or(GeneralProtection),
            Mode::Disabled | Mode::XApic => Err(GeneralProtection),
        }
    }

    fn read(&self, register: u32, x2apic: bool, now: u64) -> Result<u64, NoSuchRegister> {
        let state = &self.state;
        let value = match register {
            reg::ID if x2apic => self.id(),
            reg::ID => self.id() << 24,
            reg::VERSION => reg::VERSION_VALUE,
            reg::TPR => state.tpr.into(),
            reg::PPR => state.ppr().into(),
            reg::LDR if x2apic => x2apic_logical_id(self.id()),
            reg::LDR => state.ldr,
            reg::SVR => state.svr,
            reg::ISR..=reg::ISR_LAST => state.isr.register(register - reg::ISR),
            reg::TMR..=reg::TMR_LAST => state.tmr.register(register - reg::TMR),
            reg::IRR..=reg::IRR_LAST => state.irr.register(register - reg::IRR),
            reg::ESR => state.errors.shown.into(),
            reg::ICR if x2apic => return Ok(state.icr),
            reg::ICR => return Ok(state.icr & 0xffff_ffff),
            reg::LVT..=reg::LVT_LAST => {
                lvt::Table::index(register).map_or(0, |index| state.lvt.get(index))
            }
            reg::INITIAL_COUNT => state.timer.initial(),
            reg::CURRENT_COUNT => state.timer.current(now),
            reg::DIVIDE => state.timer.divide(),
            reg::DFR if !x2apic => state.dfr,
            reg::ICR_HIGH if !x2apic => return Ok(state.icr >> 32),
            // Write-only, or of no meaning any more.
            reg::APR | reg::RRD | reg::EOI if !x2apic => 0,
            _ => return Err(NoSuchRegister),
        };
        Ok(value.into())
    }

    /// A write of what both modes have. Reserved bits are dropped.
    fn write(
        &mut self,
        register: u32,
        value: u32,
        now: u64,
    ) -> Result<Option<Effect>, NoSuchRegister> {
        let [low, ..] = value.to_le_bytes();
        let state = &mut self.state;
        match register {
            reg::TPR => state.tpr = low,
            reg::EOI => return Ok(self.eoi()),
            reg::SVR => {
                write_svr(state, value);
                self.publish();
            }
            reg::ESR => {
                state.errors.shown = std::mem::take(&mut state.errors.logged);
                state.errors.reported = false;
            }
            reg::LVT..=reg::LVT_LAST => write_lvt(state, register, value),
            reg::INITIAL_COUNT => {
                let periodic = state.is_periodic();
                state.timer.start(value, periodic, now);
            }
            reg::DIVIDE => state.timer.set_divide(value, now),
            reg::SELF_IPI => self.request(low),
            _ => return Err(NoSuchRegister),
        }
        Ok(None)
    }

    /// A write to the interrupt command register.
    fn command(&mut self, value: u64, x2apic: bool) -> Option<Effect> {
        self.state.icr = icr::kept(value, x2apic);
        match icr::command(value, x2apic) {
            icr::Command::Nothing => None,
            icr::Command::IllegalVector => {
                self.error(esr::SEND_ILLEGAL_VECTOR);
                None
            }
            icr::Command::Send(message) => {
                let vectored =
                    matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority);
                if vectored && message.destination == Destination::Itself {
                    self.request(message.vector);
                    return None;
                }
                Some(Effect::Send(message))
            }
        }
    }
}

/// Which register is at this offset of the page.
fn reg_at(offset: u64) -> u32 {
    u32::try_from(offset / reg::STRIDE).unwrap_or(u32::MAX)
}

fn write_svr(state: &mut LapicState, value: u32) {
    state.svr = value & svr::WRITABLE;
    if !state.is_software_enabled() {
        // Requests and what is in service stay.
        state.lvt.mask_all();
    }
}

fn write_lvt(state: &mut LapicState, register: u32, value: u32) {
    let forced = match state.is_software_enabled() {
        true => 0,
        false => lvt::MASKED,
    };
    if let Some(index) = lvt::Table::index(register) {
        state.lvt.set(index, value | forced);
    }
}
