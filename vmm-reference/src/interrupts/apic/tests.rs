//! The rule before each run and in each halt, against a vCPU that only notes what
//! it is told.

use pv_lock_host::HaltScheduler;

use super::*;
use crate::backend::ExitRequest;
use crate::interrupts::noted::{Done, Noted, ready};
use crate::kicks::Kicks;
use crate::threads::VcpuThreads;

/// Two vCPUs: the bootstrap processor, in x2APIC mode and enabled by software, and
/// one that waits for a SIPI.
struct Machine {
    apics: [VcpuApic; 2],
    requests: [Arc<ExitRequest>; 2],
}

fn machine() -> Machine {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, _parkers) = HaltScheduler::new(&ids).unwrap();
    let requests = [0, 1].map(|_| Arc::new(ExitRequest::polled()));
    let threads = VcpuThreads::new(requests.to_vec());
    let kicks = Kicks::new(scheduler.kicker(), None);
    let controllers = Arc::new(Controllers::new(&ids, kicks, threads).unwrap());
    let mut apics = ids.map(|id| {
        let shared = Arc::clone(&controllers);
        VcpuApic::new(shared, id, Features::default(), Arc::default()).unwrap()
    });
    assert!(apics[0].msr_write(0x1b, 0xfee0_0d00));
    assert!(apics[0].msr_write(0x80f, 0x1ff));
    Machine { apics, requests }
}

#[test]
fn a_vector_is_delivered_when_it_is_taken() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    vcpu.accepts = false;
    apic.msr_write(0x83f, 0x31);
    assert_eq!(apic.before_run(&mut vcpu).unwrap(), Readiness::Run);
    assert_eq!((vcpu.window, vcpu.done.len()), (true, 0));
    assert_eq!(
        apic.msr_read(0x821).unwrap() >> 17 & 1,
        1,
        "still requested"
    );
    vcpu.accepts = true;
    apic.before_run(&mut vcpu).unwrap();
    assert_eq!(vcpu.done, [Done::Interrupt(0x31)]);
    assert!(!vcpu.window, "nothing waits");
    assert_eq!(apic.msr_read(0x811).unwrap() >> 17 & 1, 1, "in service");
}

#[test]
fn one_at_a_time_and_a_window_for_the_next() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    apic.msr_write(0x83f, 0x31);
    apic.before_run(&mut vcpu).unwrap();
    apic.msr_write(0x83f, 0x32);
    apic.before_run(&mut vcpu).unwrap();
    assert!(!vcpu.window, "of the same class: below what is in service");
    apic.msr_write(0x83f, 0x41);
    apic.before_run(&mut vcpu).unwrap();
    assert!(vcpu.window);
    assert_eq!(vcpu.done, [Done::Interrupt(0x31)]);
}

#[test]
fn cr8_goes_both_ways() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    apic.msr_write(0x808, 0x42);
    vcpu.cr8 = 4;
    apic.before_run(&mut vcpu).unwrap();
    assert_eq!(apic.msr_read(0x808), Some(0x42), "unchanged by the guest");
    vcpu.cr8 = 9;
    apic.before_run(&mut vcpu).unwrap();
    assert_eq!((apic.msr_read(0x808), vcpu.cr8), (Some(0x90), 9));
    apic.msr_write(0x83f, 0x91);
    apic.before_run(&mut vcpu).unwrap();
    assert!(vcpu.done.is_empty() && !vcpu.window);
}

#[test]
fn what_ends_a_halt() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    let look = |apic: &mut VcpuApic, vcpu: &mut Noted| apic.while_halted(vcpu).unwrap();
    assert_eq!(look(apic, &mut vcpu), WhileHalted::Sleep(None));
    apic.msr_write(0x83f, 0x31);
    vcpu.interrupts_enabled = false;
    assert_eq!(look(apic, &mut vcpu), WhileHalted::Sleep(None), "IF is 0");
    vcpu.interrupts_enabled = true;
    assert_eq!(look(apic, &mut vcpu), WhileHalted::Wake);
    assert!(vcpu.done.is_empty(), "delivered before the run, not here");
    // To itself, an NMI, with interrupts off.
    vcpu.interrupts_enabled = false;
    apic.msr_write(0x830, 0x400);
    assert_eq!(look(apic, &mut vcpu), WhileHalted::Wake);
    assert_eq!(vcpu.done, [Done::Nmi]);
}

