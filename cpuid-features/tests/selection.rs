//! The user's list, good and bad.

use cpuid_features::{KvmFeatures, KvmHints, Selection, SelectionFault};

#[test]
fn lists() {
    let empty: Selection = "".parse().unwrap();
    assert_eq!(empty, Selection::default());
    assert_eq!(" \t".parse(), Ok(Selection::default()));
    let list = " +pv-unhalt , -steal-time,+realtime,-hint3,+bit18,+kvm-pv-eoi,+pv-unhalt";
    let selection: Selection = list.parse().unwrap();
    assert_eq!(
        selection,
        Selection {
            on: KvmFeatures::PV_UNHALT
                | KvmFeatures::PV_EOI
                | KvmFeatures::from_bits_retain(1 << 18),
            off: KvmFeatures::STEAL_TIME,
            hints_on: KvmHints::REALTIME,
            hints_off: KvmHints::from_bits_retain(1 << 3),
        }
    );
}

#[test]
fn faults_name_the_word() {
    let cases = [
        ("pv-unhalt", SelectionFault::NoSign, "pv-unhalt"),
        ("+pv-eoi,", SelectionFault::NoSign, ""),
        ("+pv-eoi,,-bit3", SelectionFault::NoSign, ""),
        ("+", SelectionFault::UnknownName, "+"),
        ("+pv-unhalted", SelectionFault::UnknownName, "+pv-unhalted"),
        ("- pv-eoi", SelectionFault::UnknownName, "-"),
        ("+pv-eoi;:-bit3", SelectionFault::NoSign, ""),
        ("-bit32", SelectionFault::UnknownName, "-bit32"),
        ("+pv-eoi,-pv-eoi", SelectionFault::OnAndOff, "-pv-eoi"),
        ("-bit7,+pv-unhalt", SelectionFault::OnAndOff, "+pv-unhalt"),
        ("+realtime,-hint0", SelectionFault::OnAndOff, "-hint0"),
        (
            "-kvmclock,+clocksource2",
            SelectionFault::OnAndOff,
            "+clocksource2",
        ),
    ];
    for (list, fault, token) in cases {
        let error = list.parse::<Selection>().unwrap_err();
        assert_eq!(error.fault, fault, "{list}");
        assert_eq!(error.token.as_str(), token, "{list}");
        assert!(error.to_string().contains(token), "{list}");
        assert!(!error.to_string().contains('\n'), "{list}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = "+pvunhalt".parse::<Selection>().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("`+pvunhalt` names no feature and no hint"),
        "{text}"
    );
    for known in ["pv-unhalt", "steal-time", "realtime", "bit31"] {
        assert!(text.contains(known), "{text}");
    }
}

#[test]
fn long_and_odd_words_are_cut_and_escaped() {
    let long = "+".to_owned() + &"\u{e9}".repeat(100);
    let error = long.parse::<Selection>().unwrap_err();
    // 40 bytes: the sign and 19 letters of two.
    assert_eq!(error.token.as_str(), "+".to_owned() + &"\u{e9}".repeat(19));
    assert!(error.to_string().contains("\u{e9}...`"));
    let odd = "+a\u{1b}[2J".parse::<Selection>().unwrap_err();
    assert!(!odd.to_string().contains('\u{1b}'), "{odd}");
}

#[test]
fn any_separator_does() {
    let expected: Selection = "+pv-unhalt,-steal-time,+realtime".parse().unwrap();
    for list in [
        "+pv-unhalt:-steal-time:+realtime",
        "+pv-unhalt;-steal-time;+realtime",
        "+pv-unhalt/-steal-time/+realtime",
        "+pv-unhalt -steal-time\t+realtime\n",
        "+pv-unhalt: -steal-time,+realtime",
    ] {
        assert_eq!(list.parse(), Ok(expected), "{list:?}");
    }
    let mut one_by_one = Selection::default();
    for word in ["+pv-unhalt", "-steal-time", "+realtime"] {
        one_by_one.add(word).unwrap();
    }
    assert_eq!(one_by_one, expected);
}

#[cfg(feature = "serde")]
#[test]
fn a_selection_is_a_string_of_a_configuration() {
    let selection: Selection = "+pv-unhalt,-steal-time,+bit18,-hint3".parse().unwrap();
    let json = serde_json::to_string(&selection).unwrap();
    assert_eq!(json, "\"-steal-time,+pv-unhalt,+bit18,-hint3\"");
    assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), selection);
    let error = serde_json::from_str::<Selection>("\"+pv-unhalted\"").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`+pv-unhalted` names no feature"),
        "{error}"
    );
    assert!(serde_json::from_str::<Selection>("7").is_err());
}
