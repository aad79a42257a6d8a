//! How long from a kick until the kicked thread runs, compared with every
//! other way to park a thread, in one run.
//!
//! Two threads kick each other; a round trip is two hand-overs. The contenders
//! take turns in short rounds, so that whatever drifts (clocks, caches, another
//! load on the machine) hits all alike, and what is compared are ratios to the
//! raw futex within the same round.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example handoff -- \
//!     [--json] [--place apart|together|free] [--rounds N] [--trips N]
//! ```
//! `apart` (without the option) pins the threads to the first two CPUs that
//! this process may use, `together` both to the first, `free` neither.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an example that cannot do its work says why and stops"
)]

mod contenders;
mod pin;

use std::time::{Duration, Instant};

use contenders::Pair;
use pin::Place;

/// A way to park, by the name it is reported under.
struct Contender {
    name: &'static str,
    /// A fresh pair of sides, connected to each other.
    pair: fn() -> Pair,
}

#[derive(Clone, Copy)]
struct Options {
    json: bool,
    place: Place,
    rounds: usize,
    trips: usize,
}

/// Half round trips of one round, sorted.
fn round(contender: &Contender, options: Options) -> Vec<Duration> {
    let (mut here, mut there) = (contender.pair)();
    std::thread::scope(|scope| {
        let warm_up = options.trips / 10;
        scope.spawn(move || {
            options.place.pin(1);
            for _ in 0..warm_up + options.trips {
                there.wait();
                there.wake();
            }
        });
        // Not on the main thread: where that may run, the next contender's
        // scheduler takes for the number of CPUs there are.
        let times = scope.spawn(move || {
            options.place.pin(0);
            let mut trip = || {
                let begin = Instant::now();
                here.wake();
                here.wait();
                begin.elapsed() / 2
            };
            for _ in 0..warm_up {
                trip();
            }
            let mut times: Vec<Duration> = (0..options.trips).map(|_| trip()).collect();
            times.sort_unstable();
            times
        });
        times.join().unwrap()
    })
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let options = options();
    let contenders = contenders::all();
    // For each contender, each round's p50 and p99 in ns.
    let mut rounds = vec![Vec::new(); contenders.len()];
    for n in 0..options.rounds {
        // Another one begins each time: nobody always follows the same one.
        for k in 0..contenders.len() {
            let which = (n + k) % contenders.len();
            let (Some(contender), Some(results)) = (contenders.get(which), rounds.get_mut(which))
            else {
                continue;
            };
            let times = round(contender, options);
            let at = |percent: usize| {
                let rank = (times.len() - 1) * percent / 100;
                times.get(rank).map_or(f64::NAN, Duration::as_secs_f64) * 1e9
            };
            results.push((at(50), at(99)));
        }
    }
    let futex: Vec<f64> = rounds
        .first()
        .map(|results| results.iter().map(|r| r.0).collect())
        .unwrap_or_default();
    let mut lines: Vec<_> = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, results)| {
            let p50 = median(results.iter().map(|r| r.0).collect());
            let p99 = median(results.iter().map(|r| r.1).collect());
            let ratios = results.iter().zip(&futex).map(|(r, futex)| r.0 / futex);
            (contender.name, p50, p99, median(ratios.collect()))
        })
        .collect();

    if options.json {
        let objects: Vec<_> = lines
            .iter()
            .map(|(name, p50, p99, ratio)| {
                serde_json::json!({
                    "name": name,
                    "ns_p50": p50.round(),
                    "ns_p99": p99.round(),
                    "ratio_to_futex": (ratio * 1000.0).round() / 1000.0,
                    "place": options.place.name(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&objects).unwrap());
        return;
    }
    lines.sort_by(|a, b| a.3.total_cmp(&b.3));
    println!(
        "kick to run, {} rounds of {} trips each, threads {}",
        options.rounds,
        options.trips,
        options.place.name()
    );
    println!(
        "{:<26} {:>9} {:>9} {:>10}",
        "", "p50 ns", "p99 ns", "to futex"
    );
    for (name, p50, p99, ratio) in lines {
        println!("{name:<26} {p50:>9.0} {p99:>9.0} {ratio:>9.3}x");
    }
}

/// One line on what was wrong with the arguments, and status 2.
fn usage(wrong: &str) -> ! {
    eprintln!("handoff: {wrong}; the top of its source says what there is");
    std::process::exit(2)
}

fn options() -> Options {
    let mut options = Options {
        json: false,
        place: Place::Apart,
        rounds: 15,
        trips: 2_000,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| usage(&format!("{arg} needs a value")))
        };
        let number = |value: String| match value.parse() {
            Ok(n) if n > 0 => n,
            _ => usage(&format!("{value} is not a number above zero")),
        };
        match arg.as_str() {
            "--json" => options.json = true,
            "--place" => {
                let name = value();
                options.place = Place::parse(&name).unwrap_or_else(|| {
                    usage(&format!("--place is apart, together or free, not {name}"))
                });
            }
            "--rounds" => options.rounds = number(value()),
            "--trips" => options.trips = number(value()),
            _ => usage(&format!("unknown argument {arg}")),
        }
    }
    options
}
