//! Where a processor goes after a reset, for a guest that jumps there to restart
//! the machine, as it does on a PC without any other way.
//!
//! Linux goes that way on hardware-reduced ACPI without EFI: it takes EFI's reset
//! for given then, and tries neither the reset register of the FADT nor the
//! keyboard controller before (`reboot_init` and `native_machine_emergency_restart`
//! in `arch/x86/kernel/reboot.c`). A PC's firmware starts anew from here; this one
//! pulses the processor's reset line.

use vm_memory::{Bytes as _, GuestAddress};

use super::BootError;
use crate::devices::i8042;
use crate::memory::GuestMemory;

/// F000:FFF0 of real mode.
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// 16-bit code: `mov al, RESET`; `out COMMAND, al`; `cli`; `hlt`; and back to the
/// last of these.
const CODE: [u8; 8] = [0xb0, i8042::RESET, 0xe6, COMMAND, 0xfa, 0xf4, 0xeb, 0xfd];
/// A port of a byte.
#[expect(clippy::cast_possible_truncation, reason = "it is 0x64")]
const COMMAND: u8 = i8042::COMMAND as u8;

/// Puts it into guest memory.
pub(super) fn write(memory: &GuestMemory) -> Result<(), BootError> {
    Ok(memory.write_slice(&CODE, GuestAddress(RESET_VECTOR))?)
}
