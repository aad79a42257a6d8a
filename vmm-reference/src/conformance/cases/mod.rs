//! The list. Each case's source is in `docs/CONFORMANCE.md`.

mod answers;
mod latch;
mod storms;

use hypercall_abi::KVM_HC_KICK_CPU;

use super::case::{Case, Expect, Trace};
use crate::payload::script::Op;

/// All cases, in the order of the matrix.
pub const ALL: &[&[Case]] = &[latch::CASES, storms::CASES, answers::CASES];

// Words of the board.
/// A vCPU is about to halt for the n-th time.
const READY: u64 = 0;
/// The host lets the kicker go on.
const GO: u64 = 1;
/// The sleeper is awake.
const DONE: u64 = 2;
/// The kicker has kicked.
const KICKED: u64 = 3;
/// From here on: words of the vCPUs.
const TURN: u64 = 4;

/// KVM_HC_KICK_CPU(0, `apic_id`), its answer to `slot`.
const fn kick(apic_id: u64, slot: u64) -> Op {
    Op::Call {
        nr: KVM_HC_KICK_CPU,
        args: [0, apic_id, 0, 0],
        slot,
    }
}

const fn slot(vcpu: usize, slot: u64, is: u64) -> Expect {
    Expect {
        vcpu,
        what: Trace::Slot(slot),
        is,
    }
}

/// A negated return code, as RAX has it.
const fn minus(code: u64) -> u64 {
    code.wrapping_neg()
}

#[cfg(test)]
mod tests;
