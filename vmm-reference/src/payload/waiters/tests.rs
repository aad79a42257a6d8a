//! The program on plain threads: a halt is a channel, a kick a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vm_memory::{Bytes as _, GuestAddress};

use super::layout::{
    Locks, NO_MORE, NOTES, WaiterProgram, hold, holds, lock_more, mode, node, param, result,
    result_more,
};
use super::machine::WaiterMachine;
use crate::backend::hosted::{Program as _, ProgramExit};
use crate::memory::{GuestMemory, read_word};
use crate::payload::image::{self, PARAM_PAGE, result_page};
use crate::payload::layout::{issue, lock};

fn program(mode: u64) -> WaiterProgram {
    WaiterProgram {
        mode,
        issue: issue::DOORBELL,
        threshold: 200,
        patience: 50,
        hold: 20,
        think: 20,
        burst: 10,
        locks: Locks::One,
        computing: 0,
        sleeping: 0,
        notes_holds: false,
    }
}

fn thread(
    mut machine: WaiterMachine,
    halts: Receiver<()>,
    kicks: Vec<Sender<()>>,
    flag: Arc<AtomicU8>,
) {
    loop {
        match machine.run(&flag).unwrap() {
            // A lost wake-up fails the test instead of hanging it.
            ProgramExit::Halt => halts.recv_timeout(Duration::from_secs(20)).unwrap(),
            ProgramExit::Hypercall(call) => {
                kicks[usize::try_from(call.args[1]).unwrap()].send(()).ok();
                machine.set_result(0);
            }
            ProgramExit::Interrupted => flag.store(0, Ordering::Relaxed),
            ProgramExit::WriteMsr(index, _) => panic!("MSR {index:#x}"),
            ProgramExit::ExitPort(value) => {
                assert_eq!(value, 0);
                return;
            }
        }
    }
}

/// Runs `program` on so many threads; interrupts them now and then.
fn run(program: &WaiterProgram, vcpus: u32) -> Arc<GuestMemory> {
    let notes = if program.notes_holds { NOTES } else { 0 };
    let memory = Arc::new(image::build_with(vcpus, &[], notes).unwrap());
    let ids: Vec<u32> = (0..vcpus).collect();
    program.install(&memory, &ids).unwrap();
    let (kicks, halts): (Vec<_>, Vec<_>) = ids.iter().map(|_| channel()).unzip();
    let epoch = Instant::now();
    let mut threads = Vec::new();
    for (&id, halts) in ids.iter().zip(halts) {
        let flag = Arc::new(AtomicU8::new(0));
        let machine = WaiterMachine::new(Arc::clone(&memory), result_page(id), epoch).unwrap();
        let (kicks, own) = (kicks.clone(), Arc::clone(&flag));
        let handle = std::thread::spawn(move || thread(machine, halts, kicks, own));
        threads.push((handle, flag));
    }
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        for (_, flag) in &threads {
            flag.store(1, Ordering::Relaxed);
        }
    }
    let stop = GuestAddress(PARAM_PAGE + param::STOP);
    memory.store(1u64, stop, Ordering::Release).unwrap();
    for kick in &kicks {
        kick.send(()).ok();
    }
    for (handle, _) in threads {
        handle.join().unwrap();
    }
    memory
}

fn sum(memory: &GuestMemory, vcpus: u32, offset: u64) -> u64 {
    let words = (0..vcpus).map(|i| read_word(memory, result_page(i) + offset).unwrap());
    words.sum()
}

const LOCKS: [u64; 5] = [
    mode::TICKET,
    mode::TEST_AND_SET,
    mode::PREEMPTABLE,
    mode::PV_TICKET,
    mode::PV_QUEUE,
];

#[test]
fn every_lock_excludes_and_goes_on() {
    for lock in LOCKS {
        let program = program(lock);
        let memory = run(&program, 4);
        let taken = sum(&memory, 4, result::ACQUISITIONS);
        assert!(taken > 0, "mode {lock}");
        assert_eq!(taken, program.counters(&memory, 4).unwrap(), "mode {lock}");
        assert_eq!(sum(&memory, 4, result::VIOLATIONS), 0, "mode {lock}");
        assert_eq!(sum(&memory, 4, result::KICK_ERRORS), 0, "mode {lock}");
        assert_eq!(sum(&memory, 4, result::DONE), 4, "mode {lock}");
        let halts = sum(&memory, 4, result::HALTS);
        if lock < mode::PV_TICKET {
            assert_eq!(halts, 0, "mode {lock}");
        }
        let booked: u64 = (0..result::HISTOGRAM_BUCKETS as u64)
            .map(|bucket| sum(&memory, 4, result::HISTOGRAM + 8 * bucket))
            .sum();
        assert_eq!(booked, taken, "mode {lock}: each wait is in the histogram");
    }
}

