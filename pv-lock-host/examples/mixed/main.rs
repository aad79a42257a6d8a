//! What each policy does to every kind of load: vCPUs that sleep, that a device
//! notifies, that compute, and that take locks, alone and side by side. Threads
//! stand for vCPUs; what they do is in loads.rs.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example mixed -- \
//!     [--json] [--milliseconds N] [--turns N] [--load NAME]
//! ```
//! The policies take turns, so that whatever else happens on the machine hits all
//! alike; what is printed are medians over the turns, and ratios are taken within
//! a turn. `--milliseconds` is how long each is measured in a turn (300 without
//! it), `--turns` how many there are (5), `--load` a part of the names of the
//! loads that are run (all).
//!
//! JSON: an array of objects with
//! - `load`, `policy`, `host_cpus`: which; so many CPUs the vCPUs share;
//! - `wake_p50_us`, `wake_p99_us`, `wakes`: from when a timer or a device was due
//!   until the guest ran, and how often in one measurement; with locks alone from
//!   a kick until the guest runs (one of eight is timed, in powers of two);
//! - `cpu_shares`: by vCPU, its thread's CPU time by wall time;
//! - `lock_rate`: acquisitions a second, null without locks;
//! - `idle_while_waiting`: at most this part of the CPUs' time was idle while a
//!   vCPU was held or waited for a CPU.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an example that cannot do its work says why and stops"
)]

mod guest;
mod loads;
mod lock;
mod measure;
mod meter;
mod report;

use std::time::Duration;

use pv_lock_host::Yielding;

use measure::Sample;

/// By the names that they are reported under.
fn policies() -> [(&'static str, Yielding); 3] {
    [
        ("default", Yielding::default()),
        ("nothing", Yielding::Nothing),
        ("sched_yield", Yielding::SchedYield),
    ]
}

/// Which of them the others are compared with.
const NOTHING: usize = 1;

struct Options {
    json: bool,
    time: Duration,
    turns: usize,
    load: String,
}

/// One load's samples, by policy, then by turn.
struct Results {
    load: loads::Load,
    samples: Vec<Vec<Sample>>,
}

fn main() {
    let (options, policies) = (options(), policies());
    let mut results: Vec<Results> = loads::all()
        .into_iter()
        .filter(|load| load.name.contains(&options.load))
        .map(|load| Results {
            load,
            samples: vec![Vec::new(); policies.len()],
        })
        .collect();
    if results.is_empty() {
        let names: Vec<_> = loads::all().into_iter().map(|load| load.name).collect();
        panic!(
            "no load has '{}' in its name: {}",
            options.load,
            names.join(", ")
        );
    }
    for turn in 0..options.turns {
        for of in &mut results {
            // Another one begins each time: nobody always follows the same one.
            for k in 0..policies.len() {
                let policy = (turn + k) % policies.len();
                if let (Some((_, yielding)), Some(samples)) =
                    (policies.get(policy), of.samples.get_mut(policy))
                {
                    samples.push(measure::run(&of.load, *yielding, options.time));
                }
            }
        }
    }
    match options.json {
        true => report::json(&results),
        false => report::table(&results, &options),
    }
}

/// One line on what was wrong with the arguments, and status 2.
fn usage(wrong: &str) -> ! {
    eprintln!("mixed: {wrong}; the top of its source says what there is");
    std::process::exit(2)
}

fn options() -> Options {
    let mut options = Options {
        json: false,
        time: Duration::from_millis(300),
        turns: 5,
        load: String::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| usage(&format!("{arg} needs a value")))
        };
        let number = |value: String| match value.parse::<u32>() {
            Ok(n) if n > 0 => n,
            _ => usage(&format!("{value} is not a number above zero")),
        };
        match arg.as_str() {
            "--json" => options.json = true,
            "--milliseconds" => options.time = Duration::from_millis(number(value()).into()),
            "--turns" => options.turns = number(value()) as usize,
            "--load" => options.load = value(),
            _ => usage(&format!("unknown argument {arg}")),
        }
    }
    options
}
