//! From lines of assembly to a function that returns bytes.
//!
//! Who uses [`program`] expects the lint `unsafe_code`: machine code is assembled
//! there, and its bytes are taken by symbol.

/// One text of several lines, each of one or several literals.
macro_rules! lines {
    ($($($part:literal)+),+ $(,)?) => { concat!($($($part,)+ "\n"),+) };
}

/// A program: `fn NAME = "name"; TEXT, ...; OPERAND = VALUE, ...` is a function
/// without arguments that returns the program's bytes. A text is a literal or a
/// piece; it takes the operands by their names in braces, and every operand is
/// taken by some text. The symbols around the bytes are `vmm_reference_name_start`
/// and `..._end`.
macro_rules! program {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $function:ident = $name:literal;
        $($text:expr),+ $(,)?;
        $($operand:ident = $value:expr),* $(,)?
    ) => {
        // Global, since the assembly and its users may be compiled apart; hidden,
        // so that nothing outside this program sees the names.
        core::arch::global_asm!(
            $crate::payload::assembly::program::lines![
                ".pushsection .rodata.vmm_reference_" $name ", \"a\"",
                ".balign 16",
                ".globl vmm_reference_" $name "_start",
                ".hidden vmm_reference_" $name "_start",
                "vmm_reference_" $name "_start:",
            ],
            $($text,)+
            $crate::payload::assembly::program::lines![
                ".globl vmm_reference_" $name "_end",
                ".hidden vmm_reference_" $name "_end",
                "vmm_reference_" $name "_end:",
                ".popsection",
            ],
            $($operand = const $value,)*
        );

        $(#[$attribute])*
        $visibility fn $function() -> &'static [u8] {
            $crate::payload::assembly::program::between!(
                concat!("vmm_reference_", $name, "_start"),
                concat!("vmm_reference_", $name, "_end")
            )
        }
    };
}

/// A [`program`] that takes locks: with the operands of all pieces. It uses all
/// of them, or an operand would be one that no text takes.
macro_rules! lock_program {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $function:ident = $name:literal;
        $($text:expr),+ $(,)?;
        $($operand:ident = $value:expr),* $(,)?
    ) => {
        $crate::payload::assembly::program::program! {
            $(#[$attribute])*
            $visibility fn $function = $name;
            $($text),+;
            WAITER_MASK = $crate::payload::layout::param::WAITER_MASK,
            MODE = $crate::payload::layout::param::MODE,
            THRESHOLD = $crate::payload::layout::param::THRESHOLD,
            HOLD = $crate::payload::layout::param::HOLD,
            THINK = $crate::payload::layout::param::THINK,
            STOP = $crate::payload::layout::param::STOP,
            ISSUE = $crate::payload::layout::param::ISSUE,
            VMCALL = $crate::payload::layout::issue::VMCALL,
            NEXT = $crate::payload::layout::lock::NEXT,
            SERVING = $crate::payload::layout::lock::SERVING,
            OWNER = $crate::payload::layout::lock::OWNER,
            COUNTER = $crate::payload::layout::lock::COUNTER,
            WAITER_TICKET = $crate::payload::layout::waiter::TICKET,
            WAITER_APIC_ID = $crate::payload::layout::waiter::APIC_ID,
            // An index can be scaled by 8 at most.
            WAITER_HALF = $crate::payload::layout::waiter::SIZE / 2,
            APIC_ID = $crate::payload::layout::result::APIC_ID,
            ACQUISITIONS = $crate::payload::layout::result::ACQUISITIONS,
            HALTS = $crate::payload::layout::result::HALTS,
            KICKS = $crate::payload::layout::result::KICKS,
            KICK_ERRORS = $crate::payload::layout::result::KICK_ERRORS,
            VIOLATIONS = $crate::payload::layout::result::VIOLATIONS,
            DONE = $crate::payload::layout::result::DONE,
            CALIBRATION = $crate::payload::layout::result::CALIBRATION,
            HISTOGRAM = $crate::payload::layout::result::HISTOGRAM,
            FEATURES_LEAF = cpuid_features::KVM_CPUID_FEATURES,
            PV_UNHALT = cpuid_features::KvmFeatures::PV_UNHALT.bits(),
            KICK_CPU = hypercall_abi::KVM_HC_KICK_CPU,
            DOORBELL = hypercall_abi::doorbell::PORT,
            EXIT_PORT = $crate::devices::EXIT_PORT,
            $($operand = $value),*
        }
    };
}

/// The bytes between two symbols of one program.
macro_rules! between {
    ($start:expr, $end:expr) => {{
        unsafe extern "C" {
            #[link_name = $start]
            static START: u8;
            #[link_name = $end]
            static END: u8;
        }
        let start = &raw const START;
        let end = &raw const END;
        let len = end as usize - start as usize;
        // SAFETY:
        // - valid for reads of `len` bytes, all initialized: the assembly emits
        //   them between the two labels of one read-only section;
        // - alignment: u8 has none;
        // - never written, and `len` is far below isize::MAX.
        unsafe { core::slice::from_raw_parts(start, len) }
    }};
}

pub(in crate::payload) use {between, lines, lock_program, program};
