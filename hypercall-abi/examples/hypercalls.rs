//! Prints the hypercall table.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use hypercall_abi::{Document, Format};

const HELP: &str = "\
Prints every KVM hypercall: numbers, arguments, results, features.

Usage: hypercalls [--format FORMAT]

Formats:
  kernel    text in the shape of the kernel's hypercalls.rst (default)
  markdown  the crate's docs/HYPERCALLS.md
  tsv       one line each: arch, nr, name, status, gate
  json      one array of objects with every field

Examples:
  hypercalls --format tsv | awk -F'\\t' '$1 == \"x86\"'
  hypercalls --format json | jq '.[] | select(.name == \"KVM_HC_KICK_CPU\")'
";

fn main() -> ExitCode {
    let format = match parse(std::env::args().skip(1)) {
        Ok(Some(format)) => format,
        Ok(None) => return print(HELP),
        Err(message) => {
            eprintln!("hypercalls: {message}; try --help");
            return ExitCode::from(2);
        }
    };
    print(Document::new(format))
}

/// The format asked for, or `None` for help.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Format>, String> {
    let mut format = Format::Kernel;
    while let Some(arg) = args.next() {
        let name = match arg.split_once('=') {
            _ if arg == "--help" || arg == "-h" => return Ok(None),
            _ if arg == "--format" => args.next().ok_or("--format wants a name")?,
            Some(("--format", name)) => name.to_owned(),
            _ => return Err(format!("unknown argument {arg:?}")),
        };
        format = name
            .parse()
            .map_err(|known| format!("unknown format {name:?}, {known}"))?;
    }
    Ok(Some(format))
}

/// A reader that went away, as `head` does, is no error.
fn print(document: impl std::fmt::Display) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match write!(out, "{document}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("hypercalls: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
