//! Published results beside ours on the nearest set-up.
//!
//! None of them is the same workload as ours: what differs stands in the table.

use maud::{Markup, html};

use super::summary::spinning;
use crate::study::dataset::{Cell, Dataset, Halts, Load, Series, Waiter};
use crate::study::figures::series;
use crate::study::statistics::verdict;

/// One published figure.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// What was built, by whom, when.
    pub work: &'static str,
    /// Machine and VMs.
    pub setup: &'static str,
    /// vCPUs a pCPU, where the source tells.
    pub ratio: Option<f64>,
    /// It ran several VMs.
    pub vms: bool,
    /// Its figure.
    pub result: &'static str,
    /// The waiter of ours that is nearest to it.
    pub nearest: Waiter,
    /// What is not the same.
    pub differs: &'static str,
}

/// Host-side scheduling, for which a PV lock is the nearest that we measure.
const HOST_SIDE: &str = "the remedy is in the scheduler, not in the lock; an application, not a \
                         lock alone";
const APPLICATION: &str = "an application, not a lock alone; Linux as the guest";

macro_rules! published {
    ($($work:literal, $setup:literal, $ratio:expr, $vms:literal, $result:literal, $nearest:ident, $differs:expr;)*) => {
        &[$(Published {
            work: $work,
            setup: $setup,
            ratio: $ratio,
            vms: $vms,
            result: $result,
            nearest: Waiter::$nearest,
            differs: $differs,
        }),*]
    };
}

/// All, newest first.
#[rustfmt::skip]
pub const PUBLISHED: &[Published] = published![
    "steal_governor (Hegde, v13/v14, 2026)", "Power, 90 vCPUs of 2 VMs on 50 cores", Some(1.8), true,
        "hackbench +10.6 / +37.8 / +44.3 % (10/20/40 groups)", PvTicket, HOST_SIDE;
    "steal_governor (Hegde, v2; its author calls the figures stale)", "x86, 8 VMs of 16 vCPUs on 32 threads", Some(4.0), true,
        "hackbench +90.7 % ± 10; pgbench +31.8 %; worst case -3.2 %", PvTicket, HOST_SIDE;
    "steal_governor v10, tried by a third party (Norov, 2026)", "not given", None, true,
        "3 to 5 % slower", PvTicket, HOST_SIDE;
    "VMs on cores that do not overlap (Prateek Nayak, AMD, 2025)", "2 VMs of 12 threads on 16 threads", Some(1.5), true,
        "perf sched messaging 24 and 20 % less time", PvTicket, HOST_SIDE;
    "Semantics-aware vCPU scheduling (Wanpeng Li, 2025)", "2 VMs of 16 vCPUs on 16 CPUs", Some(2.0), true,
        "dbench +14.4 %; dedup +47.1 %; vips +26.2 %", PvTicket, HOST_SIDE;
    "Semantics-aware vCPU scheduling (Wanpeng Li, 2025)", "3 VMs of 16 vCPUs on 16 CPUs", Some(3.0), true,
        "dbench +9.8 %; dedup +28.1 %; vips +12.7 %", PvTicket, HOST_SIDE;
    "Semantics-aware vCPU scheduling (Wanpeng Li, 2025)", "4 VMs of 16 vCPUs on 16 CPUs", Some(4.0), true,
        "dbench +6.7 %; dedup +1.7 %; vips +6.0 %", PvTicket, HOST_SIDE;
    "the same on s390 (Borntraeger, Buturla, 2026)", "2:1", Some(2.0), true,
        "dbench +1.3 %", PvTicket, HOST_SIDE;
    "LoongArch PV qspinlock (Bibo Mao, 2024)", "1 VM of 32 vCPUs on 32 cores", Some(1.0), false,
        "kernel build 173.07 to 171.73 s (+1 %)", PvQueue, APPLICATION;
    "LoongArch PV qspinlock (Bibo Mao, 2024)", "2 VMs of 32 vCPUs on 32 cores", Some(2.0), true,
        "kernel build 2362 to 354 s (6.7 times)", PvQueue, APPLICATION;
    "eCS (Kashyap, ATC 2018)", "not given here", None, true,
        "up to 2.5 times", PvTicket, "hints of the guest, upon which the host defers preemption";
    "PV qspinlock (Long, 2015)", "60 vCPUs on 32 CPUs, kernel build", Some(1.875), false,
        "15 min 50 s to 9 min 39 s", PvQueue, APPLICATION;
    "the unfair lock in the same comparison (Long, 2015)", "60 vCPUs on 32 CPUs, kernel build", Some(1.875), false,
        "15 min 50 s to 4 min 15 s", TestAndSet, APPLICATION;
    "PV ticketlocks V12 (2013)", "dbench", Some(1.0), false,
        "+0.8 %", PvTicket, APPLICATION;
    "PV ticketlocks V12 (2013)", "dbench", Some(2.0), true,
        "+16.6 %", PvTicket, APPLICATION;
    "PV ticketlocks V12 (2013)", "dbench", Some(3.0), true,
        "+14.0 %", PvTicket, APPLICATION;
    "PV ticketlocks V12 (2013)", "dbench", Some(4.0), true,
        "+5.0 %", PvTicket, APPLICATION;
    "Preemptable ticket spinlocks (Ouyang and Lange, VEE 2013)", "average of its loads", None, false,
        "5.32 times without host help, 7.91 times with", Preemptable, APPLICATION;
    "KVM: kick with a directed boost", "ebizzy, 80 vCPUs; 1 / 2 / 3 VMs", None, true,
        "+6 / +70 / +74 %", PvTicket, APPLICATION;
    "KVM: boost of the queue's head (d73eb57b)", "ebizzy; 1 / 2 / 3 VMs", None, true,
        "+9 / +180 / +72 %", PvTicket, APPLICATION;
    "PLE directed yield V2 (Raghavendra, lkml 2012/7/10/392)", "VMs of 32 vCPUs on 32 cores", Some(1.0), false,
        "kernbench +28 %; ebizzy +105 %", PvTicket, HOST_SIDE;
    "PLE directed yield V2 (Raghavendra, lkml 2012/7/10/392)", "VMs of 32 vCPUs on 32 cores", Some(2.0), true,
        "kernbench +7 %; ebizzy +26 %", PvTicket, HOST_SIDE;
    "FlexCore (vCPU ballooning)", "KVM, PARSEC, 12 cores", None, true,
        "+52.9 % on average (35.4 to 79.6 %)", PvTicket, HOST_SIDE;
    "Balance scheduling (Sukwong and Kim, EuroSys 2011)", "KVM", None, true,
        "within 8 % of co-scheduling or better; TPC-W response -85 % against CFS", PvTicket, HOST_SIDE;
];

