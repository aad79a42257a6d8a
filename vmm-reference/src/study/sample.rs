//! A dataset that nobody measured, for tests of what reads one and for ci's
//! check of the report in a browser. Its figures have the shape of real ones:
//! spinning collapses above 1x, halting keeps its rate.

use super::dataset::timeline::{Doing, Hold, Kick, Span, Track, Wait};
use super::dataset::{
    Beside, Cell, CellKey, Dataset, Disturbance, End, FORMAT, Halts, Host, Load, Noise, Repetition,
    Series, Settings, Timeline, Transport, Waiter,
};
use super::finite::Finite;

fn finite(value: f64) -> Finite {
    Finite::new(value).unwrap_or_default()
}

/// The lines of the sample, and of a host with every way to halt and kick.
pub const SERIES: [Series; 7] = [
    series(Waiter::Ticket, Halts::Never, Transport::None),
    series(Waiter::TestAndSet, Halts::Never, Transport::None),
    series(Waiter::Preemptable, Halts::Never, Transport::None),
    series(Waiter::PvTicket, Halts::Userspace, Transport::Port),
    series(Waiter::PvTicket, Halts::Kernel, Transport::Kvm),
    series(Waiter::PvTicket, Halts::Kernel, Transport::Port),
    series(Waiter::PvQueue, Halts::Userspace, Transport::Port),
];

const fn series(waiter: Waiter, halts: Halts, transport: Transport) -> Series {
    Series {
        waiter,
        halts,
        transport,
    }
}

/// A repetition of half a second with these acquisitions.
pub fn repetition(at: f64, acquisitions: &[u64]) -> Repetition {
    let total: u64 = acquisitions.iter().sum();
    Repetition {
        at: finite(at),
        seconds: finite(0.5),
        acquisitions: acquisitions.to_vec(),
        background: 0,
        exits: total / 3,
        halts: total / 8,
        kicks: total / 10,
        running: finite(0.9),
        halted: finite(0.3),
        held: finite(0.2),
        run_delay: finite(0.05),
        waits: (4..24)
            .map(|power| (1u64 << power, total >> (power - 4)))
            .collect::<Vec<_>>()
            .into(),
        beside: None,
    }
}

/// What vCPUs that take no lock did in it, if there were so many of them.
pub fn beside(ratio: f64, vcpus: u32) -> Beside {
    let sleeping = (vcpus + 2) / 4;
    let share = 0.9 / ratio.max(1.0);
    Beside {
        computing: vcpus / 4,
        sleeping,
        computing_s: finite(share * 0.5 * f64::from(vcpus / 4)),
        sleeping_s: finite(0.01 * 0.5 * f64::from(sleeping)),
        wakes: 240 * u64::from(sleeping),
        wake_error_ns: Some(900),
        wake_latency: Some(
            vec![
                (40_000, 200),
                (90_000, 30),
                (3_000_000, if ratio > 1.0 { 10 } else { 0 }),
            ]
            .into(),
        ),
    }
}

/// Acquisitions in half a second.
fn rate(series: Series, ratio: f64) -> f64 {
    let over = (ratio - 1.0).max(0.0);
    match (series.waiter, series.halts) {
        (Waiter::Ticket, _) => 100_000.0 / (1.0 + 40.0 * over),
        (Waiter::TestAndSet, _) => 110_000.0 / (1.0 + 0.2 * over),
        (Waiter::Preemptable, _) => 98_000.0 / (1.0 + 1.5 * over),
        (_, Halts::Kernel) => 97_000.0 / (1.0 + 0.12 * over),
        (Waiter::PvQueue, _) => 95_000.0 / (1.0 + 0.03 * over),
        _ => 99_000.0 / (1.0 + 0.01 * over),
    }
}