#[test]
fn own_locks_are_not_waited_for() {
    for lock in LOCKS {
        let program = WaiterProgram {
            locks: Locks::Own,
            ..program(lock)
        };
        let memory = run(&program, 3);
        let taken = sum(&memory, 3, result::ACQUISITIONS);
        assert_eq!(taken, program.counters(&memory, 3).unwrap(), "mode {lock}");
        assert_eq!(sum(&memory, 3, result::HALTS), 0, "mode {lock}");
        assert_eq!(sum(&memory, 3, result::KICKS), 0, "mode {lock}");
    }
}

#[test]
fn vcpus_that_compute_take_no_lock() {
    let program = WaiterProgram {
        computing: 2,
        ..program(mode::PV_TICKET)
    };
    let memory = run(&program, 4);
    for (vcpu, takes) in [(0, true), (1, true), (2, false), (3, false)] {
        let at = |offset| read_word(&memory, result_page(vcpu) + offset).unwrap();
        assert_eq!(at(result::ACQUISITIONS) > 0, takes, "vCPU {vcpu}");
        assert_eq!(at(result_more::BACKGROUND) == 0, takes, "vCPU {vcpu}");
    }
}

/// Every other vCPU takes the inner lock within the outer one: the inner one is
/// taken once for each acquisition, the outer one for those of half of them.
#[test]
fn nested_and_independent_locks_exclude_and_go_on() {
    for locks in [Locks::Nested, Locks::Independent] {
        for lock_mode in LOCKS {
            let program = WaiterProgram {
                locks,
                ..program(lock_mode)
            };
            let memory = run(&program, 4);
            let taken = sum(&memory, 4, result::ACQUISITIONS);
            let what = format!("{locks:?} mode {lock_mode}");
            assert_eq!(taken, program.counters(&memory, 4).unwrap(), "{what}");
            assert_eq!(sum(&memory, 4, result::VIOLATIONS), 0, "{what}");
            assert_eq!(sum(&memory, 4, result::DONE), 4, "{what}");
            let of = |vcpu| read_word(&memory, result_page(vcpu) + result::ACQUISITIONS).unwrap();
            let first = read_word(&memory, image::LOCK_PAGE + lock::COUNTER).unwrap();
            assert!(taken > 0, "{what}");
            assert_eq!(first, of(0) + of(2), "{what}");
            let booked: u64 = (0..result::HISTOGRAM_BUCKETS as u64)
                .map(|bucket| sum(&memory, 4, result::HISTOGRAM + 8 * bucket))
                .sum();
            match locks {
                // One that leaves while it waits for the outer lock has booked the
                // inner one's section.
                Locks::Nested => assert!((taken + first..=taken + first + 4).contains(&booked)),
                _ => assert_eq!(booked, taken, "{what}"),
            }
        }
    }
}

/// The kick behind STOP is spent by the vCPU that waits for the outer lock and gets
/// it. Who was before it at the inner one has left, so nobody will kick it there.
#[test]
fn who_comes_to_an_inner_lock_after_the_end_does_not_halt() {
    for lock_mode in [mode::PV_TICKET, mode::PV_QUEUE] {
        let program = WaiterProgram {
            locks: Locks::Nested,
            ..program(lock_mode)
        };
        let memory = Arc::new(image::build(2, &[]).unwrap());
        program.install(&memory, &[0, 1]).unwrap();
        let set = |at, value: u64| {
            let at = GuestAddress(at);
            memory.store(value, at, Ordering::SeqCst).unwrap();
        };
        let (own, other) = (result_page(0), result_page(1));
        let outer = read_word(&memory, own + result::LOCK).unwrap();
        let inner = read_word(&memory, own + result_more::INNER).unwrap();
        // vCPU 1 has drawn ticket 0 of both locks, and is the tail of both queues.
        for lock in [outer, inner] {
            set(lock + lock::NEXT, 1);
            set(lock + lock_more::TAIL, other + result_more::INNER_NODE);
        }
        let mut machine = WaiterMachine::new(Arc::clone(&memory), own, Instant::now()).unwrap();
        let flag = AtomicU8::new(0);
        assert_eq!(machine.run(&flag).unwrap(), ProgramExit::Halt);
        set(PARAM_PAGE + param::STOP, 1);
        set(outer + lock::SERVING, 1);
        set(own + result_more::NODE + node::STATE, node::GRANTED);
        assert_eq!(
            machine.run(&flag).unwrap(),
            ProgramExit::ExitPort(0),
            "mode {lock_mode}"
        );
    }
}

