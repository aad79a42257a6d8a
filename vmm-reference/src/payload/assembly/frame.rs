//! How a program begins and ends.

/// "Guest checks this feature bit before enabling paravirtualized spinlock
/// support": without PV_UNHALT the program ends with code 1. Goes on at `round`.
macro_rules! needs_pv_unhalt {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   mov  eax, {FEATURES_LEAF}",
            "   xor  ecx, ecx",
            "   cpuid",
            "   test eax, {PV_UNHALT}",
            "   jnz  .L" $of "_round",
            "   mov  eax, 1",
            "   jmp  .L" $of "_exit",
        ]
    };
}

/// The ends: `out` writes that it is done and ends with code 0, `exit` with the
/// code in `al`. Whoever waits for the lock is dropped: all others leave too.
macro_rules! ends {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            ".L" $of "_out:",
            "   mov  qword ptr [rdi + {DONE}], 1",
            "   xor  eax, eax",
            ".L" $of "_exit:",
            "   out  {EXIT_PORT}, al",
            ".L" $of "_off:",
            "   hlt",
            "   jmp  .L" $of "_off",
        ]
    };
}

pub(in crate::payload) use {ends, needs_pv_unhalt};