#[test]
fn the_timer_ends_a_halt_with_interrupts_on() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    apic.msr_write(0x83e, 0b1011);
    apic.msr_write(0x832, 0x40);
    apic.msr_write(0x838, u32::MAX.into());
    let until = apic.while_halted(&mut vcpu).unwrap();
    let WhileHalted::Sleep(Some(until)) = until else {
        panic!("{until:?}");
    };
    assert!(until > Instant::now());
    vcpu.interrupts_enabled = false;
    assert_eq!(
        apic.while_halted(&mut vcpu).unwrap(),
        WhileHalted::Sleep(None)
    );
}

/// INIT, SIPI, and a second SIPI, as an operating system sends them.
#[test]
fn a_processor_is_started() {
    let Machine {
        apics: [bsp, ap], ..
    } = &mut machine();
    let mut vcpu = Noted::default();
    assert_eq!(ap.before_run(&mut vcpu).unwrap(), Readiness::Wait);
    bsp.msr_write(0x830, 1 << 32 | 0xfb);
    assert_eq!(
        ap.while_halted(&mut vcpu).unwrap(),
        WhileHalted::Sleep(None)
    );
    bsp.msr_write(0x830, 1 << 32 | 0xc500);
    bsp.msr_write(0x830, 1 << 32 | 0x8500);
    assert_eq!(
        ap.while_halted(&mut vcpu).unwrap(),
        WhileHalted::Sleep(None)
    );
    bsp.msr_write(0x830, 1 << 32 | 0x69a);
    assert_eq!(ap.while_halted(&mut vcpu).unwrap(), WhileHalted::Wake);
    bsp.msr_write(0x830, 1 << 32 | 0x69a);
    assert_eq!(ap.before_run(&mut vcpu).unwrap(), Readiness::Run);
    assert_eq!(vcpu.done, [Done::Init, Done::Startup(0x9a)]);
    // While it runs: stopped again.
    bsp.msr_write(0x830, 1 << 32 | 0xc500);
    assert_eq!(ap.before_run(&mut vcpu).unwrap(), Readiness::Wait);
    assert!(ap.waits_for_sipi());
}

#[test]
fn an_init_of_the_bootstrap_processor_starts_the_machine_anew() {
    let Machine {
        apics: [bsp, _], ..
    } = &mut machine();
    bsp.msr_write(0x830, 0xc500);
    let mut vcpu = ready();
    assert_eq!(bsp.before_run(&mut vcpu).unwrap(), Readiness::Reset);
    bsp.msr_write(0x830, 0xc500);
    assert_eq!(bsp.while_halted(&mut vcpu).unwrap(), WhileHalted::Reset);
}

/// A running vCPU is made to leave once for what it has not seen; the sender,
/// which looks before it runs on, never.
#[test]
fn who_is_made_to_leave_the_guest() {
    let Machine {
        apics: [bsp, ap],
        requests: [own, other],
    } = &mut machine();
    bsp.msr_write(0x830, 1 << 32 | 0xfb);
    assert!(other.take());
    bsp.msr_write(0x830, 1 << 32 | 0xfb);
    assert!(!other.take(), "it is on its way");
    bsp.msr_write(0x830, 0xfb);
    bsp.msr_write(0x83f, 0xfc);
    assert!(!own.take());
    assert_eq!(ap.lapic.id(), 1);
}

#[test]
fn both_pages_are_answered_and_no_other() {
    let Machine { apics: [_, ap], .. } = &mut machine();
    let mut data = [0xee; 4];
    assert!(ap.mmio_read(0xfee0_0020, &mut data));
    assert_eq!(data, [0, 0, 0, 1], "APIC ID 1");
    assert!(ap.mmio_write(0xfec0_0000, &[1, 0, 0, 0]));
    assert!(ap.mmio_read(0xfec0_0010, &mut data));
    assert_eq!(data, [0x20, 0, 0x17, 0], "the I/O APIC's version");
    for gpa in [
        0xfec0_1000,
        0xfebf_fffc,
        0xfee0_1000,
        0xfedf_fffc,
        0,
        u64::MAX,
    ] {
        assert!(!ap.mmio_read(gpa, &mut data) && !ap.mmio_write(gpa, &data));
    }
    // It moves, and in x2APIC mode it is gone; the MSRs are not there before.
    assert!(!ap.msr_write(0x80f, 0x1ff));
    assert!(ap.msr_write(0x1b, 0x8000_0800));
    assert!(ap.mmio_read(0x8000_0020, &mut data));
    assert!(!ap.mmio_read(0xfee0_0020, &mut data));
    assert!(ap.msr_write(0x1b, 0x8000_0c00));
    assert!(!ap.mmio_read(0x8000_0020, &mut data));
    assert!(!ap.msr_write(0x1b, 0x8000_0800), "not back");
    assert_eq!(ap.msr_read(0x802), Some(1));
    // What is no MSR of the local APIC's is #GP here.
    assert_eq!(ap.msr_read(0x6e0), None);
    assert!(!ap.msr_write(0x6e0, 1));
}

