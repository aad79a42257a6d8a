//! The registers, as values that can be saved.

use serde::{Deserialize, Serialize};

use super::super::vectors::Vectors;
use super::lvt::{self, Table};
use super::registers::svr;
use super::timer::Timer;
use super::{Features, base};

/// All that a local APIC remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LapicState {
    /// IA32_APIC_BASE.
    pub(super) base: u64,
    pub(super) tpr: u8,
    /// xAPIC mode; an x2APIC derives it from its ID.
    pub(super) ldr: u32,
    pub(super) dfr: u32,
    pub(super) svr: u32,
    pub(super) isr: Vectors,
    pub(super) tmr: Vectors,
    pub(super) irr: Vectors,
    pub(super) errors: Errors,
    pub(super) icr: u64,
    pub(super) lvt: Table,
    pub(super) timer: Timer,
    /// Taken from the inbox and not yet reported.
    pub(super) nmi: bool,
    pub(super) init: bool,
    pub(super) sipi: Option<u8>,
    pub(super) waits_for_sipi: bool,
    /// The time of the save: the timer's deadline is in that clock.
    pub(super) saved_at: u64,
}

/// The error status register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Errors {
    /// Since the last write.
    pub(super) logged: u8,
    /// What a read gives: those before the last write.
    pub(super) shown: u8,
    /// There was an interrupt for them.
    pub(super) reported: bool,
}

/// A saved state that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the state of a local APIC: {register} is {value:#x}")]
pub struct InvalidState {
    /// Which register.
    pub register: &'static str,
    /// What it is.
    pub value: u64,
}

impl LapicState {
    pub(super) fn power_up(bsp: bool) -> Self {
        let bsp_bit = if bsp { base::BSP } else { 0 };
        Self {
            base: base::RESET_PAGE | base::ENABLED | bsp_bit,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: svr::VECTOR,
            isr: Vectors::EMPTY,
            tmr: Vectors::EMPTY,
            irr: Vectors::EMPTY,
            errors: Errors::default(),
            icr: 0,
            lvt: Table::default(),
            timer: Timer::default(),
            nmi: false,
            init: false,
            sipi: None,
            waits_for_sipi: !bsp,
            saved_at: 0,
        }
    }

    /// The registers as after a reset; what is about the processor stays.
    pub(super) fn reset(&mut self) {
        *self = Self {
            base: self.base,
            nmi: self.nmi,
            init: self.init,
            sipi: self.sipi,
            waits_for_sipi: self.waits_for_sipi,
            ..Self::power_up(false)
        };
    }

    /// INIT: as a reset; ID, base and mode stay. An x2APIC's LDR follows from
    /// its ID anyway.
    pub(super) fn init_reset(&mut self, bsp: bool) {
        self.reset();
        self.waits_for_sipi = !bsp;
    }

    /// xAPIC to x2APIC: all stays, but for what is another register there.
    pub(super) fn enter_x2apic(&mut self) {
        self.icr &= 0xffff_ffff;
        self.ldr = 0;
        self.dfr = u32::MAX;
    }

    pub(super) fn is_software_enabled(&self) -> bool {
        self.svr & svr::SOFTWARE_ENABLED != 0
    }

    pub(super) fn is_periodic(&self) -> bool {
        self.lvt.get(lvt::TIMER) & lvt::PERIODIC != 0
    }

    /// Processor priority: the greater class of the task's and of the interrupt
    /// in service.
    pub(super) fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service {
            self.tpr
        } else {
            in_service
        }
    }

    pub(super) fn check(&self, features: &Features) -> Result<(), InvalidState> {
        let invalid = |register, value| Err(InvalidState { register, value });
        let legal = base::change(base::RESET_PAGE | base::ENABLED, self.base, features);
        if legal.is_err() {
            return invalid("IA32_APIC_BASE", self.base);
        }
        if self.svr & !svr::WRITABLE != 0 {
            return invalid("SVR", self.svr.into());
        }
        if !self.lvt.is_valid() {
            return invalid("LVT", self.lvt.get(lvt::TIMER).into());
        }
        if !self.timer.is_valid() {
            return invalid("TDCR", self.timer.divide().into());
        }
        let exceptions: Vectors = (0..super::FIRST_VECTOR).collect();
        for (register, set) in [("IRR", self.irr), ("ISR", self.isr)] {
            if set.without(exceptions) != set {
                return invalid(register, set.register(0).into());
            }
        }
        Ok(())
    }
}
