//! The filters as Markdown, for `docs/JAIL.md`.

use core::fmt::Write as _;

use super::call::{Call, When, name};
use super::filters::{self, Part};
use super::request::Request;

/// A table for each part, and which kind of thread has which parts.
pub fn markdown() -> String {
    let mut out = String::new();
    for part in Part::ALL {
        // Writing to a String does not fail.
        let _ = writeln!(out, "### {}\n\n{}\n", part.title(), part.about());
        if filters::rows(part).is_empty() {
            continue;
        }
        out.push_str("| system call | with | why |\n|---|---|---|\n");
        for call in filters::rows(part) {
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                name(call.number),
                condition(call),
                call.why
            );
        }
        out.push('\n');
    }
    out
}

fn condition(call: &Call) -> String {
    let names = |requests: &[Request]| {
        let names: Vec<&str> = requests.iter().map(|request| request.name).collect();
        names.join(", ")
    };
    let plain = |when: When| match when {
        When::Always => String::new(),
        When::Bits { says, .. } => says.to_string(),
        When::OwnProcess => "this process".to_string(),
        When::Requests(requests) => names(requests).replace('*', "\\*"),
        When::OnStdin(request) => format!("{} on standard input", request.name),
        When::Refused | When::RefusedIf(_) => "fails with EACCES".to_string(),
    };
    match call.when {
        When::RefusedIf(when) => format!("{}: fails with EACCES", plain(*when)),
        when => plain(when),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_has_what_the_filters_have() {
        let document = include_str!("../../docs/JAIL.md");
        let (_, printed) = document.split_once("<!-- printed -->\n\n").unwrap();
        assert_eq!(
            printed.trim_end(),
            super::markdown().trim_end(),
            "cargo run -p vmm-reference --example jail prints what is to be there"
        );
    }
}
