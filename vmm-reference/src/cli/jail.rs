//! `--no-jail`, of every command that runs guests.

use clap::Args;

use super::AnyError;
use crate::{jail, signals, stderr};

/// The jail, or none.
#[derive(Debug, Args)]
pub(super) struct JailArgs {
    /// Run without a jail, to debug: no seccomp filters, capabilities are kept, and
    /// privileges may be gained by exec
    #[arg(long)]
    no_jail: bool,
}

/// What is said of it on standard error.
const WITHOUT: &str = "no jail: a guest that breaks out has all system calls and all \
                       capabilities of this process";

impl JailArgs {
    /// Before the first thread is started. Signals are handled from now on: in the
    /// jail no handler is installed any more.
    pub(super) fn arm(&self) -> Result<(), AnyError> {
        signals::install()?;
        if self.no_jail {
            stderr::message(WITHOUT);
            return Ok(());
        }
        Ok(jail::arm()?)
    }
}
