//! The Chrome JSON trace format ("Trace Event Format"): complete events (`X`)
//! for states, a flow (`s`, `f`) for a kick that ends a halt, an instant (`i`)
//! for one that is latched, metadata (`M`) for names. Perfetto and Chromium open
//! it.
//!
//! A process is a VM, a thread its vCPU; process 1 has a thread for each host
//! CPU, if the kernel's context switches were recorded. Times are in
//! microseconds, as the format has it.

use std::io;

use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer as _};

use super::spans::{Kick, Span, State, kicks, states};
use super::{Trace, VcpuTrace};

/// A line of the file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    cat: &'a str,
    ph: char,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<usize>,
    /// Of a flow's end: it belongs to the slice that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<char>,
    /// Of an instant: how far it reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args<'a>>,
}

#[derive(Debug, Serialize)]
struct Args<'a> {
    name: &'a str,
}

impl<'a> Line<'a> {
    const fn new(name: &'a str, cat: &'a str, ph: char, ts: f64, pid: u32, tid: u32) -> Self {
        Self {
            name,
            cat,
            ph,
            ts,
            dur: None,
            pid,
            tid,
            id: None,
            bp: None,
            s: None,
            args: None,
        }
    }
}

/// The category that Chromium gives to names.
const METADATA: &str = "__metadata";
/// The pCPUs' process. Viewers know 0 as nobody's number, of processes and
/// of threads.
const PCPUS: u32 = 1;

/// The process of a VM.
const fn pid(trace: &VcpuTrace) -> u32 {
    trace.vm.saturating_add(PCPUS + 1)
}

/// The thread of a vCPU, or of a pCPU.
const fn tid(index: u32) -> u32 {
    index.saturating_add(1)
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Writes the file.
///
/// # Errors
/// It can't be written.
pub fn write(to: impl io::Write, trace: &Trace) -> io::Result<()> {
    let traces = &trace.vcpus;
    let mut json = serde_json::Serializer::new(to);
    let mut out = json.serialize_seq(None)?;
    names(&mut out, trace)?;
    let mut pcpus = Vec::new();
    for trace in traces {
        for span in states(trace) {
            out.serialize_element(&Line {
                dur: Some(micros(span.to - span.from)),
                ..Line::new(
                    name(span),
                    "vcpu",
                    'X',
                    micros(span.from),
                    pid(trace),
                    tid(trace.vcpu),
                )
            })?;
            if let State::Running(Some(pcpu)) = span.state {
                pcpus.push((pcpu, span, trace));
            }
        }
    }
    on_pcpus(&mut out, &mut pcpus)?;
    for (id, kick) in kicks(traces).iter().enumerate() {
        if let (Some(from), Some(target)) = (traces.get(kick.from), traces.get(kick.to)) {
            arrow(&mut out, id, kick, from, target)?;
        }
    }
    out.end()?;
    Ok(())
}

type Out<'a, W> = serde_json::ser::Compound<'a, W, serde_json::ser::CompactFormatter>;

const fn name(span: Span) -> &'static str {
    match span.state {
        State::Running(_) => "running",
        State::Waiting => "ready, without a pCPU",
        State::Halted => "halted",
        State::Held => "held",
        State::Paused => "paused",
    }
}

fn names<W: io::Write>(out: &mut Out<'_, W>, all: &Trace) -> serde_json::Result<()> {
    let mut last = None;
    for trace in &all.vcpus {
        let name = all.names.get(trace.vm as usize).map_or("", String::as_str);
        let (vm, vcpu) = (
            format!("VM {} {name}", trace.vm),
            format!("vCPU {}", trace.vcpu),
        );
        if last != Some(trace.vm) {
            out.serialize_element(&Line {
                args: Some(Args { name: &vm }),
                ..Line::new("process_name", METADATA, 'M', 0.0, pid(trace), tid(0))
            })?;
        }
        last = Some(trace.vm);
        out.serialize_element(&Line {
            args: Some(Args { name: &vcpu }),
            ..Line::new(
                "thread_name",
                METADATA,
                'M',
                0.0,
                pid(trace),
                tid(trace.vcpu),
            )
        })?;
        if trace.dropped > 0 {
            let text = format!("{} older events had no room", trace.dropped);
            let begin = trace.events.first().map_or(0.0, |event| micros(event.at));
            out.serialize_element(&Line {
                s: Some('t'),
                ..Line::new(&text, "vcpu", 'i', begin, pid(trace), tid(trace.vcpu))
            })?;
        }
    }
    Ok(())
}

