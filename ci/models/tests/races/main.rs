//! Every race of the scheduler, in every order that loom finds.
//!
//! `ci/loom` runs these and prints the number of executions of each; natively
//! the same bodies run many times over. Each model says what must hold; a lost
//! wake-up is found as a deadlock (or, run natively, as a test that does not come
//! back), a missing ordering as a causality violation of the payload's cell.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod elsewhere;
mod halt;
mod hold;
mod idle;
mod owner;
mod pause;
mod saved;
mod slice;
