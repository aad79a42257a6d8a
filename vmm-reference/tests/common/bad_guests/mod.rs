//! Guests that mean harm to the interrupt controllers, and what is asked of a VMM that
//! runs one.

mod judge;
mod storms;

pub(crate) use judge::observe;

use crate::guests::{apic_noise, elf64, flat};

/// A guest and how it is run.
pub(crate) struct BadGuest {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its kernel file.
    pub(crate) image: fn() -> Vec<u8>,
    /// Number of its vCPUs.
    pub(crate) cpus: u32,
    /// Interrupts come in, again and again.
    pub(crate) interrupted: bool,
}

impl BadGuest {
    const fn interrupted(self) -> Self {
        Self {
            interrupted: true,
            ..self
        }
    }
}

/// A multiboot image of these pieces of code.
fn image(pieces: &[fn() -> Vec<u8>]) -> Vec<u8> {
    flat(&pieces.iter().flat_map(|piece| piece()).collect::<Vec<u8>>())
}

macro_rules! alone {
    ($name:literal, $($piece:ident),+) => {
        BadGuest {
            name: $name,
            image: || image(&[storms::with_handlers, $(storms::$piece),+]),
            cpus: 1,
            interrupted: false,
        }
    };
}

macro_rules! among_four {
    ($name:literal, $($piece:ident),+) => {
        BadGuest {
            name: $name,
            image: || image(&[storms::with_handlers, storms::others, $(storms::$piece),+]),
            cpus: 4,
            interrupted: false,
        }
    };
}

/// All of them.
pub(crate) const ALL: &[BadGuest] = &[
    among_four!("vector storm", up, vector_storm).interrupted(),
    among_four!("NMI storm", up, nmi_storm),
    among_four!("INIT and SIPI storm", up, init_storm),
    alone!("EOI without interrupt", up, eoi_alone),
    alone!("ICR to nobody", up, ipi_to_nobody),
    alone!("self-IPI loop", up, self_ipi).interrupted(),
    alone!("self-IPI loop, x2APIC", x2apic, up, self_ipi_x2apic).interrupted(),
    alone!("timer of period 0 and 1", up, timer).interrupted(),
    alone!("timer of 1, again and again", up, timer_again).interrupted(),
    alone!("vectors below 16", up, low_vectors),
    alone!("TPR up and down", up, priorities).interrupted(),
    BadGuest {
        name: "CR8 up and down",
        image: || elf64(&storms::cr8()),
        cpus: 1,
        interrupted: false,
    },
    alone!("turned off with interrupts", up, turned_off),
    alone!("page moved", up, moved_page).interrupted(),
    alone!("level line stuck high", up, stuck_line).interrupted(),
    alone!("MSRs 0x800-0x8ff, all bits", x2apic, up, all_msrs),
    BadGuest {
        name: "noise in all registers",
        image: || flat(&apic_noise()),
        cpus: 1,
        interrupted: false,
    },
];
