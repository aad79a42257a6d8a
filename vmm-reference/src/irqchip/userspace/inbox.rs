//! The half of a local APIC that everyone may write to.

use super::FIRST_VECTOR;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::vectors::Vectors;

/// What was posted to one local APIC and not yet taken by its owner, and what
/// others have to know of it to address it.
///
/// Posting a vector is two writes: its bit, then the flag that says in which word
/// to look. The owner takes the flags, then the words they name. So a vector that
/// was posted is either taken or its flag is still up; and edge or level is part
/// of the one write of the bit, so that no vector is seen with the other's
/// trigger mode.
#[derive(Debug)]
pub struct Inbox {
    /// [`flag`]s, and the vector of a SIPI.
    work: AtomicU32,
    edge: [AtomicU64; Vectors::WORDS],
    level: [AtomicU64; Vectors::WORDS],
    address: AtomicU64,
    id: u32,
}

/// The bits of the work word.
mod flag {
    /// Word 0 of the edge-triggered vectors; words 1 to 3 follow.
    pub(super) const EDGE: u32 = 1 << 0;
    /// The same of the level-triggered.
    pub(super) const LEVEL: u32 = 1 << 4;
    pub(super) const NMI: u32 = 1 << 8;
    pub(super) const INIT: u32 = 1 << 9;
    pub(super) const SIPI: u32 = 1 << 10;
    /// A vector below 16 came.
    pub(super) const ILLEGAL: u32 = 1 << 11;
    pub(super) const SIPI_VECTOR_SHIFT: u32 = 16;
    pub(super) const SIPI_VECTOR: u32 = 0xff << SIPI_VECTOR_SHIFT;
}

/// What the owner took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) edge: Vectors,
    pub(crate) level: Vectors,
    pub(crate) nmi: bool,
    /// It came before `sipi` and after every SIPI and NMI that is not here.
    pub(crate) init: bool,
    pub(crate) sipi: Option<u8>,
    pub(crate) illegal: bool,
}

/// How a local APIC can be addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// IA32_APIC_BASE has it on. One that is off takes part in nothing.
    pub(crate) enabled: bool,
    pub(crate) x2apic: bool,
    /// SVR bit 8.
    pub(crate) software_enabled: bool,
    /// xAPIC: bits 31:24 of the logical destination register.
    pub(crate) logical: u8,
    /// xAPIC: bits 31:28 of the destination format register.
    pub(crate) format: u8,
}

impl Address {
    const fn pack(self) -> u64 {
        (self.enabled as u64)
            | (self.x2apic as u64) << 1
            | (self.software_enabled as u64) << 2
            | (self.logical as u64) << 8
            | (self.format as u64) << 16
    }

    fn unpack(bits: u64) -> Self {
        let [flags, logical, format, ..] = bits.to_le_bytes();
        Self {
            enabled: flags & 1 != 0,
            x2apic: flags & 2 != 0,
            software_enabled: flags & 4 != 0,
            logical,
            format,
        }
    }
}

impl Inbox {
    /// Of the local APIC with this ID. Nobody reaches it before its owner has
    /// said how.
    pub(crate) fn new(id: u32) -> Self {
        Self {
            work: AtomicU32::new(0),
            edge: std::array::from_fn(|_| AtomicU64::new(0)),
            level: std::array::from_fn(|_| AtomicU64::new(0)),
            address: AtomicU64::new(0),
            id,
        }
    }

    /// The APIC ID.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Posts a vector; whether the owner has to be made look. If not, it was
    /// pending already, and whoever posted it first has that to do.
    pub(crate) fn post(&self, vector: u8, level: bool) -> bool {
        if vector < FIRST_VECTOR {
            return self.raise(flag::ILLEGAL);
        }
        let (index, bit) = Vectors::place(vector);
        let (words, first) = match level {
            true => (&self.level, flag::LEVEL),
            false => (&self.edge, flag::EDGE),
        };
        // There are as many words as a vector has places.
        let Some(word) = words.get(index) else {
            return false;
        };
        // Release, with the Acquire of the swap in `take`: the owner that takes
        // this bit sees what the sender wrote before it sent, even if the bit was
        // up already and only the first sender's flag made it look.
        let before = word.fetch_or(bit, Ordering::Release);
        self.raise(first << index);
        before & bit == 0
    }

    /// Posts an NMI; whether the owner has to be made look.
    pub(crate) fn post_nmi(&self) -> bool {
        self.raise(flag::NMI)
    }

    /// Posts an INIT, which undoes each NMI and SIPI before it; the owner has to
    /// be made look.
    pub(crate) fn post_init(&self) {
        const UNDONE: u32 = flag::NMI | flag::SIPI | flag::SIPI_VECTOR;
        self.update(|work| (work & !UNDONE) | flag::INIT);
    }

