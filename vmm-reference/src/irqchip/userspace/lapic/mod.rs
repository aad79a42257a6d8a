//! A local APIC: the half that its vCPU's thread owns.

mod access;
mod base;
mod icr;
mod lvt;
mod registers;
mod state;
mod timer;

use std::sync::Arc;

pub use base::Mode;
pub use registers::Register;
pub use state::{InvalidState, LapicState};
pub use timer::{MIN_PERIOD_NS, TIMER_HZ};

use super::FIRST_VECTOR;
use super::inbox::{Address, Inbox};
use super::message::Message;
use base::Change;
use registers::{esr, svr};
use state::Errors;

/// What follows from an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// For [`ApicBus::send`](super::ApicBus::send), from this APIC's ID.
    Send(Message),
    /// For [`IoApic::eoi`](super::IoApic::eoi): a level-triggered interrupt with
    /// this vector is over.
    Eoi(u8),
}

/// The access is refused: the guest gets #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a general protection fault for the guest")]
pub struct GeneralProtection;

/// What the guest's CPUID promises of its APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Leaf 1, ECX bit 21.
    pub x2apic: bool,
    /// Leaf 0x80000008, EAX bits 7:0: the page can be moved below that.
    pub physical_address_bits: u8,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            x2apic: true,
            physical_address_bits: 36,
        }
    }
}

/// What a vCPU has to do before it runs on, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// INIT: the processor's registers are reset. This APIC has been.
    pub init: bool,
    /// A SIPI: real mode, at this page.
    pub sipi: Option<u8>,
    /// An NMI, whatever IF is.
    pub nmi: bool,
    /// This vector is deliverable: above the processor priority. To be
    /// acknowledged when it is injected, which needs IF.
    pub interrupt: Option<u8>,
}

/// A local APIC's registers, its timer, and what waits to be injected.
#[derive(Debug)]
pub struct Lapic {
    inbox: Arc<Inbox>,
    features: Features,
    bsp: bool,
    state: LapicState,
}

impl Lapic {
    /// As after power-up: xAPIC mode, disabled by software. The bootstrap
    /// processor (`bsp`) runs, all others wait for a SIPI.
    ///
    /// The inbox is that of [`ApicBus::inbox`](super::ApicBus::inbox) for its ID,
    /// and for one owner.
    pub fn new(inbox: Arc<Inbox>, bsp: bool, features: Features) -> Self {
        let lapic = Self {
            inbox,
            features,
            bsp,
            state: LapicState::power_up(bsp),
        };
        lapic.publish();
        lapic
    }

    /// Turns it on, in x2APIC mode if it has one, and lets its vCPU run without a
    /// SIPI: what firmware leaves behind that hands over all processors running.
    pub fn start(&mut self) {
        let state = &mut self.state;
        state.waits_for_sipi = false;
        state.svr = svr::VECTOR | svr::SOFTWARE_ENABLED;
        if self.features.x2apic {
            state.base |= base::X2APIC;
            state.enter_x2apic();
        }
        self.publish();
    }

    /// The APIC ID. It can't be changed.
    pub fn id(&self) -> u32 {
        self.inbox.id()
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.state.base
    }

    /// How its registers are reached.
    pub fn mode(&self) -> Mode {
        Mode::of(self.state.base).unwrap_or(Mode::Disabled)
    }

    /// Where its page is, in xAPIC mode. Each vCPU has its own, maybe at
    /// different places.
    pub fn page(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then(|| base::page(self.state.base))
    }

    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// A reserved bit, or a change of modes that does not exist.
    pub fn write_base(&mut self, value: u64, now: u64) -> Result<(), GeneralProtection> {
        self.sync(now);
        match base::change(self.state.base, value, &self.features)? {
            Change::None => {}
            Change::Reset => self.state.reset(),
            Change::ToX2Apic => self.state.enter_x2apic(),
        }
        self.state.base = value;
        self.publish();
        Ok(())
    }

    /// Takes what was posted, lets the timer expire, and says what the vCPU has
    /// to do. An NMI or SIPI is said once, a vector until it is acknowledged.
    pub fn scan(&mut self, now: u64) -> Work {
        self.sync(now);
        let state = &mut self.state;
        let mut work = Work::default();
        if std::mem::take(&mut state.init) {
            state.init_reset(self.bsp);
            work.init = true;
            self.publish();
        }
        let state = &mut self.state;
        if let Some(vector) = state.sipi.take()
            && state.waits_for_sipi
        {
            state.waits_for_sipi = false;
            work.sipi = Some(vector);
        }
        if !state.waits_for_sipi {
            work.nmi = std::mem::take(&mut state.nmi);
            work.interrupt = self.deliverable();
        }
        work
    }

    /// Whether it waits for a SIPI: the vCPU must not run.
    pub fn waits_for_sipi(&self) -> bool {
        self.state.waits_for_sipi
    }