#[test]
fn a_vcpu_that_sleeps_counts_what_woke_it() {
    let program = WaiterProgram {
        computing: 1,
        sleeping: 1,
        ..program(mode::PV_TICKET)
    };
    assert_eq!((program.lockers(3), program.lockers(1)), (1, 0));
    let memory = image::build(3, &[]).unwrap();
    program.install(&memory, &[0, 1, 2]).unwrap();
    let (memory, page) = (Arc::new(memory), result_page(2));
    let word = |offset| read_word(&memory, page + offset).unwrap();
    let set = |offset, value: u64| {
        memory
            .store(value, GuestAddress(page + offset), Ordering::SeqCst)
            .unwrap();
    };
    let epoch = Instant::now() - Duration::from_secs(1);
    let mut machine = WaiterMachine::new(Arc::clone(&memory), page, epoch).unwrap();
    let flag = AtomicU8::new(0);
    let mut halts = || assert_eq!(machine.run(&flag).unwrap(), ProgramExit::Halt);
    // Nobody asks yet; and a kick without a question.
    halts();
    halts();
    assert_eq!(word(result_more::ANSWERED), 0);
    set(result_more::QUESTION, 7);
    halts();
    assert_eq!(word(result_more::ANSWERED), 7);
    assert!(word(result_more::ANSWER) >= 1_000_000_000);
    set(result_more::QUESTION, NO_MORE);
    halts();
    // A wake-up for nothing.
    halts();
    assert_eq!(word(result_more::WAKES), 0);
    set(result_more::WOKEN, 1_000_000_000 - 5_000);
    halts();
    assert_eq!((word(result_more::WAKES), word(result_more::WOKEN)), (1, 0));
    let below = result::bucket(5_000) as u64;
    let early = (0..below).map(|bucket| word(result::HISTOGRAM + 8 * bucket));
    let all = (0..result::HISTOGRAM_BUCKETS as u64).map(|b| word(result::HISTOGRAM + 8 * b));
    assert_eq!((early.sum::<u64>(), all.sum::<u64>()), (0, 1));
}

/// The kick for the end of the questions and that of the first wake-up are one.
#[test]
fn a_wake_up_behind_the_last_question_counts() {
    let program = WaiterProgram {
        sleeping: 1,
        ..program(mode::TICKET)
    };
    let memory = image::build(1, &[]).unwrap();
    program.install(&memory, &[0]).unwrap();
    let (memory, page) = (Arc::new(memory), result_page(0));
    let mut machine = WaiterMachine::new(Arc::clone(&memory), page, Instant::now()).unwrap();
    let flag = AtomicU8::new(0);
    assert_eq!(machine.run(&flag).unwrap(), ProgramExit::Halt);
    for (offset, value) in [(result_more::WOKEN, 1u64), (result_more::QUESTION, NO_MORE)] {
        memory
            .store(value, GuestAddress(page + offset), Ordering::SeqCst)
            .unwrap();
    }
    assert_eq!(machine.run(&flag).unwrap(), ProgramExit::Halt);
    assert_eq!(read_word(&memory, page + result_more::WAKES).unwrap(), 1);
}

#[test]
fn who_had_the_lock_when_is_noted() {
    for mode in LOCKS {
        let program = WaiterProgram {
            notes_holds: true,
            ..program(mode)
        };
        let memory = run(&program, 3);
        let taken = program.counters(&memory, 3).unwrap();
        let holds = holds(&memory).unwrap();
        assert_eq!(holds.len() as u64, taken.min(hold::MOST), "mode {mode}");
        for pair in holds.windows(2) {
            assert!(pair[0].from <= pair[0].to, "mode {mode}: {pair:?}");
            assert!(pair[0].to <= pair[1].from, "mode {mode}: {pair:?}");
        }
        if taken <= hold::MOST {
            for vcpu in 0..3 {
                let own = holds.iter().filter(|hold| hold.apic_id == u64::from(vcpu));
                let counted = result_page(vcpu) + result::ACQUISITIONS;
                let counted = read_word(&memory, counted).unwrap();
                assert_eq!(own.count() as u64, counted, "mode {mode}, vCPU {vcpu}");
            }
        }
    }
    let memory = run(&program(mode::TICKET), 2);
    assert_eq!(holds(&memory).unwrap(), [], "nobody wants them");
}

#[test]
fn the_longest_wait_has_its_time() {
    let memory = run(&program(mode::PV_QUEUE), 4);
    let longest = |vcpu| {
        let at = |offset| read_word(&memory, result_page(vcpu) + offset).unwrap();
        (at(result_more::LONGEST), at(result_more::LONGEST_END))
    };
    for (wait, end) in (0..4).map(longest) {
        assert!(wait <= end, "it began after the epoch: {wait} {end}");
        assert!(end < 60_000_000_000);
    }
}

#[test]
fn the_program_fits_its_place() {
    assert!(super::code::waiters().len() < 4096);
}
