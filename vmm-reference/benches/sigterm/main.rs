//! From SIGTERM to the process's end: a number of starts, each signalled at a
//! random moment, in the situations that could hold an end up.
//!
//! ```text
//! cargo bench -p vmm-reference --bench sigterm -- --count 1000
//! ```
//!
//! A time is the process's, in milliseconds: from the signal until it can be waited
//! for. A status that is none of an end that was asked for is an error and printed;
//! the number of ends by force stands below the table.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that can't be made fails by panicking, and prints"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod situation;

use std::time::Duration;

use clap::Parser;

use common::{Scratch, kvm};
use situation::{ALL, Files, Situation, one};

/// What `cargo bench` passes on, too.
#[derive(Debug, Parser)]
struct Options {
    /// Starts, of all situations together
    #[arg(long, default_value_t = 40)]
    count: u32,
    /// Only situations whose names begin so
    #[arg(long, default_value = "")]
    only: String,
    /// Seed of the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, hide = true)]
    bench: bool,
}

/// Nothing that was asked to end is to take longer.
const LIMIT: Duration = Duration::from_secs(1);
/// Moments are up to here.
const LATEST: Duration = Duration::from_millis(1500);

/// A random number: the moments have to be spread, and no more.
fn next(state: &mut u64) -> u64 {
    // xorshift64, Marsaglia 2003.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn main() {
    let options = Options::parse();
    let dir = Scratch::new("sigterm");
    let files = Files::new(&dir, "");
    let here = kvm();
    let wanted = |s: &&Situation| format!("{s:?}").starts_with(&options.only);
    let situations = ALL.iter().filter(|s| here || !s.needs_kvm());
    let situations: Vec<Situation> = situations.filter(wanted).copied().collect();
    if situations.is_empty() {
        println!("no situation begins with {:?}: {ALL:?}", options.only);
        std::process::exit(2);
    }
    let mut state = options.seed.max(1);
    let mut all = Vec::new();
    let (mut wrong, mut forced) = (0, 0);
    println!("SIGTERM to exit              starts   p50 ms   p99 ms   max ms");
    for (index, &situation) in (0u32..).zip(&situations) {
        let number = u32::try_from(situations.len()).unwrap();
        // The first ones have what does not divide.
        let starts = options.count / number + u32::from(index < options.count % number);
        let mut times = Vec::new();
        for _ in 0..starts {
            let most = u64::try_from(LATEST.as_micros()).unwrap();
            let moment = Duration::from_micros(next(&mut state) % most);
            match one(situation, &files, moment) {
                Ok(None) => {}
                Ok(Some(end)) => {
                    times.push(end.took);
                    forced += u32::from(end.forced);
                }
                Err(what) => {
                    println!("{situation:?} at {moment:?}: {what}");
                    wrong += 1;
                }
            }
        }
        times.sort();
        row(&format!("{situation:?}"), &times);
        all.extend(times);
    }
    all.sort();
    row("all", &all);
    let slow = all.iter().filter(|&&took| took > LIMIT).count();
    println!("{slow} took longer than 1 s; {forced} ended by force; {wrong} had another status");
    if wrong > 0 {
        drop(dir);
        std::process::exit(1);
    }
}

fn row(name: &str, sorted: &[Duration]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:<28} {:>6} {:>8.1} {:>8.1} {:>8.1}",
        sorted.len(),
        ms(quantile(sorted, 50)),
        ms(quantile(sorted, 99)),
        ms(sorted.last().copied().unwrap_or_default()),
    );
}
