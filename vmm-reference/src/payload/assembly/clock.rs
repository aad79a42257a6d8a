//! Reading the TSC, and calibration by it.

/// `rax` = the TSC; `rdx` is lost.
macro_rules! read {
    () => {
        $crate::payload::assembly::program::lines![
            "   rdtsc",
            "   shl  rdx, 32",
            "   or   rax, rdx",
        ]
    };
}

/// How long THRESHOLD rounds of the ticket's spin take, on a ticket that never
/// comes; began at the time in `rax`. Leaves by `out`.
macro_rules! calibration {
    ($of:literal) => {
        concat!(
            $crate::payload::assembly::program::lines![
                "   mov  r14, rax",
                "   mov  r13, -1",
                "   mov  rcx, [r15 + {THRESHOLD}]",
                ".L" $of "_calibrate_round:",
                "   pause",
                "   cmp  [r8 + {SERVING}], r13",
                "   je   .L" $of "_out",
                "   dec  rcx",
                "   jnz  .L" $of "_calibrate_round",
            ],
            $crate::payload::assembly::clock::read!(),
            $crate::payload::assembly::program::lines![
                "   sub  rax, r14",
                "   mov  [rdi + {CALIBRATION}], rax",
                "   jmp  .L" $of "_out",
            ],
        )
    };
}

pub(in crate::payload) use {calibration, read};
