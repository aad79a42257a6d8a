//! Workloads of a Linux guest, as a study: what `ci/lab/run study-linux` prints,
//! a JSON object a line, becomes a dataset. A line is a measurement, or says on which
//! host they were made.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::dataset::{
    Cell, CellKey, Dataset, End, FORMAT, Halts, Host, Load, Repetition, Series, Settings,
    Transport, Waiter, Waits,
};
use super::finite::Finite;
use super::statistics::ENOUGH;

/// The line about the host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostLine {
    host: MeasuredOn,
}

/// Where the lines were measured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasuredOn {
    /// Its pCPUs.
    cpus: NonZeroU32,
    cpu_model: String,
    kernel: String,
    virtual_machine: bool,
    /// Its time was emulated.
    emulated: bool,
}

/// One workload in one guest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Counted from 1: each cell once.
    #[serde(rename = "turn")]
    _turn: u32,
    vcpus: u32,
    /// Who halts the vCPUs.
    halts: Halts,
    /// How its kernel's locks wait.
    locks: Locks,
    workload: Load,
    operations: u64,
    /// By the guest's clock.
    seconds: Finite,
    /// What the host counted meanwhile, by the names of `run --stats`.
    counts: BTreeMap<String, Finite>,
}

/// How the kernel's locks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Locks {
    /// It was offered PV_UNHALT.
    Pv,
    /// It was not.
    Native,
    /// It was, and had `nopvspin` on its command line.
    Nopvspin,
}

/// Why a file is no study of Linux.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// It can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is none of a study.
    #[error("{}: line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Two lines name two hosts.
    #[error("{}: line {line}: measured on another host than what is above it", path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A line tells of a workload that no Linux guest has.
    #[error("{}: line {line}: {} is not a workload of Linux", path.display(), load.id())]
    Workload {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it says.
        load: Load,
    },
}

/// What KVM and this process count of exits to this process.
const EXITS: [&str; 8] = [
    "vmm_exit_hlt",
    "vmm_exit_hypercall",
    "vmm_exit_pio",
    "vmm_exit_mmio",
    "vmm_exit_msr",
    "vmm_exit_window",
    "vmm_exit_signal",
    "vmm_exit_other",
];
/// Halts: KVM counts those that end in it as exits too.
const HALTS: [&str; 1] = ["halt_exits"];
/// Hypercalls, which are kicks but for a few IPIs: those that KVM serves and
/// those that come to this process.
const HYPERCALLS: [&str; 2] = ["hypercalls", "vmm_exit_hypercall"];

impl Record {
    fn sum(&self, names: &[&str]) -> u64 {
        let counts = names.iter().filter_map(|&name| self.counts.get(name));
        let sum: f64 = counts.map(|count| count.get()).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count; `as` saturates"
        )]
        let sum = sum as u64;
        sum
    }

    const fn key(&self) -> CellKey {
        CellKey {
            load: self.workload,
            series: Series {
                waiter: match self.locks {
                    Locks::Pv => Waiter::LinuxPv,
                    Locks::Native => Waiter::LinuxNative,
                    Locks::Nopvspin => Waiter::LinuxQueue,
                },
                halts: self.halts,
                transport: match (self.locks, self.halts) {
                    (Locks::Pv, Halts::Userspace) => Transport::Xen,
                    (Locks::Pv, Halts::Kernel) => Transport::Kvm,
                    _ => Transport::None,
                },
            },
            vms: 1,
            vcpus: self.vcpus,
        }
    }

    fn repetition(&self) -> Repetition {
        Repetition {
            at: Finite::ZERO,
            seconds: self.seconds,
            acquisitions: vec![self.operations],
            background: 0,
            exits: self.sum(&EXITS),
            halts: self.sum(&HALTS),
            kicks: self.sum(&HYPERCALLS),
            running: Finite::ZERO,
            halted: Finite::ZERO,
            held: Finite::ZERO,
            run_delay: Finite::ZERO,
            waits: Waits::default(),
            beside: None,
        }
    }
}

/// The study that the lines of the file at `path` are, and whether they say on which
/// host they were measured: if they do not, it is taken to be `host`.
///
/// # Errors
/// It can't be read, a line is not one of `study-linux`, or two are of two hosts.
pub fn read(path: &Path, mut host: Host) -> Result<(Dataset, bool), LinuxError> {
    let text = std::fs::read_to_string(path).map_err(|source| LinuxError::File {
        path: path.to_path_buf(),
        source,
    })?;
    let mut cells: BTreeMap<CellKey, Vec<Repetition>> = BTreeMap::new();
    let mut measured_on: Option<MeasuredOn> = None;
    for (line, text) in (1..).zip(text.lines()) {
        let path = || path.to_path_buf();
        let wrong = |source| LinuxError::Line {
            path: path(),
            line,
            source,
        };
        if is_about_the_host(text) {
            let found: HostLine = serde_json::from_str(text).map_err(wrong)?;
            // The pieces of one study each have it.
            if measured_on
                .replace(found.host.clone())
                .is_some_and(|above| above != found.host)
            {
                return Err(LinuxError::Hosts { path: path(), line });
            }
            continue;
        }
        let record: Record = serde_json::from_str(text).map_err(wrong)?;
        let load = record.workload;
        if !load.is_linux() {
            let path = path();
            return Err(LinuxError::Workload { path, line, load });
        }
        let repetitions = cells.entry(record.key()).or_default();
        repetitions.push(record.repetition());
    }
    let cells = cells.into_iter().map(|(key, repetitions)| Cell {
        key,
        repetitions,
        failure: None,
    });
    let cells: Vec<Cell> = cells.collect();
    let enough = cells.iter().all(|cell| cell.repetitions.len() >= ENOUGH);
    let is_told = measured_on.is_some();
    if let Some(found) = measured_on {
        host.cpus = found.cpus.get();
        host.cpu_model = found.cpu_model;
        host.kernel = found.kernel;
        host.virtual_machine = found.virtual_machine;
        host.emulated = found.emulated;
    }
    let data = Dataset {
        format: FORMAT,
        tool: concat!("vmm-reference ", env!("CARGO_PKG_VERSION")).to_string(),
        began: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        took: Finite::ZERO,
        end: if enough { End::Narrow } else { End::Budget },
        host,
        settings: Settings {
            seconds: Finite::ZERO,
            budget: Finite::ZERO,
            seed: 1,
            spin_us: 0,
            yielding: "Linux's own".to_string(),
        },
        cells,
        timelines: Vec::new(),
    };
    Ok((data, is_told))
}