impl Published {
    /// The program that it measured, if Linux guests of ours run it too.
    fn program(&self) -> Option<Load> {
        let names = [
            ("dbench", Load::Dbench),
            ("hackbench", Load::Hackbench),
            ("perf sched messaging", Load::Messaging),
        ];
        let told = |name| self.setup.contains(name) || self.result.contains(name);
        names
            .into_iter()
            .find(|&(name, _)| told(name))
            .map(|(_, load)| load)
    }

    /// The load of ours that is nearest to it, the series that spins there, and the one
    /// that is compared with it.
    fn compared(&self, data: &Dataset) -> Option<(Load, Series, Series)> {
        if let Some(spin) = spinning(data) {
            let other = series(data, Load::Short)
                .into_iter()
                .filter(|series| series.waiter == self.nearest)
                .min_by_key(|series| series.halts != Halts::Userspace)?;
            return Some((Load::Short, spin, other));
        }
        let load = self.program()?;
        let all = series(data, load);
        let both = |halts| {
            let of = |waiter| {
                let like = |series: &&Series| (series.waiter, series.halts) == (waiter, halts);
                all.iter().find(like).copied()
            };
            of(Waiter::LinuxQueue).zip(of(Waiter::LinuxPv))
        };
        let (spin, pv) = both(Halts::Kernel).or_else(|| both(Halts::Userspace))?;
        Some((load, spin, pv))
    }
}

