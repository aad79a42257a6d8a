//! Events as states with a begin and an end, and kicks as arrows from the
//! kicker to the vCPU that runs again by it.
//!
//! A vCPU records what it wants; whether its thread had a pCPU the kernel
//! knows. Where the kernel's context switches were recorded too ([`Switch`]),
//! running is split into on which CPU and without one.

use super::{Event, VcpuTrace, What};

/// A state of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs: on this pCPU, where that is known.
    Running(Option<u32>),
    /// Would run, and its thread has no pCPU.
    Waiting,
    /// Halted.
    Halted,
    /// Held back by the scheduler.
    Held,
    /// Paused.
    Paused,
}

/// A while in one state; nanoseconds after the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it begins, on the trace's clock.
    pub from: u64,
    /// End.
    pub to: u64,
    /// What.
    pub state: State,
}

/// The kernel put a vCPU's thread on a pCPU, or took it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Nanoseconds after the epoch.
    pub at: u64,
    /// Where it is from now.
    pub now: Place,
}

/// Where the kernel has a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this pCPU.
    On(u32),
    /// Preempted: it would run.
    Preempted,
    /// Its thread sleeps.
    Asleep,
}

/// A kick. `to` is an index into the traces, of the same VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick {
    /// When it was sent.
    pub at: u64,
    /// Index of the kicker's trace.
    pub from: usize,
    /// Index of the kicked vCPU's trace.
    pub to: usize,
    /// When that one ran by it; none: it was running, and the kick was latched.
    pub ran: Option<u64>,
}

/// The states of a vCPU, in order, without gaps from its first event to its
/// last.
pub fn states(trace: &VcpuTrace) -> Vec<Span> {
    let switches = &trace.switches;
    let changes = trace.events.iter().filter_map(|event| {
        let state = match event.what {
            What::Running => Some(State::Running(None)),
            What::Halted => Some(State::Halted),
            What::Held => Some(State::Held),
            What::Paused => Some(State::Paused),
            What::Ended => None,
            What::Kicks(_) => return None,
        };
        Some((event.at, state))
    });
    let changes: Vec<(u64, Option<State>)> = changes.collect();
    let last = trace.events.last().map_or(0, |event| event.at);
    let ends = changes.iter().skip(1).map(|&(at, _)| at).chain([last]);
    let mut spans = Vec::new();
    for (&(from, state), to) in changes.iter().zip(ends) {
        match state {
            Some(State::Running(_)) if !switches.is_empty() => {
                split(from, to, switches, &mut spans);
            }
            Some(state) => push(&mut spans, Span { from, to, state }),
            None => {}
        }
    }
    spans
}

/// Adds a span; one that goes on is one with the last.
fn push(spans: &mut Vec<Span>, span: Span) {
    if span.to <= span.from {
        return;
    }
    match spans.last_mut() {
        Some(last) if last.to == span.from && last.state == span.state => last.to = span.to,
        _ => spans.push(span),
    }
}

/// A span of running, by what the kernel says of its thread.
fn split(from: u64, to: u64, switches: &[Switch], spans: &mut Vec<Span>) {
    let next = switches.partition_point(|switch| switch.at <= from);
    let state = |switch: Option<&Switch>| match switch.map(|switch| switch.now) {
        Some(Place::On(pcpu)) => State::Running(Some(pcpu)),
        Some(Place::Preempted) => State::Waiting,
        // In KVM, which halts it: this process does not.
        Some(Place::Asleep) => State::Halted,
        // Before the first switch that was recorded.
        None => State::Running(None),
    };
    let mut now = state(next.checked_sub(1).and_then(|last| switches.get(last)));
    let mut since = from;
    for switch in switches.iter().skip(next).take_while(|s| s.at < to) {
        push(
            spans,
            Span {
                from: since,
                to: switch.at,
                state: now,
            },
        );
        (since, now) = (switch.at, state(Some(switch)));
    }
    push(
        spans,
        Span {
            from: since,
            to,
            state: now,
        },
    );
}

