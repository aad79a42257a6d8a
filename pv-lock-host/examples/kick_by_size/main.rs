//! What a kick costs in a VM with few vCPUs and in one with many: of a vCPU that
//! runs, for APIC IDs without gaps (looked up in an array) and for sparse ones (a
//! hash table), and of one that sleeps, under the default policy.
//!
//! All VMs take turns in short rounds, so that whatever changes the speed of the
//! machine hits all alike; what is compared are ratios to the smallest VM within
//! the same round.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example kick_by_size -- [ROUNDS]
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "an example that cannot do its work says why and stops"
)]

mod running;
mod sleeping;

/// A VM whose kicks are timed.
trait Timed {
    fn name(&self) -> String;
    /// Nanoseconds of a kick, on average over a round.
    fn round(&mut self) -> f64;
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Each VM's times, by round.
fn measure(vms: &mut [Box<dyn Timed>], rounds: usize) -> Vec<Vec<f64>> {
    let mut times = vec![vec![f64::NAN; rounds]; vms.len()];
    for round in 0..rounds {
        // Another one begins each time: nobody always follows the same one.
        for k in 0..vms.len() {
            let which = (round + k) % vms.len();
            if let (Some(vm), Some(times)) = (vms.get_mut(which), times.get_mut(which))
                && let Some(time) = times.get_mut(round)
            {
                *time = vm.round();
            }
        }
    }
    times
}

/// The first of each `per_kind` is what the others of its kind are compared with.
fn print(title: &str, vms: &[Box<dyn Timed>], times: &[Vec<f64>], per_kind: usize) {
    println!("{title}");
    println!(
        "{:<28} {:>8} {:>14} {:>16}",
        "", "ns", "to the first", "to its kind's"
    );
    for (n, (vm, own)) in vms.iter().zip(times).enumerate() {
        let to = |base: usize| {
            let base = times.get(base).unwrap();
            median(
                own.iter()
                    .zip(base)
                    .map(|(time, base)| time / base)
                    .collect(),
            )
        };
        println!(
            "{:<28} {:>8.1} {:>13.3}x {:>15.3}x",
            vm.name(),
            median(own.clone()),
            to(0),
            to(n - n % per_kind)
        );
    }
}

/// One line on what was wrong with the arguments, and status 2.
fn usage(wrong: &str) -> ! {
    eprintln!("kick_by_size: {wrong}; its argument is the number of rounds, 2000 without");
    std::process::exit(2)
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(2_000, |arg| {
        arg.parse()
            .unwrap_or_else(|_| usage(&format!("{arg} is no number")))
    });
    let mut running = running::vms();
    let times = measure(&mut running, rounds);
    let title = format!("kick of a running vCPU, {rounds} rounds");
    print(&title, &running, &times, running::SIZES.len());
    println!();

    let rounds = rounds.div_ceil(4);
    let mut sleeping = sleeping::vms();
    let times = measure(&mut sleeping, rounds);
    let title = format!("kick that wakes a sleeping vCPU, {rounds} rounds");
    print(&title, &sleeping, &times, sleeping::SIZES.len());
}