#[test]
fn an_interrupt_is_due_before_it_is_delivered_and_not_after() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    vcpu.interrupts_enabled = false;
    vcpu.accepts = false;
    assert_eq!(apic.due(&mut vcpu), None);
    apic.msr_write(0x83f, 0x31);
    assert_eq!(apic.due(&mut vcpu), Some(0), "whatever IF is");
    assert_eq!(apic.due(&mut vcpu), Some(0), "a look takes nothing");
    (vcpu.interrupts_enabled, vcpu.accepts) = (true, true);
    apic.before_run(&mut vcpu).unwrap();
    assert_eq!(vcpu.done, [Done::Interrupt(0x31)]);
    apic.msr_write(0x83f, 0x32);
    assert_eq!(apic.due(&mut vcpu), None, "below what is in service");
    vcpu.cr8 = 0xf;
    apic.msr_write(0x83f, 0xf1);
    assert_eq!(apic.due(&mut vcpu), None, "masked by CR8");
    vcpu.cr8 = 0;
    assert_eq!(apic.due(&mut vcpu), Some(0), "and no longer");
}

#[test]
fn a_timer_is_due_when_it_expires() {
    let Machine {
        apics: [apic, _], ..
    } = &mut machine();
    let mut vcpu = ready();
    apic.msr_write(0x832, 0xec);
    apic.msr_write(0x838, u64::from(u32::MAX));
    let before = now();
    let due = apic.due(&mut vcpu).unwrap();
    assert!(due > before, "{due} after {before}");
    // An hour and more, in steps of two nanoseconds at least.
    assert!(
        due - before >= u64::from(u32::MAX) / 2,
        "{due} after {before}"
    );
    apic.msr_write(0x838, 0);
    assert_eq!(apic.due(&mut vcpu), None);
}

/// As KVM_SET_MSRS and the guest's accesses have them: each MSR is there if it is
/// served, whatever its neighbour, and goes into a snapshot.
#[test]
fn msrs_of_kvm_s_own_that_are_served_here() {
    const STEAL_TIME: u32 = 0x4b56_4d03;
    const PV_EOI: u32 = 0x4b56_4d04;
    let memory = || Arc::new(crate::memory::allocate(&[(0, 0x2000)]).unwrap());
    let Machine {
        apics: [mut plain, ap],
        ..
    } = machine();
    let mut served = ap.with_pv_eoi(memory()).with_steal_time(memory());
    for index in [STEAL_TIME, PV_EOI] {
        assert_eq!(plain.msr_read(index), None, "{index:#x}");
        assert!(!plain.msr_write(index, 0), "{index:#x}");
        assert_eq!(served.msr_read(index), Some(0), "{index:#x}");
    }
    assert!(served.msr_write(STEAL_TIME, 0x1041));
    assert!(!served.msr_write(STEAL_TIME, 0x1043), "reserved");
    assert!(served.msr_write(PV_EOI, 0x1001));
    let saved = served.save();
    assert!(served.msr_write(STEAL_TIME, 0) && served.msr_write(PV_EOI, 0));
    served.restore(&saved).unwrap();
    assert_eq!(served.msr_read(STEAL_TIME), Some(0x1041));
    assert_eq!(served.msr_read(PV_EOI), Some(0x1001));
    // Where neither is served there is no place for their values.
    let refused = plain.restore(&saved).unwrap_err().to_string();
    assert!(refused.contains("0x4b564d04"), "{refused}");
    let nothing = plain.save();
    plain.restore(&nothing).unwrap();
}

#[test]
fn who_is_held_is_preempted_until_it_is_let_go() {
    let memory = Arc::new(crate::memory::allocate(&[(0, 0x2000)]).unwrap());
    let Machine {
        apics: [apic, _], ..
    } = machine();
    let mut apic = apic.with_steal_time(Arc::clone(&memory));
    let preempted = || -> u8 {
        let at = vm_memory::GuestAddress(0x1050);
        vm_memory::Bytes::read_obj(&*memory, at).unwrap()
    };
    let mut vcpu = ready();
    assert!(apic.msr_write(0x4b56_4d03, 0x1041));
    apic.before_run(&mut vcpu).unwrap();
    assert_eq!(vcpu.run_states, [Some(0x1050)]);
    assert_eq!(preempted(), 0);
    assert_eq!(apic.due(&mut vcpu), None);
    assert_eq!(preempted(), 1);
    apic.let_go();
    assert_eq!(preempted(), 0);
}
