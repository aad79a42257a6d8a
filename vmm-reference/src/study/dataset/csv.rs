//! A study's data as CSV: one line a repetition.

use std::io;

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;
use super::{CellKey, Dataset, Halts, Load, Repetition, Role, Series, Transport, Waiter};

/// A line. Units are in the names; what has no value is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What the guest does.
    pub load: Load,
    /// How it waits.
    pub waiter: Waiter,
    /// Who puts a waiter to sleep.
    pub halts: Halts,
    /// How a kick leaves the guest.
    pub transport: Transport,
    /// VMs.
    pub vms: u32,
    /// vCPUs of each.
    pub vcpus: u32,
    /// vCPUs a pCPU.
    pub ratio: Finite,
    /// Counted from 1; 0: none, the cell failed at once.
    pub repetition: usize,
    /// After the begin of the study.
    pub at_s: Option<Finite>,
    /// It ran so long.
    pub seconds: Option<Finite>,
    /// Of all vCPUs.
    pub acquisitions: Option<u64>,
    /// Acquisitions a second.
    pub rate_per_s: Option<Finite>,
    /// 1 is fair.
    pub least_share: Option<Finite>,
    /// 1 is fair.
    pub jain: Option<Finite>,
    /// Rounds of vCPUs that take no lock.
    pub background: Option<u64>,
    /// Exits from the guests to this process, a count over all vCPUs.
    pub exits: Option<u64>,
    /// HLTs that the guests executed, a count over all vCPUs.
    pub halt_count: Option<u64>,
    /// KVM_HC_KICK_CPU calls of the guests, a count over all vCPUs; of Linux all its
    /// hypercalls, which are kicks but for a few IPIs.
    pub kicks: Option<u64>,
    /// Host CPU seconds.
    pub running_s: Option<Finite>,
    /// Slept in a halt.
    pub halted_s: Option<Finite>,
    /// Held back by the scheduler.
    pub held_s: Option<Finite>,
    /// Ready, without a pCPU.
    pub run_delay_s: Option<Finite>,
    /// Median.
    pub wait_p50_ns: Option<u64>,
    /// 99th percentile.
    pub wait_p99_ns: Option<u64>,
    /// 99.9th percentile.
    pub wait_p999_ns: Option<u64>,
    /// Longest.
    pub wait_max_ns: Option<u64>,
    /// Part of a pCPU that a vCPU that takes locks had.
    pub locking_pcpu_share: Option<Finite>,
    /// The same of one that computes.
    pub computing_pcpu_share: Option<Finite>,
    /// The same of one that sleeps.
    pub sleeping_pcpu_share: Option<Finite>,
    /// Of each vCPU that sleeps.
    pub wakes_per_s: Option<Finite>,
    /// Kick to run, median.
    pub wake_p50_ns: Option<u64>,
    /// 99th percentile.
    pub wake_p99_ns: Option<u64>,
    /// Error of both: of the host's idea of the guest's clock.
    pub wake_error_ns: Option<u64>,
    /// Why there are no more.
    pub failure: Option<String>,
}

impl Line {
    fn new(data: &Dataset, key: &CellKey, number: usize, measured: Option<&Repetition>) -> Self {
        let Series {
            waiter,
            halts,
            transport,
        } = key.series;
        let wait = |q| measured.and_then(|r| r.waits.quantile(q));
        Self {
            load: key.load,
            waiter,
            halts,
            transport,
            vms: key.vms,
            vcpus: key.vcpus,
            ratio: data.ratio(key),
            repetition: number,
            at_s: measured.map(|r| r.at),
            seconds: measured.map(|r| r.seconds),
            acquisitions: measured.map(Repetition::total),
            rate_per_s: measured.and_then(Repetition::rate),
            least_share: measured.and_then(Repetition::least_share),
            jain: measured.and_then(Repetition::jain),
            background: measured.map(|r| r.background),
            exits: measured.map(|r| r.exits),
            halt_count: measured.map(|r| r.halts),
            kicks: measured.map(|r| r.kicks),
            running_s: measured.map(|r| r.running),
            halted_s: measured.map(|r| r.halted),
            held_s: measured.map(|r| r.held),
            run_delay_s: measured.map(|r| r.run_delay),
            wait_p50_ns: wait(0.5),
            wait_p99_ns: wait(0.99),
            wait_p999_ns: wait(0.999),
            wait_max_ns: wait(1.0),
            locking_pcpu_share: measured.and_then(|r| r.pcpu_share(Role::Locks)),
            computing_pcpu_share: measured.and_then(|r| r.pcpu_share(Role::Computes)),
            sleeping_pcpu_share: measured.and_then(|r| r.pcpu_share(Role::Sleeps)),
            wakes_per_s: measured.and_then(Repetition::wakes_per_s),
            wake_p50_ns: measured.and_then(|r| r.wake_quantile(0.5)),
            wake_p99_ns: measured.and_then(|r| r.wake_quantile(0.99)),
            wake_error_ns: measured.and_then(|r| r.beside.as_ref()?.wake_error_ns),
            failure: None,
        }
    }
}

/// The lines of a study. A cell that failed has one more, with the reason.
pub fn lines(data: &Dataset) -> Vec<Line> {
    let mut lines = Vec::new();
    for cell in &data.cells {
        for (number, repetition) in (1..).zip(&cell.repetitions) {
            lines.push(Line::new(data, &cell.key, number, Some(repetition)));
        }
        if let Some(reason) = &cell.failure {
            lines.push(Line {
                failure: Some(reason.clone()),
                ..Line::new(data, &cell.key, 0, None)
            });
        }
    }
    lines
}

/// The text, with a line of names.
pub fn write(data: &Dataset, to: impl io::Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    for line in lines(data) {
        writer.serialize(line).map_err(io::Error::other)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn round_trip() {
        let mut data = sample::dataset();
        data.cells[0].failure = Some("it \"hung\", and\nmore".to_string());
        let mut text = Vec::new();
        write(&data, &mut text).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_slice());
        let read: Vec<Line> = reader.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, lines(&data));
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let repetitions: usize = data.cells.iter().map(|c| c.repetitions.len()).sum();
        let failed = data.cells.iter().filter(|c| c.failure.is_some()).count();
        assert_eq!((failed, read.len()), (2, repetitions + failed));
    }
}