    /// The vector that is to be injected next, as of the last access or scan.
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.state.irr.highest()?;
        (vector >> 4 > self.state.ppr() >> 4).then_some(vector)
    }

    /// The vector goes to the processor: from requested to in service. Whether
    /// it was requested; if not, nothing happens.
    pub fn acknowledge(&mut self, vector: u8) -> bool {
        let requested = self.state.irr.contains(vector);
        if requested {
            self.state.irr.remove(vector);
            self.state.isr.insert(vector);
        }
        requested
    }

    /// When the timer has something to do next, in the caller's time: scan then.
    /// None while it would not interrupt.
    pub fn deadline(&self) -> Option<u64> {
        let state = &self.state;
        state.lvt.vector(lvt::TIMER)?;
        state.timer.deadline()
    }

    /// When a [`Lapic::scan`] will next have something to say: 0 if it has now,
    /// else as [`Lapic::deadline`]. It takes nothing from the scan.
    pub fn due(&mut self, now: u64) -> Option<u64> {
        self.sync(now);
        let state = &self.state;
        let work = state.init || state.nmi || state.sipi.is_some();
        if work || self.deliverable().is_some() {
            return Some(0);
        }
        self.deadline()
    }

    /// The task priority's class, which is what CR8 is.
    pub fn cr8(&self) -> u8 {
        self.state.tpr >> 4
    }

    /// A write to CR8, which sets the task priority; bits above 3:0 are ignored.
    pub fn set_cr8(&mut self, cr8: u8) {
        self.state.tpr = cr8 << 4;
    }

    /// The end of the interrupt in service: a write to the EOI register, or what
    /// a guest says by KVM's PV_EOI.
    pub fn eoi(&mut self) -> Option<Effect> {
        let state = &mut self.state;
        let vector = state.isr.highest()?;
        state.isr.remove(vector);
        state.tmr.contains(vector).then_some(Effect::Eoi(vector))
    }

    /// Whether the guest may leave the next EOI to memory (KVM's PV_EOI): the
    /// one in service is edge-triggered, and none waits, so that the EOI would
    /// change nothing. As of the last access or scan.
    pub fn can_defer_eoi(&self) -> bool {
        let state = &self.state;
        let in_service = state.isr.highest();
        state.irr.is_empty() && in_service.is_some_and(|vector| !state.tmr.contains(vector))
    }

    /// All of it, the inbox too, for a snapshot at `now`.
    pub fn save(&mut self, now: u64) -> LapicState {
        self.sync(now);
        LapicState {
            saved_at: now,
            ..self.state.clone()
        }
    }

    /// Takes over what [`Lapic::save`] gave, at `now` of this clock. What is in
    /// the inbox stays.
    ///
    /// # Errors
    /// A value that no write can bring about.
    pub fn restore(&mut self, state: LapicState, now: u64) -> Result<(), InvalidState> {
        state.check(&self.features)?;
        self.state = state;
        let saved_at = self.state.saved_at;
        self.state.timer.rebase(saved_at, now);
        self.publish();
        Ok(())
    }

    /// Brings the registers up to date: what was posted, and the timer.
    fn sync(&mut self, now: u64) {
        let periodic = self.state.is_periodic();
        if self.state.timer.expire(periodic, now) {
            self.local(lvt::TIMER);
        }
        let Some(taken) = self.inbox.take() else {
            return;
        };
        let state = &mut self.state;
        if taken.init {
            // What it undoes may have been taken before.
            (state.init, state.nmi, state.sipi) = (true, false, None);
        }
        state.nmi |= taken.nmi;
        state.sipi = state.sipi.or(taken.sipi);
        if state.is_software_enabled() {
            let (edge, level) = (taken.edge, taken.level);
            state.irr = state.irr.union(edge).union(level);
            // Both at once: the I/O APIC waits for an EOI.
            state.tmr = state.tmr.without(edge).union(level);
        }
        if taken.illegal {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// An interrupt of the local vector table.
    fn local(&mut self, index: usize) {
        if let Some(vector) = self.state.lvt.vector(index) {
            self.request(vector);
        }
    }

    /// An edge-triggered interrupt from this very APIC.
    fn request(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
        } else if self.state.is_software_enabled() {
            self.state.irr.insert(vector);
            self.state.tmr.remove(vector);
        }
    }

    /// Logs an error; the first since the last write to the ESR interrupts.
    fn error(&mut self, bit: u8) {
        let Errors {
            logged, reported, ..
        } = &mut self.state.errors;
        *logged |= bit;
        // Said before its own interrupt, whose vector may be illegal in turn.
        if !std::mem::replace(reported, true) {
            self.local(lvt::ERROR);
        }
    }

    /// Says how others reach it.
    fn publish(&self) {
        let state = &self.state;
        let [.., logical] = state.ldr.to_le_bytes();
        let [.., format] = state.dfr.to_le_bytes();
        self.inbox.publish(Address {
            enabled: self.mode() != Mode::Disabled,
            x2apic: self.mode() == Mode::X2Apic,
            software_enabled: state.svr & svr::SOFTWARE_ENABLED != 0,
            logical,
            format: format >> 4,
        });
    }
}

#[cfg(test)]
mod tests;
