//! More vCPUs than loom can hold, under schedules drawn at random.
//!
//! `ci/shuttle` runs these with shuttle, where a schedule that ends in a deadlock
//! is a failure; without it the same bodies run natively. Loom knows no more than
//! five threads.
#![cfg(not(feature = "loom"))]
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod convoy;
mod wave;
