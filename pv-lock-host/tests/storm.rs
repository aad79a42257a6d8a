//! Kicks by the million, at sleeping, falling asleep, waking and running vCPUs
//! on few CPUs, while signals interrupt the sleepers and the whole process is
//! stopped and continued. Not one may be lost.
//!
//! `cargo test` runs a short one; `ci/storm` the full one (`PV_STORM_KICKS`).
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]
#![expect(unsafe_code, reason = "signals to single threads are sent by libc")]

use std::os::unix::thread::JoinHandleExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{ApicId, HaltScheduler, WakeReason};

const VCPUS: u32 = 8;
const KICKERS: u64 = 3;
/// Set for the process that is stopped and continued.
const CHILD: &str = "PV_STORM_CHILD";

fn kicks() -> u64 {
    std::env::var("PV_STORM_KICKS").map_or(2_000_000, |n| n.parse().unwrap())
}

extern "C" fn nothing(_: libc::c_int) {}

/// Each kick announces one more piece of work for its vCPU; the vCPU halts only
/// when it has found none. So a lost kick is work that is never done.
fn storm(kicks: u64) {
    // SAFETY: the handler does nothing, so it may run anywhere. No SA_RESTART:
    // the sleep is to be interrupted.
    unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
    let ids: Vec<ApicId> = (0..VCPUS).map(ApicId).collect();
    let (scheduler, parkers) = HaltScheduler::new(&ids).unwrap();
    let announced: Arc<[AtomicU64]> = ids.iter().map(|_| AtomicU64::new(0)).collect();
    let done: Arc<[AtomicU64]> = ids.iter().map(|_| AtomicU64::new(0)).collect();

    let vcpus: Vec<_> = parkers
        .into_iter()
        .zip(0..)
        .map(|(mut parker, n): (_, usize)| {
            let (announced, done) = (Arc::clone(&announced), Arc::clone(&done));
            thread::spawn(move || {
                let (announced, done) = (announced.get(n).unwrap(), done.get(n).unwrap());
                loop {
                    // Relaxed, both: that the count is seen behind a kick is
                    // what the kick promises.
                    let work = announced.load(Ordering::Relaxed);
                    if work != done.load(Ordering::Relaxed) {
                        done.store(work, Ordering::Relaxed);
                    } else if parker.halt() == WakeReason::Stopped {
                        return;
                    }
                }
            })
        })
        .collect();

    let quiet = AtomicBool::new(false);
    thread::scope(|scope| {
        let kickers: Vec<_> = (0..KICKERS)
            .map(|seed| {
                let (kicker, announced) = (scheduler.kicker(), Arc::clone(&announced));
                scope.spawn(move || {
                    let mut random = seed + 1;
                    for n in 0..kicks / KICKERS {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let to = u32::try_from(random >> 32).unwrap() % VCPUS;
                        announced
                            .get(to as usize)
                            .unwrap()
                            .fetch_add(1, Ordering::Relaxed);
                        kicker.kick_by_host(ApicId(to));
                        // Bursts, and lulls in which the vCPUs fall asleep.
                        if n % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let quiet = &quiet;
        let vcpus = &vcpus;
        scope.spawn(move || {
            for vcpu in vcpus.iter().cycle() {
                if quiet.load(Ordering::Relaxed) {
                    break;
                }
                // SAFETY: the thread has not been joined, so its id is valid.
                unsafe { libc::pthread_kill(vcpu.as_pthread_t(), libc::SIGUSR1) };
                thread::sleep(Duration::from_micros(200));
            }
        });
        for kicker in kickers {
            kicker.join().unwrap();
        }
        quiet.store(true, Ordering::Relaxed);
    });

    // All has been announced; all must get done, without another kick.
    let patience = Instant::now() + Duration::from_secs(60);
    let left = || {
        let pairs = announced.iter().zip(done.iter());
        pairs
            .filter(|(a, d)| a.load(Ordering::Relaxed) != d.load(Ordering::Relaxed))
            .count()
    };
    while left() > 0 {
        assert!(
            Instant::now() < patience,
            "{} vCPUs sleep though kicked",
            left()
        );
        thread::yield_now();
    }
    let total = scheduler.counters().total();
    assert_eq!(total.kicks(), kicks / KICKERS * KICKERS);
    scheduler.kicker().stop_all();
    for vcpu in vcpus {
        vcpu.join().unwrap();
    }
    println!(
        "storm: {} kicks ({} woke, {} latched, {} already latched), {} sleeps, {} spurious wakes, none lost",
        total.kicks(),
        total.kicks_woke,
        total.kicks_latched,
        total.kicks_already_latched,
        total.sleeps,
        total.spurious_wakes
    );
}

/// A process that does not outlive its test, however that ends.
struct OfThisTest(Child);

impl Drop for OfThisTest {
    fn drop(&mut self) {
        // It may have ended. SIGKILL ends one that is stopped, too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs itself in a process of its own, and stops and continues that.
#[test]
fn no_kick_is_lost() {
    if std::env::var_os(CHILD).is_some() {
        return storm(kicks());
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "no_kick_is_lost", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::inherit());
    let mut child = OfThisTest(command.spawn().unwrap());
    let child = &mut child.0;
    let pid = child.id().cast_signed();
    let mut stops = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        for signal in [libc::SIGSTOP, libc::SIGCONT] {
            // SAFETY: the child has not been waited for, so the id is its own.
            unsafe { libc::kill(pid, signal) };
            thread::sleep(Duration::from_millis(5));
        }
        stops += 1;
    };
    println!("storm: stopped and continued {stops} times");
    assert!(status.success(), "the storm ended with {status}");
}
