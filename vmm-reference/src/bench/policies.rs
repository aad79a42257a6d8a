//! The scheduler's policies against each other, in the demo's guest.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum as _;
use cpuid_features::Selection;

use super::mean;
use crate::demo::cell::CellError;
use crate::demo::{self, Backend, DemoConfig, DemoError, Mode, Workload};
use crate::halt_mode::HaltMode;
use crate::policy::{Policy, PollPolicy, YieldPolicy};
use crate::signals::ending::Interrupted;
use crate::{host, stderr};

/// Rates by policy and overcommit.
#[derive(Debug)]
pub struct PolicyTable {
    backend: &'static str,
    vcpus: Vec<u32>,
    rows: Vec<(Policy, Vec<f64>)>,
}

/// Runs pv mode with each pair of policies at 1x, 2x, 4x and 8x, each cell `turns`
/// times for `time`. They take turns, so that drift hits all alike.
pub fn measure(backend: &Backend, turns: usize, time: Duration) -> Result<PolicyTable, DemoError> {
    let cpus = u32::try_from(host::cpus()).unwrap_or(1);
    let vcpus: Vec<u32> = [1, 2, 4, 8].map(|x| x * cpus).to_vec();
    let policies: Vec<Policy> = YieldPolicy::value_variants()
        .iter()
        .flat_map(|&yielding| {
            let polls = PollPolicy::value_variants().iter();
            polls.map(move |&polling| Policy { yielding, polling })
        })
        .collect();
    let mut rates = vec![vec![Vec::with_capacity(turns); vcpus.len()]; policies.len()];
    for turn in 0..turns {
        for (policy, rates) in policies.iter().zip(&mut rates) {
            stderr::message(format_args!(
                "turn {} of {turns}: {}",
                turn + 1,
                name(policy)
            ));
            let config = DemoConfig {
                vcpus: vcpus.clone(),
                vms: Vec::new(),
                modes: vec![Mode::Pv],
                halt: Some(HaltMode::Userspace),
                transport: None,
                time,
                pv: Selection::default(),
                workload: Workload::default(),
                policy: *policy,
                trace: None,
            };
            let cells = demo::plan(&config, backend)?;
            let outcome = demo::run(&config, backend, &cells, &mut ())?;
            if outcome.interrupted {
                return Err(CellError::Interrupted(Interrupted).into());
            }
            for (row, rates) in outcome.rows.iter().zip(rates) {
                rates.push(row.ops_per_s);
            }
        }
    }
    // Means: two vCPUs fall into step with each other or do not, for as long as
    // they run, and their rate with it; a median would be one of two figures.
    let rows = policies.into_iter().zip(rates).map(|(policy, rates)| {
        let rates = rates.iter().map(|turns| mean(turns)).collect();
        (policy, rates)
    });
    Ok(PolicyTable {
        backend: backend.kind().name(),
        vcpus,
        rows: rows.collect(),
    })
}

fn name(policy: &Policy) -> String {
    let [yielding, polling] = [
        policy.yielding.to_possible_value(),
        policy.polling.to_possible_value(),
    ]
    .map(|value| value.map_or_else(String::new, |value| value.get_name().to_string()));
    format!("{yielding} | {polling}")
}

impl PolicyTable {
    /// What follows a kick matters to no VM that has as many CPUs as vCPUs: the
    /// mean of all that differ in it only.
    fn rate_at_1x(&self, polling: PollPolicy) -> f64 {
        let rows = self.rows.iter().filter(|(p, _)| p.polling == polling);
        let first: Vec<f64> = rows
            .filter_map(|(_, rates)| rates.first().copied())
            .collect();
        mean(&first)
    }

    /// For docs/POLICIES.md.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let cpus = host::cpus();
        // Writing to a String does not fail.
        let _ = write!(out, "| {} yield | poll |", self.backend);
        for vcpus in &self.vcpus {
            let _ = write!(
                out,
                " {vcpus} vCPUs ({}x) |",
                f64::from(*vcpus) / cpus as f64
            );
        }
        let _ = write!(out, "\n|---|---|{}\n", "--:|".repeat(self.vcpus.len()));
        for (policy, rates) in &self.rows {
            let _ = write!(out, "| {} |", name(policy));
            let first = self.rate_at_1x(policy.polling);
            for rate in rates {
                let _ = write!(out, " {rate:.0} ({:.0} %) |", rate / first * 100.0);
            }
            out.push('\n');
        }
        out
    }
}
