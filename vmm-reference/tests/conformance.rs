//! The whole list, on whatever this host has. What is not possible here is
//! printed with its reason; the hosted column always is possible.

use vmm_reference::conformance::{Verdict, matrix::text, run};

#[test]
fn no_case_fails_here() {
    let matrix = run("").unwrap();
    let text = text(&matrix);
    println!("{text}");
    assert!(!matrix.interrupted && !matrix.failed(), "{text}");
    let hosted = matrix
        .columns
        .iter()
        .position(|column| column.name == "hosted")
        .unwrap();
    let passed = || {
        let entries = matrix.entries.iter();
        entries.filter(|entry| entry.column == hosted && entry.verdict == Verdict::Pass)
    };
    let cases = matrix.entries.len() / matrix.columns.len();
    assert_eq!(passed().count(), cases);
    // All but the three about interrupts of their own.
    let in_flight = passed().filter(|entry| entry.interrupts_in_flight);
    assert_eq!(in_flight.count(), cases - 3);
}

#[test]
fn a_name_that_no_case_has_is_an_error() {
    let error = run("no such case").unwrap_err().to_string();
    assert!(error.contains("no such case"), "{error}");
}