    /// Posts a SIPI. The first since the last INIT counts: it is the one that
    /// starts the processor, and to a running one a SIPI is nothing.
    pub(crate) fn post_sipi(&self, vector: u8) {
        let sipi = flag::SIPI | u32::from(vector) << flag::SIPI_VECTOR_SHIFT;
        self.update(|work| match work & flag::SIPI {
            0 => work | sipi,
            _ => work,
        });
    }

    fn raise(&self, flag: u32) -> bool {
        // Release, with the Acquire in `take`: who finds the flag finds the bit
        // that it stands for, and what the sender wrote.
        self.work.fetch_or(flag, Ordering::Release) & flag == 0
    }

    fn update(&self, next: impl Fn(u32) -> u32) {
        let mut before = self.work.load(Ordering::Relaxed);
        loop {
            // Release: as in `raise`.
            match self.work.compare_exchange_weak(
                before,
                next(before),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// Owner only: takes all there is.
    pub(crate) fn take(&self) -> Option<Taken> {
        // Relaxed: a glance. Who posts after it announces it, and who announced
        // it before is seen: the announcement orders it.
        if self.work.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // Acquire: partner of the Release in `raise` and `update`.
        let work = self.work.swap(0, Ordering::Acquire);
        let [_, _, sipi, _] = work.to_le_bytes();
        Some(Taken {
            edge: Self::take_words(&self.edge, work / flag::EDGE),
            level: Self::take_words(&self.level, work / flag::LEVEL),
            nmi: work & flag::NMI != 0,
            init: work & flag::INIT != 0,
            sipi: (work & flag::SIPI != 0).then_some(sipi),
            illegal: work & flag::ILLEGAL != 0,
        })
    }

    /// Bit n of `flags`: there is something in word n.
    fn take_words(words: &[AtomicU64; Vectors::WORDS], flags: u32) -> Vectors {
        let mut taken = [0; Vectors::WORDS];
        for (index, (word, taken)) in words.iter().zip(&mut taken).enumerate() {
            if flags & (1 << index) != 0 {
                // Acquire: partner of the Release in `post`.
                *taken = word.swap(0, Ordering::Acquire);
            }
        }
        Vectors::from_words(taken)
    }

    /// Owner only: how it can be addressed from now on.
    pub(crate) fn publish(&self, address: Address) {
        // Release, with the Acquire in `address`: a guest that has heard of the
        // change from this vCPU reaches it.
        self.address.store(address.pack(), Ordering::Release);
    }

    /// How it can be addressed.
    pub(crate) fn address(&self) -> Address {
        Address::unpack(self.address.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_packing() {
        for bits in 0..8u8 {
            for (logical, format) in [(0, 0), (0xff, 0xf), (0x81, 0), (1, 3)] {
                let address = Address {
                    enabled: bits & 1 != 0,
                    x2apic: bits & 2 != 0,
                    software_enabled: bits & 4 != 0,
                    logical,
                    format,
                };
                assert_eq!(Address::unpack(address.pack()), address);
            }
        }
    }

    #[test]
    fn what_was_posted_is_taken_once() {
        let inbox = Inbox::new(0);
        assert_eq!(inbox.take(), None);
        for vector in FIRST_VECTOR..=u8::MAX {
            assert!(inbox.post(vector, vector % 2 == 0));
            assert!(!inbox.post(vector, vector % 2 == 0), "pending already");
        }
        let taken = inbox.take().unwrap();
        for vector in 0..=u8::MAX {
            let there = vector >= FIRST_VECTOR;
            assert_eq!(taken.level.contains(vector), there && vector % 2 == 0);
            assert_eq!(taken.edge.contains(vector), there && vector % 2 != 0);
        }
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn vectors_below_16_are_an_error_and_no_interrupt() {
        for vector in 0..FIRST_VECTOR {
            let inbox = Inbox::new(0);
            assert!(inbox.post(vector, false));
            let wanted = Taken {
                illegal: true,
                ..Taken::default()
            };
            assert_eq!(inbox.take(), Some(wanted));
        }
    }

    /// KVM: INIT clears a pending SIPI (`__apic_accept_irq`).
    #[test]
    fn init_undoes_what_came_before_it() {
        let inbox = Inbox::new(0);
        inbox.post_nmi();
        inbox.post_sipi(0x12);
        inbox.post_init();
        let taken = inbox.take().unwrap();
        assert!(taken.init && !taken.nmi);
        assert_eq!(taken.sipi, None);

        inbox.post_init();
        inbox.post_sipi(0x9a);
        inbox.post_sipi(0x9b);
        inbox.post_nmi();
        let taken = inbox.take().unwrap();
        assert!(taken.init && taken.nmi);
        assert_eq!(taken.sipi, Some(0x9a), "the first one starts it");
    }
}
