//! When the kernel put a thread on a pCPU and took it off again:
//! PERF_RECORD_SWITCH of perf_event_open(2), which asks for no privilege on
//! threads of one's own (`perf_event_paranoid` up to 2).

use std::io;

use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};
use rustix::thread::Pid;
use rustix::time::{ClockId, clock_gettime};

use super::Collector;
use super::spans::{Place, Switch};

/// PERF_RECORD_LOST.
const LOST: u32 = 2;
/// PERF_RECORD_SWITCH.
const SWITCH: u32 = 14;
/// PERF_RECORD_MISC_SWITCH_OUT.
const OUT: u16 = 1 << 13;
/// PERF_RECORD_MISC_SWITCH_OUT_PREEMPT.
const PREEMPTED: u16 = 1 << 14;

/// Bytes of records a thread, 32 a switch; when they are full, what follows is
/// lost.
const ROOM: usize = 1 << 20;

/// Records switches of some threads from its making on.
pub struct Switches {
    samplers: Vec<Sampler>,
    /// What CLOCK_MONOTONIC showed at the trace's time 0.
    epoch: u64,
}

impl std::fmt::Debug for Switches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switches")
            .field("threads", &self.samplers.len())
            .finish_non_exhaustive()
    }
}

impl Switches {
    /// Of these threads.
    ///
    /// # Errors
    /// The kernel does not allow it, or has no room.
    pub fn of(threads: &[Pid], collector: &Collector) -> io::Result<Self> {
        let samplers = threads.iter().map(|&thread| sampler(thread));
        let samplers = samplers.collect::<io::Result<_>>()?;
        let now = clock_gettime(ClockId::Monotonic);
        // Instant is that clock, too.
        let gone = collector.epoch().elapsed();
        let now = std::time::Duration::new(
            now.tv_sec.try_into().unwrap_or(0),
            now.tv_nsec.try_into().unwrap_or(0),
        );
        let epoch = u64::try_from(now.saturating_sub(gone).as_nanos()).unwrap_or(0);
        Ok(Self { samplers, epoch })
    }

    /// The switches of each thread, oldest first.
    pub fn take(mut self) -> Vec<Vec<Switch>> {
        let epoch = self.epoch;
        let read = |sampler: &mut Sampler| {
            let mut switches = Vec::new();
            while let Some(record) = sampler.next_record() {
                match record.ty() {
                    SWITCH => {
                        let switch = parse(&record.to_contiguous(), record.misc(), epoch);
                        switches.extend(switch);
                    }
                    // What follows is not what the thread did.
                    LOST => break,
                    _ => {}
                }
            }
            switches
        };
        self.samplers.iter_mut().map(read).collect()
    }
}

fn sampler(thread: Pid) -> io::Result<Sampler> {
    let mut builder = Builder::new(Software::DUMMY);
    builder
        .observe_pid(thread.as_raw_nonzero().get())
        .sample(SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU)
        .sample_id_all(true)
        .context_switch(true)
        .clockid(Clock::MONOTONIC)
        // Nobody waits for it to fill.
        .wakeup_watermark(usize::MAX >> 33)
        .enabled(true);
    builder.build()?.sampled(ROOM)
}

/// A record's `sample_id`: pid and tid, time, CPU and padding; see
/// perf_event_open(2).
fn parse(body: &[u8], misc: u16, epoch: u64) -> Option<Switch> {
    let (_, rest) = body.split_at_checked(8)?;
    let (time, rest) = rest.split_first_chunk()?;
    let cpu = u32::from_ne_bytes(*rest.first_chunk()?);
    Some(Switch {
        at: u64::from_ne_bytes(*time).saturating_sub(epoch),
        now: match (misc & OUT != 0, misc & PREEMPTED != 0) {
            (false, _) => Place::On(cpu),
            (true, true) => Place::Preempted,
            (true, false) => Place::Asleep,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_sleeps_is_off_and_on_again() {
        let collector = Collector::new(1);
        let me = rustix::thread::gettid();
        let switches = match Switches::of(&[me], &collector) {
            Ok(switches) => switches,
            Err(e) => {
                println!("no context switches here: {e}");
                return;
            }
        };
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(3));
        }
        let all = switches.take().remove(0);
        // Behind it: this thread may be preempted at any moment.
        let end = u64::try_from(collector.epoch().elapsed().as_nanos()).unwrap();
        let sleeps = all.windows(2).filter(|pair| {
            let asleep = pair[0].now == Place::Asleep && matches!(pair[1].now, Place::On(_));
            asleep && pair[1].at - pair[0].at >= 2_500_000
        });
        assert!(sleeps.count() >= 3, "{all:?}");
        assert!(all.is_sorted_by_key(|switch| switch.at));
        assert!(all.iter().all(|switch| switch.at <= end), "{end}: {all:?}");
    }

    #[test]
    fn records_cut_short_are_none() {
        assert_eq!(parse(&[0; 12], 0, 0), None);
        let mut body = [0u8; 24];
        body[8..16].copy_from_slice(&500u64.to_ne_bytes());
        body[16] = 3;
        let switch = |now| Some(Switch { at: 400, now });
        assert_eq!(parse(&body, 0, 100), switch(Place::On(3)));
        assert_eq!(parse(&body, OUT, 100), switch(Place::Asleep));
        assert_eq!(parse(&body, OUT | PREEMPTED, 100), switch(Place::Preempted));
    }
}