/// Ours: the cell whose ratio is nearest, against spinning on the same VMs.
pub fn ours(data: &Dataset, published: &Published) -> Option<String> {
    let wanted = published.ratio?;
    let (load, spin, waiter) = published.compared(data)?;
    let measured = |series: Series| {
        data.cells.iter().filter(move |cell| {
            cell.key.load == load && cell.key.series == series && !cell.repetitions.is_empty()
        })
    };
    let distance = |cell: &Cell| {
        let far = (data.ratio(&cell.key).get() / wanted).ln().abs();
        // One VM or several, if they are equally near.
        let other = (cell.key.vms > 1) != published.vms;
        (far * 100.0).round() + f64::from(u8::from(other)) * 0.5
    };
    let nearest = measured(waiter).min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let key = nearest.key;
    let base = measured(spin).find(|c| (c.key.vms, c.key.vcpus) == (key.vms, key.vcpus))?;
    let says = verdict(&base.rates(), &nearest.rates(), data.settings.seed);
    Some(format!(
        "{}x, {} VM{} of {}: {waiter}: {says}",
        data.ratio(&key),
        key.vms,
        if key.vms == 1 { "" } else { "s" },
        key.vcpus
    ))
}

/// The table.
pub fn html(data: &Dataset) -> Markup {
    html! {
        p {
            "Each source measured its own workload on its own machine. "
            @if spinning(data).is_some() {
                "Ours is a lock and nothing else: a ratio says where an effect begins, not how \
                 large it is in an application."
            } @else {
                "Ours is the same program, where it is one of those measured here, in one small \
                 VM; against Linux's own lock that spins (nopvspin), which is a queue, not a \
                 ticket lock."
            }
        }
        div class="scroll" tabindex="0" {
            table class="words" {
                thead {
                    tr {
                        @for head in ["Published", "Set-up", "Overcommit", "Result", "Ours, nearest, against spinning", "What differs"] {
                            th scope="col" { (head) }
                        }
                    }
                }
                tbody {
                    @for row in PUBLISHED {
                        tr {
                            th scope="row" { (row.work) }
                            td { (row.setup) }
                            td { @match row.ratio { Some(ratio) => (format!("{ratio:.1}x")), None => "not given" } }
                            td { (row.result) }
                            td { (ours(data, row).unwrap_or_else(|| "nothing comparable".to_string())) }
                            td { (row.differs) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    #[test]
    fn the_nearest_ratio_is_compared() {
        let data = sample::dataset();
        let find = |work: &str, ratio: f64| {
            let mut all = PUBLISHED.iter();
            all.find(|p| p.work.starts_with(work) && p.ratio == Some(ratio))
        };
        let ours = |work, ratio| ours(&data, find(work, ratio).unwrap()).unwrap();
        let text = ours("LoongArch", 2.0);
        assert!(text.starts_with("2x, 2 VMs of 2: PV queue"), "{text}");
        assert!(text.contains("times as fast"), "{text}");
        let text = ours("the unfair lock", 1.875);
        assert!(text.starts_with("2x, 1 VM of 4: test-and-set"), "{text}");
        assert!(ours("LoongArch", 1.0).starts_with("1x, 1 VM of 2"));
    }

    /// A study of Linux has no lock of ours, but the same programs.
    #[test]
    fn linux_is_compared_by_program() {
        let mut data = sample::dataset();
        let [spin, pv] = [Waiter::LinuxQueue, Waiter::LinuxPv];
        data.cells.retain(|cell| {
            let waiter = cell.key.series.waiter;
            cell.key.vms == 1 && matches!(waiter, Waiter::Ticket | Waiter::PvQueue)
        });
        for cell in &mut data.cells {
            cell.key.load = Load::Dbench;
            cell.key.series.halts = Halts::Kernel;
            cell.key.series.waiter = match cell.key.series.waiter {
                Waiter::Ticket => spin,
                _ => pv,
            };
        }
        let find = |setup: &str, ratio: f64| {
            let mut all = PUBLISHED.iter();
            all.find(|p| p.setup.contains(setup) && p.ratio == Some(ratio))
        };
        let text = ours(&data, find("dbench", 4.0).unwrap()).unwrap();
        assert!(
            text.starts_with("4x, 1 VM of 8: Linux with PV locks"),
            "{text}"
        );
        assert_eq!(ours(&data, find("kernel build", 1.875).unwrap()), None);
    }
}
