//! What goes wrong around a VMM: it ends when it is asked to, loses nothing in
//! silence, and says what is wrong in one line. `ci/hostile` prints the list.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod control;
mod ends;
mod files;
mod input_output;
mod lines;
mod starts;
