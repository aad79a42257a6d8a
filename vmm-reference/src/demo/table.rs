//! The demo's figures for a person: a table, a chart and what they mean.

use std::fmt::Write as _;

use super::Mode;
use super::cell::DemoRow;
use crate::halt_mode::HaltMode;

const BAR_WIDTH: f64 = 40.0;

/// The table's head, a line.
pub const HEAD: &str = "vCPUs   over  waiters             locks/s    gain     halts     kicks   CPU s  \
                        wait p50  wait p99\n";

/// The table, the chart and two or three sentences; plain text, at most 100
/// columns.
pub fn text(rows: &[DemoRow]) -> String {
    let mut out = HEAD.to_string();
    for n in 1..=rows.len() {
        out.push_str(&last_row(rows.get(..n).unwrap_or_default()));
    }
    out + &behind_table(rows)
}

/// What stands behind the table.
pub fn behind_table(rows: &[DemoRow]) -> String {
    let mut out = String::new();
    chart(&mut out, rows);
    kvm_counts(&mut out, rows);
    verdict(&mut out, rows);
    out
}

/// The row that spins where this one does not.
fn spinning<'a>(rows: &'a [DemoRow], row: &DemoRow) -> Option<&'a DemoRow> {
    let of = |r: &DemoRow| (r.vcpus, r.vms, r.vm);
    rows.iter()
        .find(|r| r.mode == Mode::Spin && of(r) == of(row))
}

/// What `row` gained over spinning with as many vCPUs.
fn gain(rows: &[DemoRow], row: &DemoRow) -> Option<f64> {
    let spin = spinning(rows, row).map(|r| r.ops_per_s);
    let spin = spin.filter(|&rate| rate > 0.0)?;
    (row.mode != Mode::Spin).then_some(row.ops_per_s / spin)
}

/// How a row waits, halts and kicks, in few characters.
pub fn label(mode: Mode, halt: HaltMode, transport: &str) -> String {
    match (mode, halt) {
        (Mode::Spin, _) => "spin".to_string(),
        (Mode::Pv, HaltMode::Userspace) => format!("pv user/{transport}"),
        (Mode::Pv, HaltMode::Kernel) => format!("pv kernel/{transport}"),
    }
}

fn row_label(row: &DemoRow) -> String {
    let label = label(row.mode, row.halt, row.transport);
    match (row.vms, row.vm) {
        (1, _) => label,
        (vms, Some(vm)) => format!("{label} {vm}/{vms}"),
        (vms, None) => format!("{label} x{vms}"),
    }
}

fn overcommit(row: &DemoRow) -> f64 {
    f64::from(row.vcpus) * f64::from(row.vms) / row.host_cpus as f64
}

/// The table's line for the last of these rows, an empty one before it if the
/// number of vCPUs is a new one.
pub fn last_row(rows: &[DemoRow]) -> String {
    let Some((row, before)) = rows.split_last() else {
        return String::new();
    };
    let gap = match before.last() {
        Some(last) if last.vcpus != row.vcpus => "\n",
        _ => "",
    };
    let gain = gain(rows, row).map_or_else(|| "-".to_string(), |g| format!("{g:.1}x"));
    format!(
        "{gap}{:>5}  {:>4.1}x  {:<18} {:>8}  {:>6}  {:>8}  {:>8}  {:>6.2}  {:>8}  {:>8}\n",
        row.vcpus,
        overcommit(row),
        row_label(row),
        round(row.ops_per_s),
        gain,
        row.halts,
        row.kicks,
        row.cpu_seconds,
        time(row.wait_p50_us),
        time(row.wait_p99_us),
    )
}

/// A rate without digits that mean nothing.
fn round(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// Microseconds in the unit that a person would take.
fn time(micros: f64) -> String {
    match micros {
        m if m < 1.0 => format!("{:.0} ns", m * 1e3),
        m if m < 1e3 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.1} s", m / 1e6),
    }
}

// Writing to a String does not fail; `let _` says that it was seen.
fn chart(out: &mut String, rows: &[DemoRow]) {
    let most = rows.iter().map(|r| r.ops_per_s).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let _ = writeln!(out, "\nlock acquisitions per second");
    let mut last = 0;
    for row in rows {
        let vcpus = if last == row.vcpus {
            String::new()
        } else {
            format!("{} vCPUs", row.vcpus)
        };
        last = row.vcpus;
        let bar = bar(row.ops_per_s / most);
        let _ = writeln!(
            out,
            "{vcpus:>10}  {:<18} |{bar} {}",
            row_label(row),
            round(row.ops_per_s)
        );
    }
}

