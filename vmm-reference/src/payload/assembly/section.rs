//! The critical section, and the time between two.

/// The section: an owner word and a counter prove that nobody else is in it.
/// Goes on behind this, with the lock still held.
macro_rules! hold {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   lea  rax, [r10 + 1]",
            "   cmp  qword ptr [r8 + {OWNER}], 0",
            "   je   .L" $of "_owned",
            "   inc  qword ptr [rdi + {VIOLATIONS}]",
            ".L" $of "_owned:",
            "   mov  [r8 + {OWNER}], rax",
            "   mov  rbx, [r8 + {COUNTER}]",
            "   mov  rcx, [r15 + {HOLD}]",
            "   jrcxz .L" $of "_held",
            ".L" $of "_hold:",
            "   dec  rcx",
            "   jnz  .L" $of "_hold",
            ".L" $of "_held:",
            "   inc  rbx",
            "   mov  [r8 + {COUNTER}], rbx",
            "   cmp  [r8 + {OWNER}], rax",
            "   je   .L" $of "_leave",
            "   inc  qword ptr [rdi + {VIOLATIONS}]",
            ".L" $of "_leave:",
            "   mov  qword ptr [r8 + {OWNER}], 0",
        ]
    };
}

/// Work outside of the lock, then again from `round` on.
macro_rules! think {
    ($of:literal) => {
        $crate::payload::assembly::program::lines![
            "   mov  rcx, [r15 + {THINK}]",
            "   test rcx, rcx",
            "   jz   .L" $of "_round",
            ".L" $of "_think:",
            "   dec  rcx",
            "   jnz  .L" $of "_think",
            "   jmp  .L" $of "_round",
        ]
    };
}

pub(in crate::payload) use {hold, think};