fn is_about_the_host(line: &str) -> bool {
    let line = serde_json::from_str::<serde_json::Value>(line);
    line.is_ok_and(|line| line.get("host").is_some())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn line(turn: u32, vcpus: u32, halts: &str, locks: &str, operations: u64) -> String {
        format!(
            "{{\"turn\": {turn}, \"vcpus\": {vcpus}, \"halts\": \"{halts}\", \"locks\": \"{locks}\", \
             \"workload\": \"hackbench\", \"operations\": {operations}, \"seconds\": 2.5, \
             \"counts\": {{\"exits\": 900, \"halt_exits\": 40, \"hypercalls\": 7, \
             \"vmm_exit_pio\": 3}}}}\n"
        )
    }

    fn read_text(name: &str, text: &str) -> Result<(Dataset, bool), LinuxError> {
        let path = std::env::temp_dir().join(format!("study-linux-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let mut host = sample::dataset().host;
        (host.cpus, host.emulated) = (1, true);
        let data = read(&path, host);
        std::fs::remove_file(&path).unwrap();
        data
    }

    #[test]
    fn lines_become_cells() {
        let mut text = String::new();
        for turn in 1..=6 {
            for vcpus in [1, 4] {
                for halts in ["kernel", "userspace"] {
                    for (locks, slow) in [("native", 4), ("pv", 1), ("nopvspin", 20)] {
                        let slow = if vcpus == 1 { 1 } else { slow };
                        text += &line(turn, vcpus, halts, locks, u64::from(1000 + turn) / slow);
                    }
                }
            }
        }
        let (data, is_told) = read_text("good", &text).unwrap();
        assert!(!is_told);
        assert_eq!((data.cells.len(), data.end), (12, End::Narrow));
        let cell = &data.cells[0];
        assert_eq!(cell.repetitions.len(), 6);
        let first = &cell.repetitions[0];
        assert_eq!((first.exits, first.halts, first.kicks), (3, 40, 7));
        assert_eq!(first.rate().unwrap().get(), 1001.0 / 2.5);
        let page = crate::study::report::html(&data);
        assert!(page.contains("Time was emulated here"));
        assert!(page.contains("work-hackbench-vcpus"));
        assert!(page.contains("between 1x and 4x"), "without PV it falls");
        // Ratios and counts only.
        assert!(!page.contains("/s</") && !page.contains("/s\n"), "{page}");
        let says = crate::study::report::summary::sentences(&data);
        assert!(says[0].starts_with("hackbench at 4x"), "{says:?}");
        let [queue, unfair] = ["a queue that spins", "test-and-set"].map(|what| {
            let from = says[0].find(what).unwrap();
            says[0][from..].split(';').next().unwrap().to_string()
        });
        // By the lines.
        assert!(queue.contains("20 to 20 times as fast"), "{says:?}");
        assert!(unfair.contains("4.0 to 4.0 times as fast"), "{says:?}");
    }

    /// The ratio is that of the host that measured, not of the one that reads.
    #[test]
    fn the_host_is_that_of_the_lines() {
        let host = |cpus| {
            format!(
                "{{\"host\": {{\"cpus\": {cpus}, \"cpu_model\": \"EPYC\", \"kernel\": \"6.12\", \
                 \"virtual_machine\": true, \"emulated\": false}}}}\n"
            )
        };
        let one = line(1, 6, "kernel", "pv", 9);
        // Each piece of a study has the line.
        let (data, is_told) = read_text("told", &format!("{}{one}{0}{one}", host(3))).unwrap();
        assert!(is_told);
        assert_eq!(data.ratio(&data.cells[0].key).get(), 2.0);
        assert_eq!(data.cells[0].repetitions.len(), 2);
        assert_eq!((&*data.host.kernel, data.host.emulated), ("6.12", false));
        for (name, text, says) in [
            (
                "two-hosts",
                format!("{}{one}{}", host(3), host(4)),
                "line 3: measured on another",
            ),
            ("no-cpus", host(0), "line 1: invalid value"),
            (
                "half-a-host",
                "{\"host\": {\"cpus\": 1}}".to_string(),
                "line 1: missing field",
            ),
        ] {
            let error = read_text(name, &text).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_told_in_one_line() {
        for (name, text, says) in [
            ("empty-line", "\n", "line 1: EOF"),
            ("short", "{\"turn\": 1}", "line 1: missing field"),
            (
                "load",
                &line(1, 2, "kernel", "pv", 9).replace("hackbench", "short"),
                "line 1: short is not a workload of Linux",
            ),
            (
                "halts",
                &line(1, 2, "elsewhere", "pv", 9),
                "line 1: unknown variant `elsewhere`",
            ),
        ] {
            let error = read_text(name, text).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        // Nothing measured is a study of nothing.
        assert!(read_text("nothing", "").unwrap().0.cells.is_empty());
    }
}