/// What KVM counted, for the rows that halted in it.
fn kvm_counts(out: &mut String, rows: &[DemoRow]) {
    let kernel: Vec<_> = rows
        .iter()
        .filter(|row| row.halt == HaltMode::Kernel && row.mode == Mode::Pv)
        .filter_map(|row| Some((row, row.kvm_stats.as_ref()?)))
        .collect();
    if kernel.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\nas KVM counted (halts in the kernel)\n\
         vCPUs  transport     halts   wake-ups  polls won/tried    hypercalls  yields to/tried     asleep s"
    );
    for (row, stats) in kernel {
        let n = |name| stats.get(name).unwrap_or(0);
        let _ = writeln!(
            out,
            "{:>5}  {:<9}  {:>8}  {:>9}  {:>15}  {:>12}  {:>15}  {:>11.2}",
            row.vcpus,
            row.transport,
            n("halt_exits"),
            n("halt_wakeup"),
            format!("{}/{}", n("halt_successful_poll"), n("halt_attempted_poll")),
            n("hypercalls"),
            format!(
                "{}/{}",
                n("directed_yield_successful"),
                n("directed_yield_attempted")
            ),
            n("halt_wait_ns") as f64 / 1e9,
        );
    }
}

/// A bar in eighths of a character; something is never drawn as nothing.
fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 0 to 1 of a bar of 40 characters; `as` saturates"
    )]
    let eighths = ((share * BAR_WIDTH * 8.0).round() as usize).max(usize::from(share > 0.0));
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(PARTS.get(eighths % 8).copied().unwrap_or_default());
    bar
}

/// What the figures say, in words.
fn verdict(out: &mut String, rows: &[DemoRow]) {
    let Some(first) = rows.first() else { return };
    let _ = writeln!(
        out,
        "\nOvercommit is vCPUs per pCPU ({} here). Above 1x some vCPU that wants to run must wait\n\
         for a pCPU. A waiter that spins keeps that pCPU from the very vCPU it waits for; a\n\
         waiter that halts gives it up, and the unlocker wakes it with KVM_HC_KICK_CPU.",
        first.host_cpus
    );
    let best = rows
        .iter()
        .filter_map(|row| Some((gain(rows, row)?, row)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((gain, row)) = best
        && gain > 1.0
        && let Some(spin) = spinning(rows, row)
    {
        let cpu = |r: &DemoRow| r.cpu_seconds / (r.acquisitions.max(1) as f64) * 1e6;
        let _ = writeln!(
            out,
            "Gained: at {} vCPUs ({:.1}x) halt and kick took the lock {gain:.1} times as often as \
             spinning.\nCost: {:.0} us of CPU time for one acquisition, where spinning burnt {:.0} us.",
            row.vcpus,
            overcommit(row),
            cpu(row),
            cpu(spin)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::BackendKind;

    fn row(mode: Mode, vcpus: u32, ops_per_s: f64) -> DemoRow {
        DemoRow {
            backend: BackendKind::Kvm,
            mode,
            halt: HaltMode::Userspace,
            transport: "port",
            door: "port",
            vms: 1,
            vm: Some(1),
            vcpus,
            host_cpus: 2,
            acquisitions: 1000,
            expected: 1000,
            seconds: 2.0,
            ops_per_s,
            least_share: 1.0,
            halts: 0,
            kicks: 0,
            cpu_seconds: 4.0,
            held_seconds: 0.0,
            run_delay_seconds: 0.0,
            wait_p50_us: 10.0,
            wait_p99_us: 2e6,
            kvm_stats: None,
        }
    }

    #[test]
    fn gain_is_over_spin_with_as_many_vcpus() {
        let rows = [
            row(Mode::Spin, 4, 400.0),
            row(Mode::Pv, 4, 6000.0),
            row(Mode::Pv, 8, 5000.0),
        ];
        let text = text(&rows);
        assert!(text.contains("15.0x"), "{text}");
        assert_eq!(gain(&rows, &rows[2]), None, "no spin row at 8 vCPUs");
        assert!(text.contains("at 4 vCPUs (2.0x)"), "{text}");
        assert!(text.contains("2.0 s"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }

    #[test]
    fn a_stalled_mode_still_has_a_bar() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1e-9), "▏");
        assert_eq!(bar(1.0).chars().count(), 40);
    }

    #[test]
    fn nothing_measured_is_no_panic() {
        assert!(text(&[]).contains("vCPUs"));
        assert!(text(&[row(Mode::Spin, 1, 0.0), row(Mode::Pv, 1, 5.0)]).contains("pv"));
    }
}
