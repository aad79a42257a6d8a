//! The program on plain threads: a halt is a channel, a kick a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vm_memory::{Bytes as _, GuestAddress};

use super::layout::{WaiterProgram, mode, param, result, result_more};
use super::machine::WaiterMachine;
use crate::backend::hosted::{Program as _, ProgramExit};
use crate::memory::{GuestMemory, read_word};
use crate::payload::image::{self, PARAM_PAGE, result_page};
use crate::payload::layout::issue;

fn program(mode: u64) -> WaiterProgram {
    WaiterProgram {
        mode,
        issue: issue::DOORBELL,
        threshold: 200,
        patience: 50,
        hold: 20,
        think: 20,
        own_locks: false,
        computing: 0,
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
    let memory = Arc::new(image::build(vcpus, &[]).unwrap());
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
            own_locks: true,
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
