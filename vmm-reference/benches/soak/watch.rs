//! What all threads of the soak share: whether it goes on, the first fault, and what
//! was done how often.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    over: bool,
    fault: Option<String>,
    gaps: u64,
    done: BTreeMap<&'static str, u64>,
}

/// One for the whole soak.
#[derive(Debug)]
pub(crate) struct Watch {
    begin: Instant,
    /// For what its processes write, temporary files too.
    pub(crate) dir: PathBuf,
    state: Mutex<State>,
    ended: Condvar,
}

/// A thing that went wrong, by name.
pub(crate) type Fault = String;

impl Watch {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            begin: Instant::now(),
            dir,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Where this process's files go by this name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Counts one.
    pub(crate) fn done(&self, what: &'static str) {
        *self.state().done.entry(what).or_default() += 1;
    }

    /// What was done, with counts.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().done.clone()
    }

    /// It was stopped or frozen itself, until now.
    pub(crate) fn gap(&self) {
        self.state().gaps += 1;
    }

    /// How often that was so.
    pub(crate) fn gaps(&self) -> u64 {
        self.state().gaps
    }

    /// The first one stays, and ends the soak.
    pub(crate) fn judge(&self, outcome: Result<(), Fault>) {
        if let Err(fault) = outcome {
            let at = self.elapsed().as_secs_f64();
            let mut state = self.state();
            state.fault.get_or_insert(format!("{fault} (at {at:.1} s)"));
            state.over = true;
            drop(state);
            self.ended.notify_all();
        }
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.state().fault.clone()
    }

    pub(crate) fn end(&self) {
        self.state().over = true;
        self.ended.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Sleeps, or less if it is over meanwhile; whether to go on.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self.ended.wait_timeout_while(state, time, |s| !s.over);
        !waited.unwrap_or_else(PoisonError::into_inner).0.over
    }
}