/// All kicks of `traces`, in the order of time. One for an APIC ID without a
/// trace is left out.
pub fn kicks(traces: &[VcpuTrace]) -> Vec<Kick> {
    let mut all = Vec::new();
    for (from, trace) in traces.iter().enumerate() {
        for event in &trace.events {
            let What::Kicks(id) = event.what else {
                continue;
            };
            let target = |other: &VcpuTrace| (other.vm, other.vcpu) == (trace.vm, id);
            let Some(to) = traces.iter().position(target) else {
                continue;
            };
            let ran = traces.get(to).and_then(|t| ran_by(&t.events, event.at));
            all.push(Kick {
                at: event.at,
                from,
                to,
                ran,
            });
        }
    }
    all.sort_by_key(|kick| kick.at);
    all
}

/// When a vCPU that was halted at `at` ran again.
fn ran_by(events: &[Event], at: u64) -> Option<u64> {
    let next = events.partition_point(|event| event.at <= at);
    let state = |event: &&Event| !matches!(event.what, What::Kicks(_));
    let before = events.iter().take(next).rev().find(state)?;
    if before.what != What::Halted {
        return None;
    }
    let runs = |event: &&Event| event.what == What::Running;
    events.iter().skip(next).find(runs).map(|event| event.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(vcpu: u32, events: &[(u64, What)]) -> VcpuTrace {
        switched(vcpu, events, &[])
    }

    fn switched(vcpu: u32, events: &[(u64, What)], switches: &[(u64, Place)]) -> VcpuTrace {
        let events = events.iter().map(|&(at, what)| Event { at, what });
        VcpuTrace {
            vm: 0,
            vcpu,
            events: events.collect(),
            dropped: 0,
            began: 0,
            switches: switches
                .iter()
                .map(|&(at, now)| Switch { at, now })
                .collect(),
        }
    }

    fn plain(spans: &[Span]) -> Vec<(u64, u64, State)> {
        spans.iter().map(|s| (s.from, s.to, s.state)).collect()
    }

    #[test]
    fn states_without_the_kernel() {
        let trace = trace(
            0,
            &[
                (10, What::Running),
                (15, What::Kicks(1)),
                (20, What::Halted),
                (30, What::Held),
                (35, What::Running),
                (40, What::Running),
                (50, What::Ended),
            ],
        );
        assert_eq!(
            plain(&states(&trace)),
            [
                (10, 20, State::Running(None)),
                (20, 30, State::Halted),
                (30, 35, State::Held),
                (35, 50, State::Running(None)),
            ]
        );
    }

    #[test]
    fn running_is_split_by_the_kernel() {
        let events = [(10, What::Running), (60, What::Halted), (70, What::Ended)];
        let switches = [
            (5, Place::On(1)),
            (20, Place::Preempted),
            (40, Place::On(0)),
            (50, Place::Asleep),
            (55, Place::On(1)),
            (65, Place::Asleep),
        ];
        assert_eq!(
            plain(&states(&switched(0, &events, &switches))),
            [
                (10, 20, State::Running(Some(1))),
                (20, 40, State::Waiting),
                (40, 50, State::Running(Some(0))),
                (50, 55, State::Halted),
                (55, 60, State::Running(Some(1))),
                (60, 70, State::Halted),
            ]
        );
        let late = states(&switched(0, &events, &[(30, Place::Preempted)]));
        assert_eq!(plain(&late)[0], (10, 30, State::Running(None)));
    }

    #[test]
    fn a_kick_ends_a_halt_or_is_latched() {
        let traces = [
            trace(
                0,
                &[
                    (0, What::Running),
                    (30, What::Kicks(1)),
                    (50, What::Kicks(1)),
                    (60, What::Kicks(9)),
                ],
            ),
            trace(
                1,
                &[
                    (0, What::Running),
                    (10, What::Halted),
                    (33, What::Held),
                    (38, What::Running),
                ],
            ),
        ];
        let plain: Vec<_> = kicks(&traces)
            .iter()
            .map(|k| (k.at, k.from, k.to, k.ran))
            .collect();
        assert_eq!(plain, [(30, 0, 1, Some(38)), (50, 0, 1, None)]);
    }

    #[test]
    fn nothing_recorded_is_nothing() {
        assert!(states(&trace(0, &[])).is_empty());
        assert!(kicks(&[]).is_empty());
    }
}
