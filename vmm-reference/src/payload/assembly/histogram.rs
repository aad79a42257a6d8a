//! A wait becomes a count in a bucket.

/// Counts the wait of `r14` ticks: [`bucket`](crate::payload::layout::result::bucket)
/// in assembly. `rax`, `rcx` and `r14` are lost; the label is `label` of the
/// program, for a program that counts in several places.
macro_rules! count {
    ($of:literal, $label:literal) => {
        $crate::payload::assembly::program::lines![
            "   cmp  r14, 4",
            "   jb   .L" $of "_" $label,
            "   bsr  rcx, r14",
            "   lea  rax, [rcx * 4 - 4]",
            "   sub  ecx, 2",
            "   shr  r14, cl",
            "   and  r14d, 3",
            "   add  r14, rax",
            ".L" $of "_" $label ":",
            "   inc  qword ptr [rdi + r14 * 8 + {HISTOGRAM}]",
        ]
    };
}

pub(in crate::payload) use count;
