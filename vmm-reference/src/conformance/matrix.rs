//! The matrix for a person, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Matrix, Verdict};
use crate::halt_mode::HaltMode;
use crate::transport::Transport;

/// One verdict, in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictRow {
    /// The case.
    pub case: &'static str,
    /// `userspace-port`, `userspace-xen`, `kernel` or `hosted`.
    pub column: &'static str,
    /// Who halts, where the column is possible: `userspace` or `kernel`.
    pub halt: Option<&'static str>,
    /// The hypercall transport, where the column is possible.
    pub transport: Option<&'static str>,
    /// The same under its old name, for one release.
    pub door: Option<&'static str>,
    /// `pass`, `fail` or `not possible here`.
    pub verdict: &'static str,
    /// It was run with interrupts in flight too.
    pub interrupts_in_flight: bool,
    /// What was expected.
    pub expects: &'static str,
    /// How it failed, or why it is not possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All verdicts.
pub fn rows(matrix: &Matrix) -> Vec<VerdictRow> {
    let rows = matrix.entries.iter().filter_map(|entry| {
        let column = matrix.columns.get(entry.column)?;
        let halt_kick = column.halt_kick.as_ref().ok();
        let transport = halt_kick.map(|hk| hk.transport.name(column.instruction));
        let (verdict, reason) = match &entry.verdict {
            Verdict::Pass => ("pass", None),
            Verdict::Fail(why) => ("fail", Some(why.clone())),
            Verdict::NotPossible(why) => ("not possible here", Some(why.clone())),
        };
        Some(VerdictRow {
            case: entry.case.name,
            column: column.name,
            halt: halt_kick.map(|hk| hk.halt.name()),
            transport,
            door: transport,
            verdict,
            interrupts_in_flight: entry.interrupts_in_flight,
            expects: entry.case.expects,
            reason,
        })
    });
    rows.collect()
}

/// The matrix, its notes and a sum.
pub fn text(matrix: &Matrix) -> String {
    let mut out = String::new();
    let mut notes: Vec<String> = Vec::new();
    let mut fails = String::new();
    let (mut pass, mut in_flight, mut fail, mut not) = (0u32, 0u32, 0u32, 0u32);
    // Writing to a String does not fail; `let _` says that it was seen.
    for column in &matrix.columns {
        let _ = match &column.halt_kick {
            Ok(hk) => writeln!(
                out,
                "{:<14}  halts in {}, hypercalls by {}",
                column.name,
                match hk.halt {
                    HaltMode::Userspace => "this process",
                    HaltMode::Kernel => "KVM",
                },
                match hk.transport {
                    Transport::Port => "the doorbell port",
                    Transport::Xen | Transport::Kvm => column.instruction.name(),
                    Transport::Hosted => "a call: host threads, no KVM",
                }
            ),
            Err(why) => writeln!(out, "{:<14}  not possible here: {why}", column.name),
        };
    }
    let width = matrix.entries.iter().map(|e| e.case.name.len()).max();
    let width = width.unwrap_or(0).max("case".len());
    let _ = write!(out, "\n{:<width$}", "case");
    for column in &matrix.columns {
        let _ = write!(out, "  {:<14}", column.name);
    }
    let mut last = "";
    for entry in &matrix.entries {
        if entry.case.name != last {
            last = entry.case.name;
            let _ = write!(out, "\n{last:<width$}");
        }
        let cell = match &entry.verdict {
            Verdict::Pass => {
                pass += 1;
                in_flight += u32::from(entry.interrupts_in_flight);
                match entry.interrupts_in_flight {
                    true => "pass i".to_string(),
                    false => "pass".to_string(),
                }
            }
            Verdict::Fail(why) => {
                fail += 1;
                let column = matrix.columns.get(entry.column).map_or("", |c| c.name);
                let _ = writeln!(fails, "FAIL {last}, {column}: {why}");
                let _ = writeln!(fails, "     expected: {}", entry.case.expects);
                "FAIL".to_string()
            }
            Verdict::NotPossible(why) => {
                not += 1;
                let known = notes.iter().position(|note| note == why);
                let note = known.unwrap_or_else(|| {
                    notes.push(why.clone());
                    notes.len() - 1
                });
                format!("- ({})", note + 1)
            }
        };
        let _ = write!(out, "  {cell:<14}");
    }
    out = out
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n");
    out.push_str("\n\n");
    for (i, note) in notes.iter().enumerate() {
        let _ = writeln!(out, "({}) not possible here: {note}", i + 1);
    }
    out.push_str(&fails);
    let _ = writeln!(
        out,
        "{pass} pass, {in_flight} of them with interrupts in flight too (i), {fail} fail, {not} not possible here"
    );
    out
}
