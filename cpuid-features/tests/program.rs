//! The example `features`, as a user runs it.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use std::process::{Command, Output};

fn features(args: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(["run", "-q", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .args(["--example", "features", "--"])
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn the_program_answers_and_refuses() {
    let printed = |args: &[&str]| {
        let output = features(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let decoded = printed(&["decode", "0x80", "1"]);
    let words: Vec<&str> = decoded
        .lines()
        .map(|line| line.split('\t').nth(2).unwrap())
        .collect();
    assert_eq!(words, ["pv-unhalt", "realtime"]);

    let td = printed(&["profile", "tdx", "0x20"]);
    assert!(
        td.starts_with("dropped\tsteal-time\tthe VMM leaves it out: KVM refuses a TD its MSR\t")
    );
    assert!(td.contains("tdx_has_emulated_msr"), "{td}");

    let stopped = printed(&["migrate", "0x01007efb", "0x010004fb"]);
    assert_eq!(stopped.lines().count(), 7, "{stopped}");
    let free = printed(&["migrate", "0x010004fb", "0x01007efb"]);
    assert_eq!(
        free,
        "the destination offers all that the guest was shown\n"
    );

    assert!(printed(&["--format", "tsv", "--arch", "powerpc"]).ends_with("r4\t1\tmagic-page\n"));
    for wrong in [
        &["profile"][..],
        &["profile", "sgx"],
        &["migrate", "1"],
        &["decode", "pv-unhalt"],
        &["--format", "xml"],
        &["--arch", "mips"],
        &["\n"],
    ] {
        let output = features(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(
            String::from_utf8(output.stderr)
                .unwrap()
                .trim_end()
                .lines()
                .count(),
            1,
            "{wrong:?}"
        );
    }
}
