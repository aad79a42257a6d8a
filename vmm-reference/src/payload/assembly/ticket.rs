//! The ticket lock: who arrives draws a ticket, and enters when it is served.
//! Who has waited past the threshold may halt, and is kicked.
//!
//! Order of the seed's protocol, and why a wake-up is not lost: a waiter
//! publishes its ticket with `xchg` (a full barrier) and then reads SERVING; the
//! unlocker writes SERVING with `xchg` and then reads the table. One of them
//! sees the other. What is left, a kick between the waiter's re-check and its
//! HLT, is the latch of the host: the HLT returns at once.

/// Draws a ticket. Served at once: `enter`; else it goes on behind this.
macro_rules! draw {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   mov  r13d, 1",
            "   lock xadd [r8 + {NEXT}], r13",
            "   cmp  [r8 + {SERVING}], r13",
            "   je   .L" $of "_enter",
        ]
    };
}

/// Spins for THRESHOLD rounds, from `ticket` on. Served: `enter`; else it goes on
/// behind this. STOP is looked at where it costs no hand-over: in [`halt`].
macro_rules! spin {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            ".L" $of "_ticket:",
            "   mov  rcx, [r15 + {THRESHOLD}]",
            ".L" $of "_ticket_round:",
            "   pause",
            "   cmp  [r8 + {SERVING}], r13",
            "   je   .L" $of "_enter",
            "   dec  rcx",
            "   jnz  .L" $of "_ticket_round",
        ]
    };
}

/// The slow path: publishes the ticket, looks again, and halts. Served: goes on
/// behind this; else at `ticket` or, if the host wants an end, at `out`. STOP is
/// looked at on both sides of the halt: the host's kick behind it ends one halt, and
/// in a lock within another a vCPU comes to a second. A waiter that does not halt
/// begins at `ticket_on`.
macro_rules! halt {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   mov  rbp, r13",
            "   and  rbp, [r15 + {WAITER_MASK}]",
            "   add  rbp, rbp",
            "   mov  [r9 + rbp * {WAITER_HALF} + {WAITER_APIC_ID}], r10",
            "   lea  rax, [r13 + 1]",
            "   xchg [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], rax",
            "   cmp  [r8 + {SERVING}], r13",
            "   je   .L" $of "_unpublish",
            // Nobody kicks once more: the kick behind STOP may have ended another halt.
            "   cmp  qword ptr [r15 + {STOP}], 0",
            "   jne  .L" $of "_out",
            "   inc  qword ptr [rdi + {HALTS}]",
            "   hlt",
            "   cmp  [r8 + {SERVING}], r13",
            "   je   .L" $of "_unpublish",
            // A wake-up may be spurious.
            ".L" $of "_ticket_on:",
            "   cmp  qword ptr [r15 + {STOP}], 0",
            "   je   .L" $of "_ticket",
            "   jmp  .L" $of "_out",
            ".L" $of "_unpublish:",
            "   mov  qword ptr [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], 0",
        ]
    };
}

/// Serves the next ticket. If its holder sleeps, it goes on behind this, with the
/// address of its entry as [`sleeper`] reads it; else at `book`.
macro_rules! unlock {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            // What can be computed before the hand-over is.
            "   lea  rax, [r13 + 1]",
            "   mov  rbp, rax",
            "   and  rbp, [r15 + {WAITER_MASK}]",
            "   add  rbp, rbp",
            "   xchg [r8 + {SERVING}], rax",
            "   add  r13, 2",
            "   cmp  [r9 + rbp * {WAITER_HALF} + {WAITER_TICKET}], r13",
            "   jne  .L" $of "_book",
        ]
    };
}

/// Behind [`unlock`]: `rcx` = the APIC ID of the vCPU that sleeps.
macro_rules! sleeper {
    () => {
        "   mov  rcx, [r9 + rbp * {WAITER_HALF} + {WAITER_APIC_ID}]"
    };
}

pub(in crate::payload) use {draw, halt, sleeper, spin, unlock};
