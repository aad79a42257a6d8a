//! The conformance list for KVM_FEATURE_PV_UNHALT and KVM_HC_KICK_CPU: what a
//! guest may rely on, case by case, checked on every way to halt and kick that
//! this host has. `docs/CONFORMANCE.md` gives each case's source.
//!
//! - [`case`]: what a case consists of;
//! - [`cases`]: the list;
//! - [`mod@column`]: the ways, and which of them are possible here;
//! - [`guest`]: runs one case in one column, for a bounded time;
//! - [`entry`]: register states of its vCPUs;
//! - [`report`]: the matrix.

pub mod case;
pub mod cases;
pub mod column;
pub mod entry;
pub mod guest;
pub mod report;

use crate::host::{self, HostError};
use crate::probe::ProbeError;

use case::Case;
use column::{Column, Host};
pub use guest::RunError;

/// What came of a case in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected: how.
    Fail(String),
    /// Could not be tried: why.
    NotPossible(String),
}

/// A case's verdict in one column.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The case.
    pub case: &'static Case,
    /// Index of the column.
    pub column: usize,
    /// What came of it.
    pub verdict: Verdict,
}

/// All of it.
#[derive(Debug)]
pub struct Matrix {
    /// The columns of this host.
    pub columns: Vec<Column>,
    /// Case by case, and in each column by column.
    pub entries: Vec<Entry>,
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
    /// KVM is there and can't be asked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// KVM's CPUID.
    #[error(transparent)]
    Cpuid(#[from] crate::cpuid::CpuidError),
    /// No case of that name.
    #[error("--case {0}: no case has that in its name (--list tells the names)")]
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
    let host = match host::open_kvm() {
        Ok(kvm) => Ok(Host::find(kvm)?),
        Err(e) => Err(e),
    };
    let columns = column::all(host.as_ref().map_err(HostError::to_string));
    let mut entries = Vec::new();
    for case in cases {
        for (column, of) in columns.iter().enumerate() {
            let verdict = match &of.way {
                Err(why) => Verdict::NotPossible(why.clone()),
                Ok(way) => match guest::run(host.as_ref().ok(), *way, case) {
                    Ok(verdict) => verdict,
                    Err(RunError::Interrupted) => {
                        return Ok(Matrix {
                            columns,
                            entries,
                            interrupted: true,
                        });
                    }
                    Err(RunError::Failed(why)) => Verdict::Fail(why),
                },
            };
            entries.push(Entry {
                case,
                column,
                verdict,
            });
        }
    }
    Ok(Matrix {
        columns,
        entries,
        interrupted: false,
    })
}
