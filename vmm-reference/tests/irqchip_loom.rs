//! The shared half of the local APIC in every order that loom finds; `ci/loom`
//! runs it with `--cfg loom`. Without it the same bodies run natively, many times
//! over.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::sync::Arc;

use vmm_reference::irqchip::userspace::{
    ApicBus, Delivery, Destination, Effect, Features, Lapic, Message, Signal,
};

#[cfg(loom)]
use loom::{
    sync::atomic::{AtomicU32, Ordering},
    sync::{Condvar, Mutex},
    thread::spawn,
};
#[cfg(not(loom))]
use std::{
    sync::atomic::{AtomicU32, Ordering},
    sync::{Condvar, Mutex},
    thread::spawn,
};

const VECTOR: u8 = 0x51;

fn explore(name: &str, body: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let executions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&executions);
        loom::model(move || {
            counted.fetch_add(1, Relaxed);
            body();
        });
        println!("loom: {name}: {} executions", executions.load(Relaxed));
    }
    #[cfg(not(loom))]
    {
        const ROUNDS: usize = 500;
        (0..ROUNDS).for_each(|_| body());
        println!("native: {name}: {ROUNDS} rounds");
    }
}

/// Stands for pv-lock-host's event: raised for a signal, lowered before a scan.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn ring(&self, signals: &[Signal]) {
        if !signals.is_empty() {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    /// Returns when it was rung.
    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.0.1.wait(rung).unwrap();
        }
    }

    fn rang(&self) -> bool {
        std::mem::take(&mut *self.0.0.lock().unwrap())
    }
}

/// Written before an interrupt is sent, read by who got it. Relaxed: it takes the
/// interrupt to order it.
#[derive(Clone)]
struct Payload(Arc<AtomicU32>);

