//! The command line from outside: statuses, and one line for each mistake.

#![expect(
    clippy::expect_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::process::{Command, Output};

fn vmm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmm-reference"))
        .args(args)
        .output()
        .expect("the binary under test starts")
}

/// One line on stderr that names `culprit`, nothing on stdout, `status`.
fn refused(args: &[&str], status: i32, culprit: &str) {
    let output = vmm(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("vmm-reference: "), "{args:?}: {stderr}");
    assert!(
        stderr.contains(culprit),
        "{args:?} names {culprit}: {stderr}"
    );
    assert_eq!(output.stdout, b"", "{args:?}");
}

#[test]
fn usage_errors_are_status_2() {
    refused(&["demo", "--modes", "sleep"], 2, "'sleep'");
    refused(&["demo", "--vcpus", "two"], 2, "'two'");
    refused(&["demo", "--vcpus", "-1"], 2, "-1");
    refused(&["demo", "--vcpus", "99999999999"], 2, "99999999999");
    refused(&["demo", "--vcpus", ""], 2, "--vcpus");
    refused(&["demo", "--backend", "xen"], 2, "'xen'");
    refused(&["demo", "--transport", "smoke"], 2, "'smoke'");
    refused(&["demo", "--door", "smoke"], 2, "'smoke'");
    for seconds in ["0", "-1", "nan", "inf", "1e9", "x"] {
        refused(&["demo", &format!("--seconds={seconds}")], 2, seconds);
    }
    refused(&["demo", "--pv", "+pv-unhlt"], 2, "pv-unhlt");
    refused(&["demo", "--pv", "pv-unhalt,"], 2, "--pv");
    refused(&["probe", "--yaml"], 2, "--yaml");
    refused(&["dance"], 2, "dance");
}

#[test]
fn what_the_host_cannot_do_is_status_1() {
    for vcpus in ["0", "1000000"] {
        refused(&["demo", "--backend", "hosted", "--vcpus", vcpus], 1, vcpus);
    }
    refused(
        &[
            "demo",
            "--backend",
            "hosted",
            "--pv",
            "-pv-unhalt",
            "--modes",
            "pv",
        ],
        1,
        "the user turned it off",
    );
    refused(
        &["demo", "--backend", "hosted", "--pv", "+migration-control"],
        1,
        "migration-control",
    );
}

#[test]
fn the_effect_of_pv_is_printed_once() {
    let args = ["demo", "--backend", "hosted", "--modes", "spin", "--json"];
    let more = ["--vcpus", "1,2", "--seconds", "0.05", "--pv=-pv-unhalt"];
    let output = vmm(&[args.as_slice(), &more].concat());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "vmm-reference: pv-unhalt dropped: the user turned it off\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let script = format!("{} demo --help | true", env!("CARGO_BIN_EXE_vmm-reference"));
    let output = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("sh starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn words_that_nobody_can_hear_change_no_status() {
    let full = || std::fs::File::create("/dev/full").expect("/dev/full opens");
    for (args, status) in [
        (["run", "--bogus"], 2),
        (["demo", "--vcpus=0"], 1),
        (["run", "--kernel=/nonexistent"], 1),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
        let ended = command.args(args).stderr(full()).status();
        assert_eq!(ended.expect("it starts").code(), Some(status), "{args:?}");
    }
}

#[test]
fn help_is_status_0_and_teaches() {
    let output = vmm(&["demo", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "--vcpus",
        "--modes",
        "--json",
        "KVM_HC_KICK_CPU",
        "[default: 1,2,4,8]",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn hosted_json_has_the_promised_keys_and_counts() {
    let output = vmm(&[
        "demo",
        "--backend",
        "hosted",
        "--json",
        "--vcpus",
        "1,4",
        "--seconds",
        "0.1",
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = rows.as_array().expect("an array");
    let cells: Vec<_> = rows
        .iter()
        .map(|r| (r["mode"].as_str(), r["vcpus"].as_u64()))
        .collect();
    for mode in ["spin", "pv"] {
        for vcpus in [1, 4] {
            assert!(
                cells.contains(&(Some(mode), Some(vcpus))),
                "{mode} {vcpus}: {cells:?}"
            );
        }
    }
    for row in rows {
        assert_eq!(row["backend"], "hosted");
        assert_eq!(row["acquisitions"], row["expected"], "{row}");
        assert!(row["acquisitions"].as_u64() > Some(0), "{row}");
        for key in ["host_cpus", "seconds", "ops_per_s", "cpu_seconds"] {
            assert!(row[key].as_f64() > Some(0.0), "{key}: {row}");
        }
        if row["mode"] == "spin" {
            assert_eq!(
                (row["halts"].as_u64(), row["kicks"].as_u64()),
                (Some(0), Some(0))
            );
        }
    }
}

#[test]
fn several_vms_at_once_are_rows_and_a_sum() {
    let output = vmm(&[
        "demo",
        "--backend",
        "hosted",
        "--json",
        "--modes",
        "pv",
        "--vcpus",
        "2",
        "--vms",
        "1,2",
        "--seconds",
        "0.1",
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = rows.as_array().expect("an array");
    let which: Vec<_> = (rows.iter())
        .map(|row| (row["vms"].as_u64(), row["vm"].as_u64()))
        .collect();
    let wanted = [(1, Some(1)), (2, Some(1)), (2, Some(2)), (2, None)];
    assert_eq!(which, wanted.map(|(vms, vm)| (Some(vms), vm)));
    let count = |n: usize| rows[n]["acquisitions"].as_u64().expect("a count");
    assert_eq!(count(3), count(1) + count(2));
    assert!(count(1) > 0 && count(2) > 0, "{rows:?}");
    for row in rows {
        for key in ["held_seconds", "run_delay_seconds"] {
            assert!(row[key].as_f64() >= Some(0.0), "{key}: {row}");
        }
    }
    refused(&["demo", "--backend", "hosted", "--vms", "0"], 2, "0");
}
