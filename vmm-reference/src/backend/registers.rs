//! A vCPU's registers as a person reads them, for a guest that died.

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_sregs};

/// What a vCPU was doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Registers {
    /// General registers.
    pub regs: kvm_regs,
    /// System registers.
    pub sregs: kvm_sregs,
}

/// Where a processor starts after a reset: RIP, and the selector of CS.
const RESET_RIP: u64 = 0xfff0;
const RESET_CS: u16 = 0xf000;

impl Registers {
    /// They are those of a processor that was just reset. After a triple fault
    /// on AMD they always are: SVM leaves them undefined, so KVM resets the vCPU
    /// before it reports the fault.
    pub fn are_reset(&self) -> bool {
        self.regs.rip == RESET_RIP && self.sregs.cs.selector == RESET_CS
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, s) = (&self.regs, &self.sregs);
        let rows = [
            [
                ("rip", r.rip),
                ("rflags", r.rflags),
                ("rsp", r.rsp),
                ("rbp", r.rbp),
            ],
            [
                ("rax", r.rax),
                ("rbx", r.rbx),
                ("rcx", r.rcx),
                ("rdx", r.rdx),
            ],
            [("rsi", r.rsi), ("rdi", r.rdi), ("r8", r.r8), ("r9", r.r9)],
            [
                ("r10", r.r10),
                ("r11", r.r11),
                ("r12", r.r12),
                ("r13", r.r13),
            ],
            [
                ("r14", r.r14),
                ("r15", r.r15),
                ("cr0", s.cr0),
                ("cr2", s.cr2),
            ],
            [
                ("cr3", s.cr3),
                ("cr4", s.cr4),
                ("efer", s.efer),
                ("apic", s.apic_base),
            ],
            [
                ("gdt", s.gdt.base),
                ("idt", s.idt.base),
                ("cs", u64::from(s.cs.selector)),
                ("ss", u64::from(s.ss.selector)),
            ],
        ];
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            for (j, (name, value)) in row.iter().enumerate() {
                let gap = if j == 0 { "  " } else { " " };
                write!(f, "{gap}{name:<6} {value:016x}")?;
            }
        }
        Ok(())
    }
}
