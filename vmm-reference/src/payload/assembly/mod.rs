//! Where the embedded guests' machine code is assembled, and the pieces that
//! several of them are made of.
//!
//! A guest is position-independent 64-bit code without a stack, in integer
//! instructions only: KVM's emulator runs it on hosts without hardware
//! virtualization, and it knows neither SSE arithmetic nor `cmpxchg16b`. Entry:
//! long mode, CPL 0, IF = 0, `rdi` = GPA of the vCPU's result page, `rsi` = GPA
//! of the parameter page (of the script guest: of its list).
//!
//! - [`program`]: from lines of assembly to a function that returns bytes;
//! - [`frame`]: how a program begins and ends;
//! - [`clock`]: reading the TSC, and calibration by it;
//! - [`ticket`]: the ticket lock: draw, spin, halt, unlock;
//! - [`section`]: the critical section, and the time between two;
//! - [`kick`]: KVM_HC_KICK_CPU by each transport;
//! - [`histogram`]: a wait becomes a count in a bucket.
//!
//! A piece is a macro that yields text, so that a program remains a list of
//! instructions in the order in which they run. Its argument is the program's
//! name, with which all labels begin: a piece goes on at labels of the program
//! (`.Llock_enter`), which its documentation names. What a piece takes from the
//! pages are the operands of [`program::lock_program`]. Registers that live
//! throughout a program that takes locks:
//!
//! | register | what |
//! |---|---|
//! | `rdi` | result page |
//! | `r8` | lock |
//! | `r9` | its waiter table |
//! | `r10` | own APIC ID |
//! | `r11` | mode |
//! | `r13` | ticket |
//! | `r14` | start of the wait, then its length |
//! | `r15` | parameter page |
//!
//! `rax`, `rbx`, `rcx`, `rdx` and `rbp` belong to whatever piece runs.

pub(super) mod clock;
pub(super) mod frame;
pub(super) mod histogram;
pub(super) mod kick;
pub(super) mod program;
pub(super) mod section;
pub(super) mod ticket;