/// Every load, series and figure; two pCPUs.
pub fn dataset() -> Dataset {
    let mut cells = Vec::new();
    for load in [Load::Short, Load::Long, Load::Uncontended, Load::Mixed] {
        for series in SERIES {
            for (vms, vcpus) in [
                (1, 1),
                (1, 2),
                (1, 3),
                (1, 4),
                (1, 8),
                (1, 16),
                (2, 2),
                (4, 2),
            ] {
                let ratio = f64::from(vms * vcpus) / 2.0;
                let scale = match load {
                    Load::Long => 0.05,
                    Load::Uncontended => ratio.min(1.0) * 1.8,
                    _ => 1.0,
                };
                let rate = match load {
                    Load::Uncontended => rate(series, 1.0),
                    _ => rate(series, ratio),
                } * scale;
                let repetitions = (0..7u32).map(|n| {
                    let noise = 1.0 + 0.01 * (f64::from((n * 5 + vcpus) % 7) - 3.0);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a positive count of some thousands"
                    )]
                    let each = (rate * noise / f64::from(vms * vcpus)) as u64;
                    let count = (vms * vcpus) as usize;
                    let mut acquisitions = vec![each; count];
                    if let Some(first) = acquisitions.first_mut()
                        && series.waiter == Waiter::TestAndSet
                    {
                        *first /= 3;
                    }
                    Repetition {
                        beside: (load == Load::Mixed).then(|| beside(ratio, vcpus)),
                        ..repetition(f64::from(n) * 20.0, &acquisitions)
                    }
                });
                cells.push(Cell {
                    key: CellKey {
                        load,
                        series,
                        vms,
                        vcpus,
                    },
                    repetitions: repetitions.collect(),
                    failure: None,
                });
            }
        }
    }
    if let Some(cell) = cells.last_mut() {
        cell.repetitions.clear();
        cell.failure = Some("vCPU 3: it did not leave the guest within 10 s".to_string());
    }
    let timelines = vec![spinning(), kicked()];
    Dataset {
        format: FORMAT,
        tool: concat!("vmm-reference ", env!("CARGO_PKG_VERSION"), " (sample)").to_string(),
        began: "2026-01-01T00:00:00Z".to_string(),
        took: finite(300.0),
        end: End::Budget,
        host: Host {
            backend: "kvm".to_string(),
            why_hosted: None,
            cpus: 2,
            cpu_model: "no CPU: nobody measured this".to_string(),
            kernel: "6.18".to_string(),
            virtual_machine: true,
            emulated: false,
            noise: Noise {
                loops: (0..20u32)
                    .map(|n| {
                        (
                            finite(f64::from(n) * 15.0),
                            1_000_000 + u64::from(n % 5) * 50_000,
                        )
                    })
                    .collect(),
                others: Some(finite(0.08)),
                stolen: Some(finite(0.001)),
            },
            disturbances: vec![Disturbance::Cpus {
                at: finite(100.0),
                before: 4,
                after: 2,
            }],
        },
        settings: Settings {
            seconds: finite(0.5),
            budget: finite(300.0),
            seed: 17,
            spin_us: 10,
            yielding: "hold".to_string(),
        },
        cells,
        timelines,
    }
}

fn key(series: Series) -> CellKey {
    CellKey {
        load: Load::Short,
        series,
        vms: 1,
        vcpus: 4,
    }
}

/// The holder preempted while others spin.
fn spinning() -> Timeline {
    const MS: u64 = 1_000_000;
    let slices = |offset: u64, pcpu: u32| {
        let mut spans = Vec::new();
        for n in 0..4 {
            let begin = n * 8 * MS;
            let (on, off) = (begin + offset * 4 * MS, begin + (offset + 1) * 4 * MS);
            if on > begin {
                spans.push(span(begin, on, Doing::Waiting, None));
            }
            spans.push(span(on, off, Doing::Running, Some(pcpu)));
            if off < begin + 8 * MS {
                spans.push(span(off, begin + 8 * MS, Doing::Waiting, None));
            }
        }
        spans
    };
    Timeline {
        key: key(SERIES[0]),
        length: 32 * MS,
        wait: Wait {
            track: 1,
            from: -3_000_000,
            to: 26_000_000,
        },
        tracks: (0..4u32)
            .map(|vcpu| Track {
                vm: 0,
                vcpu,
                spans: slices(u64::from(vcpu / 2), vcpu % 2),
            })
            .collect(),
        kicks: Vec::new(),
        // In microseconds.
        holds: [
            (2, 0, 4_500, 13_000),
            (3, 13_000, 13_000, 13_400),
            (0, 13_400, 16_100, 26_000),
            (1, 26_000, 26_000, 26_200),
        ]
        .map(|(track, due, from, to)| Hold {
            track,
            due: due * 1_000,
            from: from * 1_000,
            to: to * 1_000,
        })
        .into(),
    }
}

/// Halts that kicks end.
fn kicked() -> Timeline {
    const US: u64 = 1_000;
    let mut tracks: Vec<Track> = (0..4u32)
        .map(|vcpu| Track {
            vm: 0,
            vcpu,
            spans: Vec::new(),
        })
        .collect();
    let mut kicks = Vec::new();
    for (turn, track) in tracks.iter_mut().enumerate() {
        let turn = turn as u64;
        let begin = turn * 200 * US;
        let state = if turn.is_multiple_of(2) {
            Doing::Held
        } else {
            Doing::Halted
        };
        if begin > 0 {
            track.spans.push(span(0, begin, state, None));
        }
        let end = begin + 250 * US;
        let pcpu = u32::try_from(turn % 2).ok();
        track.spans.push(span(begin, end, Doing::Running, pcpu));
        track.spans.push(span(end, 1000 * US, Doing::Halted, None));
        if turn > 0 {
            kicks.push(Kick {
                at: begin,
                from: usize::try_from(turn - 1).unwrap_or(0),
                to: usize::try_from(turn).unwrap_or(0),
            });
        }
    }
    Timeline {
        key: key(SERIES[3]),
        length: 1000 * US,
        wait: Wait {
            track: 3,
            from: 10_000,
            to: 620_000,
        },
        tracks,
        kicks,
        holds: (0..4)
            .map(|track| {
                let due = track as u64 * 200 * US;
                Hold {
                    track,
                    due,
                    from: due + 20 * US,
                    to: due + 200 * US,
                }
            })
            .collect(),
    }
}

const fn span(from: u64, to: u64, doing: Doing, pcpu: Option<u32>) -> Span {
    Span {
        from,
        to,
        doing,
        pcpu,
    }
}
