//! Runs a model's body in the world that was built.

#[cfg(feature = "loom")]
pub use loom::sync::Mutex;
#[cfg(feature = "loom")]
pub use loom::thread::{spawn, yield_now as relax};
#[cfg(feature = "shuttle")]
pub use shuttle::sync::Mutex;
#[cfg(feature = "shuttle")]
pub use shuttle::thread::{spawn, yield_now as relax};
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub use std::sync::Mutex;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub use std::thread::{spawn, yield_now as relax};

use crate::waits;

/// Runs `body` in every order there is (loom), in many (shuttle), or often; says
/// how often under the name of the function that it is written in.
pub fn explore<F: Fn() + Send + Sync + 'static>(body: F) {
    let model = std::any::type_name::<F>()
        .trim_end_matches("::{{closure}}")
        .split_once("::")
        .map_or("?", |(_, path)| path);
    run(model, body);
}

#[cfg(feature = "loom")]
fn run(model: &str, body: impl Fn() + Send + Sync + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    let start = std::time::Instant::now();
    loom::model(move || {
        counted.fetch_add(1, Relaxed);
        crate::clock::reset();
        waits::reset();
        body();
    });
    let (executions, seconds) = (executions.load(Relaxed), start.elapsed().as_secs_f64());
    println!("loom: {model}: {executions} executions, {seconds:.1} s");
}

#[cfg(feature = "shuttle")]
fn run(model: &str, body: impl Fn() + Send + Sync + 'static) {
    const SCHEDULES: usize = 2_000;
    let body = move || {
        crate::clock::reset();
        waits::reset();
        body();
    };
    shuttle::check_random(body, SCHEDULES);
    println!("shuttle: {model}: {SCHEDULES} schedules");
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn run(model: &str, body: impl Fn() + Send + Sync + 'static) {
    const ROUNDS: usize = 2_000;
    for _ in 0..ROUNDS {
        waits::reset();
        body();
    }
    println!("native: {model}: {ROUNDS} rounds");
}
