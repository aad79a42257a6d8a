//! What `ci/soak` judges by: what is wrong it finds, and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helper that fails is a test that fails"
)]
#![allow(dead_code, reason = "only the judging parts of the soak are here")]

mod common;
#[path = "../benches/soak/heard.rs"]
mod heard;
#[path = "../benches/soak/usage.rs"]
mod usage;

use std::process::{Command, Stdio};
use std::time::Duration;

use heard::{Expected, Heard, letter};
use usage::{MEMORY_KIB, Samples, Usage, children};

/// Descriptors, threads and memory of a process, sample by sample.
fn samples(of: impl Fn(u64) -> [u64; 3]) -> Samples {
    let mut samples = Samples::default();
    for n in 0..100 {
        let [descriptors, threads, memory_kib] = of(n);
        samples.extend(Some(Usage {
            memory_kib,
            descriptors,
            threads,
        }));
    }
    samples
}

#[test]
fn what_comes_and_goes_is_no_growth() {
    let steady = samples(|n| [20 + n % 7, 6 + n % 2, 5000 + n % 3 * 1000]);
    assert_eq!(steady.growth(), None);
    // Nor is what a process needs to come up.
    let begun = samples(|n| [n.min(20), n.min(6), n.min(25) * 100]);
    assert_eq!(begun.growth(), None);
    let freed = samples(|n| [40 - n / 4, 30 - n / 4, 9000 - n]);
    assert_eq!(freed.growth(), None);
}

#[test]
fn what_is_never_given_back_is_growth() {
    let growth = |of: fn(u64) -> [u64; 3]| samples(of).growth().unwrap();
    let descriptor = growth(|n| [20 + n / 60 + n % 5, 6, 5000]);
    assert_eq!(descriptor, "descriptors: from 20 to 21");
    let thread = growth(|n| [20, 6 + n / 70, 5000]);
    assert_eq!(thread, "threads: from 6 to 7");
    let memory = growth(|n| [20, 6, 5000 + n * MEMORY_KIB / 40]);
    assert!(memory.starts_with("KiB: from "), "{memory}");
}

/// A process without samples is one that nobody looked at.
#[test]
fn nothing_is_said_of_nothing() {
    assert_eq!(Samples::default().growth(), None);
    assert_eq!(Samples::default().ends(), None);
}

fn heard(text: &[u8], expected: Expected) -> std::sync::Arc<Heard> {
    let heard = Heard::listen(std::io::Cursor::new(text.to_vec()), expected);
    assert!(heard.until(Duration::from_secs(60), |counts| counts.over));
    heard
}

#[test]
fn letters_in_their_order_are_right() {
    let mut text = b"up".to_vec();
    for n in 0..100 {
        text.push(letter(n));
        if n % 7 == 0 {
            text.push(b'k');
        }
    }
    let heard = heard(&text, Expected::Letters);
    assert_eq!(heard.wrong(), None);
    let counts = heard.counts();
    assert_eq!((counts.letters, counts.woken), (100, 15));
}

#[test]
fn a_letter_that_is_lost_doubled_or_another_is_found() {
    for text in ["up0124", "up01123", "up02134", "up01u", "u01", "up0!"] {
        let heard = heard(text.as_bytes(), Expected::Letters);
        assert!(heard.wrong().is_some(), "{text}");
    }
    assert!(heard(b"xxxyx", Expected::Only(b'x')).wrong().is_some());
    assert_eq!(heard(b"xxxx", Expected::Only(b'x')).wrong(), None);
}

/// A copy begins anywhere.
#[test]
fn a_copy_has_letters_in_their_order_too() {
    assert_eq!(heard(b"789Ak!BC", Expected::Copy).wrong(), None);
    assert_eq!(heard(b"YZ01k!", Expected::Copy).counts().marks, 1);
    assert!(heard(b"789Bk!", Expected::Copy).wrong().is_some());
}

#[test]
fn a_process_that_is_left_is_seen() {
    let mut child = common::spawn(Command::new("sleep").arg("86400").stdin(Stdio::null()));
    let (id, all) = (child.id(), children(std::process::id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(all.contains(&(id, "sleep 86400".to_string())), "{all:?}");
    let now = children(std::process::id());
    assert!(now.iter().all(|(other, _)| *other != id), "{now:?}");
}