impl Payload {
    fn new() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }

    fn set(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

fn message(delivery: Delivery, vector: u8, level: bool) -> Message {
    Message {
        destination: Destination::Physical(0),
        delivery,
        vector,
        level,
    }
}

fn send(bus: &ApicBus, message: Message, bell: &Bell) {
    let mut signals = Vec::new();
    assert_eq!(bus.send(&message, None, &mut signals), 1);
    bell.ring(&signals);
}

/// A local APIC that is enabled by software.
fn machine(bsp: bool) -> (Arc<ApicBus>, Lapic) {
    let bus = Arc::new(ApicBus::new(&[0]).unwrap());
    let mut lapic = Lapic::new(bus.inbox(0).unwrap(), bsp, Features::default());
    lapic.write_page(0xf0, &0x1ffu32.to_le_bytes(), 0);
    (bus, lapic)
}

/// Scans at any time, then sleeps until it is rung for: the vector is there, and
/// what its sender wrote before.
#[test]
fn post_scan_wake() {
    explore("post_scan_wake", || {
        let (bus, mut lapic) = machine(true);
        let (bell, payload) = (Bell::new(), Payload::new());
        let (ring, write) = (bell.clone(), payload.clone());
        let sender = spawn(move || {
            write.set();
            send(&bus, message(Delivery::Fixed, VECTOR, false), &ring);
        });
        if lapic.scan(0).interrupt.is_none() {
            bell.wait();
            assert_eq!(lapic.scan(0).interrupt, Some(VECTOR));
        }
        assert!(payload.is_set());
        sender.join().unwrap();
    });
}

/// Two send the same vector. It comes once or twice; with the last one each
/// sender's writes are there, also of the one whose vector was pending already.
#[test]
fn two_senders_of_one_vector() {
    explore("two_senders_of_one_vector", || {
        let (bus, mut lapic) = machine(true);
        let bell = Bell::new();
        let payloads = [Payload::new(), Payload::new()];
        let senders = payloads.clone().map(|payload| {
            let (bus, bell) = (Arc::clone(&bus), bell.clone());
            spawn(move || {
                payload.set();
                send(&bus, message(Delivery::Fixed, VECTOR, false), &bell);
            })
        });
        let mut seen = [false; 2];
        let mut take = |lapic: &mut Lapic| {
            if let Some(vector) = lapic.scan(0).interrupt {
                assert!(lapic.acknowledge(vector));
                lapic.eoi();
                seen = [0, 1].map(|i| payloads.get(i).is_some_and(Payload::is_set));
            }
        };
        bell.wait();
        take(&mut lapic);
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
        if bell.rang() {
            take(&mut lapic);
        }
        // The join orders everything: only what was seen before it counts, and
        // that is told by a second delivery.
        take(&mut lapic);
        assert_eq!(seen, [true; 2]);
    });
}

/// A vector is never seen with the other trigger mode: a level's EOI goes to the
/// I/O APIC, whatever else arrives.
#[test]
fn trigger_mode_comes_with_its_vector() {
    explore("trigger_mode_comes_with_its_vector", || {
        let (bus, mut lapic) = machine(true);
        let bell = Bell::new();
        let senders = [(VECTOR, true), (VECTOR + 1, false)].map(|(vector, level)| {
            let (bus, bell) = (Arc::clone(&bus), bell.clone());
            spawn(move || send(&bus, message(Delivery::Fixed, vector, level), &bell))
        });
        let mut ended = 0;
        while ended < 2 {
            if let Some(vector) = lapic.scan(0).interrupt {
                assert!(lapic.acknowledge(vector));
                let level = (vector == VECTOR).then_some(Effect::Eoi(VECTOR));
                assert_eq!(lapic.eoi(), level);
                ended += 1;
            } else {
                bell.wait();
            }
        }
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
    });
}

/// INIT, then SIPI, as an operating system starts a processor: whenever it looks,
/// it resets before it starts, and it starts.
#[test]
fn init_then_sipi() {
    explore("init_then_sipi", || {
        let (bus, mut lapic) = machine(true);
        let bell = Bell::new();
        let ring = bell.clone();
        let sender = spawn(move || {
            send(&bus, message(Delivery::Init, 0, false), &ring);
            send(&bus, message(Delivery::Startup, 0x9a, false), &ring);
        });
        let mut was_reset = false;
        loop {
            let work = lapic.scan(0);
            // It is the bootstrap processor, which runs on after an INIT: what is
            // looked at here is the order.
            was_reset |= work.init;
            assert_eq!(work.sipi, None);
            if was_reset {
                break;
            }
            bell.wait();
        }
        sender.join().unwrap();
    });
    explore("init_then_sipi_of_another", || {
        let (bus, mut lapic) = machine(false);
        let bell = Bell::new();
        let ring = bell.clone();
        let sender = spawn(move || {
            send(&bus, message(Delivery::Init, 0, false), &ring);
            send(&bus, message(Delivery::Startup, 0x9a, false), &ring);
        });
        let mut was_reset = false;
        loop {
            let work = lapic.scan(0);
            was_reset |= work.init;
            if let Some(page) = work.sipi {
                assert_eq!((page, was_reset), (0x9a, true));
                break;
            }
            bell.wait();
        }
        assert!(!lapic.waits_for_sipi());
        sender.join().unwrap();
    });
}

/// A SIPI against an INIT of another sender: the one that came later counts. If
/// the SIPI was undone the processor waits; else it runs, reset or not.
#[test]
fn sipi_against_init() {
    explore("sipi_against_init", || {
        let (bus, mut lapic) = machine(false);
        let bell = Bell::new();
        let (other_bus, other_bell) = (Arc::clone(&bus), bell.clone());
        let init = spawn(move || send(&other_bus, message(Delivery::Init, 0, false), &other_bell));
        send(&bus, message(Delivery::Startup, 0x10, false), &bell);
        let first = lapic.scan(0);
        init.join().unwrap();
        let second = lapic.scan(0);
        // The INIT comes once, in either.
        assert!(first.init ^ second.init);
        // Who started before the INIT waits again, who started after it runs.
        let started_after = first.init && first.sipi.is_some();
        assert_eq!(lapic.waits_for_sipi(), !started_after);
        assert_eq!(second.sipi, None);
    });
}

/// What came before an INIT does not come after it.
#[test]
fn nmi_and_vector_before_init() {
    explore("nmi_and_vector_before_init", || {
        let (bus, mut lapic) = machine(true);
        let bell = Bell::new();
        let sender = spawn(move || {
            send(&bus, message(Delivery::Nmi, 0, false), &bell);
            send(&bus, message(Delivery::Fixed, VECTOR, false), &bell);
            send(&bus, message(Delivery::Init, 0, false), &bell);
        });
        let first = lapic.scan(0);
        sender.join().unwrap();
        let second = lapic.scan(0);
        assert!(first.init ^ second.init);
        if second.init {
            assert!(!second.nmi);
            assert_eq!(second.interrupt, None);
        }
    });
}