fn on_pcpus<W: io::Write>(
    out: &mut Out<'_, W>,
    spans: &mut [(u32, Span, &VcpuTrace)],
) -> serde_json::Result<()> {
    spans.sort_by_key(|&(pcpu, span, _)| (pcpu, span.from));
    let mut last = None;
    if !spans.is_empty() {
        out.serialize_element(&Line {
            args: Some(Args { name: "pCPUs" }),
            ..Line::new("process_name", METADATA, 'M', 0.0, PCPUS, tid(0))
        })?;
    }
    for &(pcpu, span, trace) in spans.iter() {
        if last != Some(pcpu) {
            let name = format!("pCPU {pcpu}");
            out.serialize_element(&Line {
                args: Some(Args { name: &name }),
                ..Line::new("thread_name", METADATA, 'M', 0.0, PCPUS, tid(pcpu))
            })?;
        }
        last = Some(pcpu);
        let name = format!("vCPU {}.{}", trace.vm, trace.vcpu);
        out.serialize_element(&Line {
            dur: Some(micros(span.to - span.from)),
            ..Line::new(&name, "pcpu", 'X', micros(span.from), PCPUS, tid(pcpu))
        })?;
    }
    Ok(())
}

fn arrow<W: io::Write>(
    out: &mut Out<'_, W>,
    id: usize,
    kick: &Kick,
    from: &VcpuTrace,
    target: &VcpuTrace,
) -> serde_json::Result<()> {
    let (at, kicker) = (micros(kick.at), tid(from.vcpu));
    let Some(ran) = kick.ran else {
        return out.serialize_element(&Line {
            s: Some('t'),
            ..Line::new("kick, latched", "kick", 'i', at, pid(from), kicker)
        });
    };
    out.serialize_element(&Line {
        id: Some(id),
        ..Line::new("kick", "kick", 's', at, pid(from), kicker)
    })?;
    out.serialize_element(&Line {
        id: Some(id),
        bp: Some('e'),
        ..Line::new(
            "kick",
            "kick",
            'f',
            micros(ran),
            pid(target),
            tid(target.vcpu),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Place, Switch, What};
    use super::*;

    fn sample() -> Trace {
        let trace = |vcpu, events: &[(u64, What)], switch: Switch| VcpuTrace {
            vm: 1,
            vcpu,
            events: events
                .iter()
                .map(|&(at, what)| Event { at, what })
                .collect(),
            dropped: u64::from(vcpu),
            began: 0,
            switches: vec![switch],
        };
        let kicks = [
            (0, What::Running),
            (2500, What::Kicks(1)),
            (9000, What::Ended),
        ];
        let kicked = [
            (0, What::Halted),
            (4000, What::Running),
            (9000, What::Ended),
        ];
        let on = |at, pcpu| Switch {
            at,
            now: Place::On(pcpu),
        };
        Trace {
            names: vec!["other".to_string(), "pv".to_string()],
            vcpus: vec![trace(0, &kicks, on(0, 3)), trace(1, &kicked, on(3900, 2))],
        }
    }

    #[test]
    fn what_the_format_asks_for() {
        let mut text = Vec::new();
        write(&mut text, &sample()).unwrap();
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let of = |ph: &'static str| lines.iter().filter(move |line| line["ph"] == ph);
        for line in &lines {
            assert!(line["name"].is_string() && line["ts"].is_number(), "{line}");
            assert!(line["pid"].is_u64() && line["tid"].is_u64(), "{line}");
        }
        assert!(of("X").all(|line| line["dur"].as_f64().unwrap() > 0.0));
        let names: Vec<_> = of("M")
            .map(|line| line["args"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["VM 1 pv", "vCPU 0", "vCPU 1", "pCPUs", "pCPU 2", "pCPU 3"]
        );
        let (begin, end) = (of("s").next().unwrap(), of("f").next().unwrap());
        assert_eq!((&begin["ts"], &end["ts"]), (&2.5.into(), &4.0.into()));
        assert_eq!(begin["id"], end["id"]);
        assert_eq!(end["bp"], "e");
        assert_eq!((&begin["tid"], &end["tid"]), (&1.into(), &2.into()));
        assert_eq!(of("i").count(), 1, "one event had no room");
    }

    #[test]
    fn a_trace_of_nothing_is_an_empty_list() {
        let mut text = Vec::new();
        write(&mut text, &Trace::default()).unwrap();
        assert_eq!(text, b"[]");
    }
}
