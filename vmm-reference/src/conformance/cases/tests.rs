use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::conformance::case::{CaseHost, Plan};
use crate::conformance::in_flight;
use crate::conformance::trial_run::{Beside, run_plan};
use crate::halt_mode::HaltMode;
use crate::payload::script::{MAX_OPS, MAX_VCPUS, WORDS, result};
use crate::transport::{HaltKick, Instruction, Transport};
use cpuid_features::KvmFeatures;

fn hosts() -> impl Iterator<Item = CaseHost> {
    [
        (HaltMode::Userspace, Transport::Port),
        (HaltMode::Userspace, Transport::Xen),
        (HaltMode::Userspace, Transport::Hosted),
        (HaltMode::Kernel, Transport::Kvm),
        (HaltMode::Kernel, Transport::Port),
    ]
    .into_iter()
    .flat_map(|(halt, transport)| {
        let apics = match halt {
            HaltMode::Userspace => [false, true].as_slice(),
            HaltMode::Kernel => &[true],
        };
        apics.iter().map(move |&apics| CaseHost {
            halt_kick: HaltKick { halt, transport },
            features: KvmFeatures::all(),
            apics,
        })
    })
}

#[test]
fn names_are_unique_and_fit_the_matrix() {
    let mut names = BTreeSet::new();
    for case in ALL.iter().copied().flatten() {
        assert!(names.insert(case.name), "{} twice", case.name);
        assert!(case.name.len() <= 32, "{}", case.name);
    }
}

#[test]
fn plans_fit_the_guest() {
    for case in ALL.iter().copied().flatten() {
        let mut possible = 0;
        for host in hosts() {
            let Ok(plan) = (case.plan)(&host) else {
                continue;
            };
            possible += 1;
            let in_flight = in_flight::plan(&plan);
            let lists = in_flight.iter().flat_map(|plan| &plan.vcpus);
            assert!(lists.into_iter().all(|ops| ops.len() < MAX_OPS));
            assert!((1..=MAX_VCPUS).contains(&plan.vcpus.len()), "{}", case.name);
            for ops in &plan.vcpus {
                assert!(ops.len() < MAX_OPS, "{}", case.name);
                for op in ops {
                    let (word, slot) = match *op {
                        Op::Call { slot, .. } => (0, slot),
                        Op::Load(word, slot) => (word, slot),
                        Op::Set(word, _) | Op::Wait(word, _) | Op::HaltUntil(word, _) => (word, 0),
                        Op::Halt | Op::HaltInterrupts(_) | Op::InterruptsOn | Op::Loop(_) => (0, 0),
                    };
                    assert!(
                        word < WORDS && slot < result::COUNT,
                        "{}: {op:?}",
                        case.name
                    );
                }
            }
            for expect in &plan.expect {
                assert!(expect.vcpu < plan.vcpus.len(), "{}", case.name);
            }
        }
        assert!(possible > 0, "{} is possible nowhere", case.name);
    }
}

/// The list must be able to fail: a kick that is left out, and an answer that
/// is another one.
#[test]
fn a_lost_kick_and_a_wrong_answer_fail() {
    let hosted = HaltKick {
        halt: HaltMode::Userspace,
        transport: Transport::Hosted,
    };
    // It needs no instruction.
    let any = Instruction::Vmcall;
    let run =
        |plan: &Plan, limit| run_plan(None, hosted, any, plan, Beside::Nothing, limit).unwrap();
    let long = Duration::from_secs(60);
    let good = super::latch::halt_then(kick(1, 0));
    assert_eq!(run(&good, long), Ok(()));

    let mut lost = good.clone();
    lost.vcpus[0][1] = Op::Set(KICKED, 1);
    let why = run(&lost, Duration::from_millis(300)).unwrap_err();
    assert!(why.contains("vCPU 1 did not come to its end"), "{why}");
    assert!(why.contains("operation 1, Halt"), "{why}");

    let mut wrong = good;
    wrong.expect = vec![slot(0, 0, minus(1000))];
    assert_eq!(
        run(&wrong, long),
        Err("vCPU 0, slot 0: 0, expected -1000".to_string())
    );
}
