//! Arguments in, exit status out; see [`vmm_reference`].

use std::process::ExitCode;

use vmm_reference::c_library;
use vmm_reference::cli::Cli;

fn main() -> ExitCode {
    c_library::share_one_arena();
    c_library::give_back_large_pieces();
    match Cli::from_args() {
        Ok(cli) => cli.run(),
        Err(status) => status,
    }
}
