//! The record as a guest finds it. What is expected is from kvm_set_msr_common and
//! record_steal_time in arch/x86/kvm/x86.c, and from struct kvm_steal_time and struct
//! vcpu_runstate_info in the kernel's headers; offsets are written out here.

use super::*;
use crate::interrupts::noted::{Done, Noted, ready};

/// Where the guest's record is.
const AT: u64 = 0x1040;

struct Guest {
    steal_time: StealTime,
    vcpu: Noted,
}

/// A guest of 8 KiB.
fn guest() -> Guest {
    let memory = crate::memory::allocate(&[(0, 0x2000)]).unwrap();
    Guest {
        steal_time: StealTime::new(Arc::new(memory)),
        vcpu: ready(),
    }
}

impl Guest {
    fn put<T: vm_memory::ByteValued>(&self, offset: u64, value: T) {
        let at = GuestAddress(AT + offset);
        self.steal_time.memory.write_obj(value, at).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, offset: u64) -> T {
        let at = GuestAddress(AT + offset);
        self.steal_time.memory.read_obj(at).unwrap()
    }

    fn steal(&self) -> (u64, u32) {
        (self.get(0), self.get(8))
    }

    /// A run, at the end of which KVM has counted so much as runnable.
    fn run(&mut self, runnable: u64) {
        self.steal_time.before_run(&mut self.vcpu).unwrap();
        self.put(16 + 24, runnable);
    }
}

#[test]
fn values_of_the_msr() {
    let mut guest = guest();
    let steal_time = &mut guest.steal_time;
    for reserved in [0x2, 0x4, 0x8, 0x10, 0x20] {
        assert!(!steal_time.write(AT | 1 | reserved), "{reserved:#x}");
        assert!(!steal_time.write(reserved), "{reserved:#x}, off");
    }
    assert_eq!(steal_time.read(), 0, "what is #GP leaves it as it was");
    for value in [AT | 1, AT, 1, 0, !0x3f, !0x3e, 0x2001] {
        assert!(steal_time.write(value), "{value:#x}");
        assert_eq!(steal_time.read(), value);
    }
}

#[test]
fn kvm_is_told_once_where_its_part_is() {
    let mut guest = guest();
    guest.run(0);
    assert!(guest.vcpu.run_states.is_empty(), "off");
    assert!(guest.steal_time.write(AT | 1));
    guest.run(0);
    guest.run(0);
    assert_eq!(guest.vcpu.run_states, [Some(AT + 16)]);
    // The last record of the last page is memory, the one behind it is not.
    assert!(guest.steal_time.write(0x1fc1));
    guest.run(0);
    assert!(guest.steal_time.write(0x2001));
    guest.run(0);
    assert!(guest.steal_time.write(!0x3e));
    guest.run(0);
    assert!(guest.steal_time.write(AT));
    guest.run(0);
    assert_eq!(
        guest.vcpu.run_states,
        [Some(AT + 16), Some(0x1fd0), None, None, None]
    );
}

#[test]
fn what_kvm_counts_is_taken_over_and_the_version_stays_even() {
    let mut guest = guest();
    guest.put(0, 1_000_u64);
    assert!(guest.steal_time.write(AT | 1));
    // What KVM had counted when the guest named the record is not its own.
    guest.run(500);
    guest.run(500);
    assert_eq!(guest.steal(), (1_000, 0), "nothing new, nothing written");
    guest.run(700);
    assert_eq!(guest.steal(), (1_000, 0), "told before the next run");
    guest.run(700);
    assert_eq!(guest.steal(), (1_200, 2));
    guest.run(700);
    assert_eq!(guest.steal(), (1_200, 2));
    guest.run(1_700);
    guest.run(1_700);
    assert_eq!(guest.steal(), (2_200, 4));
}

#[test]
fn an_odd_version_is_junk_of_the_guest_s() {
    let mut guest = guest();
    guest.put(8, 7_u32);
    assert!(guest.steal_time.write(AT | 1));
    for runnable in [0, 10, 10] {
        guest.run(runnable);
    }
    assert_eq!(guest.steal(), (10, 8));
    guest.put(8, u32::MAX);
    guest.run(20);
    guest.run(20);
    assert_eq!(guest.steal(), (20, 0));
}

#[test]
fn a_hold_is_stolen_and_seen() {
    let mut guest = guest();
    assert!(guest.steal_time.write(AT | 1));
    guest.run(0);
    guest.run(0);
    guest.steal_time.let_go(|| panic!("it was not held"));
    guest.steal_time.hold(1_000);
    assert_eq!(guest.get::<u8>(16), 1, "preempted");
    guest.steal_time.hold(1_500);
    guest.steal_time.let_go(|| 4_000);
    assert_eq!(guest.get::<u8>(16), 0);
    guest.run(50);
    guest.run(50);
    assert_eq!(guest.steal(), (3_050, 4), "3000 held, then 50 waited");
}

#[test]
fn whatever_the_guest_writes_there_nothing_overflows() {
    let mut guest = guest();
    assert!(guest.steal_time.write(AT | 1));
    guest.run(u64::MAX);
    guest.run(5);
    guest.run(u64::MAX);
    guest.put(0, u64::MAX);
    guest.run(0);
    assert_eq!(guest.steal(), (u64::MAX - 6, 2), "wraps round, as KVM's");
    guest.run(0);
    assert_eq!(
        guest.steal(),
        (u64::MAX - 6, 2),
        "less than before is nothing"
    );
}

#[test]
fn off_and_after_an_init_nothing_is_written() {
    let mut guest = guest();
    assert!(guest.steal_time.write(AT | 1));
    guest.run(0);
    guest.run(0);
    guest.steal_time.hold(0);
    guest.steal_time.let_go(|| 10);
    assert!(guest.steal_time.write(AT));
    guest.run(10);
    guest.run(20);
    assert_eq!(guest.steal(), (0, 0));
    assert!(guest.steal_time.write(AT | 1));
    guest.run(0);
    guest.steal_time.reset(&mut guest.vcpu).unwrap();
    assert_eq!(guest.steal_time.read(), 0);
    assert_eq!(
        guest.vcpu.run_states,
        [Some(AT + 16), None, Some(AT + 16), None]
    );
    guest.run(30);
    guest.steal_time.hold(0);
    guest.run(30);
    assert_eq!((guest.steal(), guest.get::<u8>(16)), ((0, 0), 0));
}

#[test]
fn an_init_behind_the_write_that_turns_it_off() {
    let mut guest = guest();
    assert!(guest.steal_time.write(AT | 1));
    guest.run(0);
    assert!(guest.steal_time.write(0));
    guest.steal_time.reset(&mut guest.vcpu).unwrap();
    guest.run(0);
    assert_eq!(guest.vcpu.run_states, [Some(AT + 16), None]);
}

/// Preempted on the way out of KVM_RUN: what comes is no wait.
#[test]
fn a_sleep_is_no_wait_for_a_pcpu() {
    let mut guest = guest();
    let before_sleep = |guest: &mut Guest| {
        guest.vcpu.done.clear();
        guest.steal_time.before_sleep(&mut guest.vcpu).unwrap();
        guest.vcpu.done.clone()
    };
    guest.put(16, 1_u8);
    assert_eq!(before_sleep(&mut guest), [], "off");
    assert!(guest.steal_time.write(AT | 1));
    assert_eq!(before_sleep(&mut guest), [], "KVM writes nothing there yet");
    guest.run(0);
    assert_eq!(before_sleep(&mut guest), [Done::Running]);
    guest.put(16, 0_u8);
    assert_eq!(before_sleep(&mut guest), [], "it was running");
}
