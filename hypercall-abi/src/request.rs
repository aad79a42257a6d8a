//! A hypercall of any architecture, read by the table.

use crate::arch::Arch;
use crate::raw::{Mode, low32};
use crate::table::{Place, Register, Row, Width, find};

/// A hypercall of any architecture: which row it is, and what its inputs are.
/// x86's calls have types of their own, by
/// [`RawHypercall::decode`](crate::RawHypercall::decode); this is what there is
/// for the others, whose VMMs get them as `KVM_EXIT_HYPERCALL` or by their own
/// exits.
///
/// ```
/// use hypercall_abi::{Arch, Register, Request};
///
/// // LoongArch's user service, as KVM_EXIT_HYPERCALL brings it.
/// let request = Request::decode(Arch::LoongArch, 0x102, [1, 2, 3, 4, 5, 6]);
/// assert_eq!(request.row().unwrap().name, "KVM_HCALL_USER_SERVICE");
/// assert_eq!(request.input(Register::A1), Some(2));
///
/// // PowerPC's number carries the vendor's code.
/// let request = Request::decode(Arch::PowerPc, 0x2a_0003, [0; 6]);
/// assert_eq!(request.row().unwrap().name, "KVM_HC_FEATURES");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The architecture of the guest that made the call.
    pub arch: Arch,
    /// The number as [`find`] takes it; on PowerPC without the vendor's code.
    pub nr: u64,
    /// The registers in the order of [`Request::registers`], whole.
    pub args: [u64; 6],
}

impl Request {
    /// The request that a number register (or, on s390 and for LoongArch's
    /// codes above 0x100, an instruction's code) and registers hold, the latter
    /// in the order of [`registers`](Self::registers). Total: an unknown number
    /// has no [`row`](Self::row). See [`Request`] for an example.
    #[must_use]
    pub const fn decode(arch: Arch, number: u64, args: [u64; 6]) -> Self {
        const VENDOR: u64 = 42 << 16;
        let nr = match arch {
            // Another vendor's calls are none of KVM's: out of the table's way.
            Arch::PowerPc if number & !0xffff == VENDOR => number & 0xffff,
            Arch::PowerPc => u64::MAX,
            // SMCCC's function identifiers are 32 bits.
            Arch::Arm64 => low32(number) as u64,
            _ => number,
        };
        Self { arch, nr, args }
    }

    /// What is known of the call, or `None` for an unknown number.
    #[must_use]
    pub const fn row(&self) -> Option<&'static Row> {
        find(self.arch, self.nr)
    }

    /// The registers that [`args`](Self::args) are: the convention's arguments;
    /// for LoongArch's user service, which has no number of its own, from a0
    /// on, and for s390 from r1 on, the subcode's.
    ///
    /// ```
    /// use hypercall_abi::{Arch, Register, Request};
    ///
    /// let request = Request::decode(Arch::S390, 0x500, [3, 1, 0, 0, 0, 0]);
    /// assert_eq!(request.registers()[0], Register::R1);
    /// assert_eq!(request.input(Register::R1), Some(3));
    /// ```
    #[must_use]
    pub const fn registers(&self) -> &'static [Register] {
        use Register::{A0, A1, A2, A3, A4, A5, R1, R2, R3, R4, R5, R6};
        match (self.arch, self.nr) {
            (Arch::LoongArch, 0x102) => &[A0, A1, A2, A3, A4, A5],
            (Arch::S390, _) => &[R1, R2, R3, R4, R5, R6],
            _ => self.arch.convention().arguments,
        }
    }

    /// An input of the call by its register, as much of it as counts in 64-bit
    /// mode; `None` if the call has no input there. See [`Request`] for an
    /// example.
    #[must_use]
    pub fn input(&self, register: Register) -> Option<u64> {
        let row = self.row()?;
        let place = Place::In(register);
        let input = row.inputs.iter().find(|input| input.place == place)?;
        let registers = self.registers().iter();
        let (_, value) = registers
            .zip(self.args)
            .find(|(one, _)| **one == register)?;
        Some(match input.width {
            Width::Bits32 => Mode::Bits32.truncate(value),
            _ => value,
        })
    }
}
