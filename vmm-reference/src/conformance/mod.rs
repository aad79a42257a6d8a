//! The conformance list for KVM_FEATURE_PV_UNHALT and KVM_HC_KICK_CPU: what a
//! guest may rely on, case by case, checked with every halt mode and transport
//! that this host has. `docs/CONFORMANCE.md` gives each case's source.
//!
//! - [`case`]: what a case consists of;
//! - [`cases`]: the list;
//! - [`mod@column`]: halt modes and transports, and which are possible here;
//! - [`script_image`]: a case's guest; [`start`]: its vCPUs' registers;
//! - [`trial_run`]: runs one case in one column, for a bounded time;
//! - `in_flight`: a case once more, with interrupts in flight;
//! - [`matrix`]: the verdicts, for a person and as JSON.

pub mod case;
pub mod cases;
pub mod column;
mod in_flight;
pub mod matrix;
pub mod script_image;
pub mod start;
pub mod trial_run;

use crate::host::{HostError, KvmHost};
use crate::jail::{self, JailError, ThreadKind};
use crate::probe::{ProbeError, ProbedHost};

use case::Case;
use column::Column;
pub use trial_run::CaseError;

/// The outcome of a case in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected: how.
    Fail(String),
    /// Could not be tried: why.
    NotPossible(String),
}

/// The verdict on one case in one column.
#[derive(Clone, Debug)]
pub struct CaseVerdict {
    /// The case.
    pub case: &'static Case,
    /// Index of the column.
    pub column: usize,
    /// Its outcome.
    pub verdict: Verdict,
    /// It was run with interrupts in flight too.
    pub interrupts_in_flight: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Matrix {
    /// The columns of this host.
    pub columns: Vec<Column>,
    /// Case by case, and in each column by column.
    pub entries: Vec<CaseVerdict>,
    /// Ended by a signal before all was tried.
    pub interrupted: bool,
}

impl Matrix {
    /// Whether any case failed.
    pub fn failed(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry.verdict, Verdict::Fail(_)))
    }
}

/// Why the list could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The main thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// KVM is there and can't be asked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No case of that name.
    #[error("--case {0}: no case has that in its name (--list prints the names)")]
    NoSuchCase(String),
}

/// Runs all cases whose name contains `filter`.
pub fn run(filter: &str) -> Result<Matrix, ConformanceError> {
    let cases: Vec<&'static Case> = cases::ALL
        .iter()
        .copied()
        .flatten()
        .filter(|case| case.name.contains(filter))
        .collect();
    if cases.is_empty() {
        return Err(ConformanceError::NoSuchCase(filter.to_string()));
    }
    let host = match KvmHost::open() {
        Ok(host) => Ok(ProbedHost::probe(host)?),
        Err(e) => Err(e),
    };
    jail::enter(ThreadKind::Builder)?;
    let columns = column::all(host.as_ref().map_err(HostError::to_string));
    let kvm = host.as_ref().ok().map(|probed| &probed.host);
    let mut entries = Vec::new();
    for case in cases {
        for (column, of) in columns.iter().enumerate() {
            let (verdict, interrupts_in_flight) = match &of.halt_kick {
                Err(why) => (Verdict::NotPossible(why.clone()), false),
                Ok(halt_kick) => match trial_run::run(kvm, *halt_kick, of, case) {
                    Ok(trial) => (trial.verdict, trial.interrupts_in_flight),
                    Err(CaseError::Interrupted) => {
                        return Ok(Matrix {
                            columns,
                            entries,
                            interrupted: true,
                        });
                    }
                    Err(CaseError::Failed(why)) => (Verdict::Fail(why), false),
                },
            };
            entries.push(CaseVerdict {
                case,
                column,
                verdict,
                interrupts_in_flight,
            });
        }
    }
    Ok(Matrix {
        columns,
        entries,
        interrupted: false,
    })
}
