//! Numbers as a person reads them.

/// Three digits that mean something: `0.083`, `9.31`, `12.4`, `1,234,567`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_string(),
        s if s < 1e-3 => format!("{value:.1e}"),
        s if s < 0.1 => format!("{value:.3}"),
        s if s < 10.0 => format!("{value:.2}"),
        s if s < 100.0 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

/// `1,234,567`.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// Nanoseconds in the unit that a person would take.
pub fn nanoseconds(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        n if n < 1e3 => (ns, "ns"),
        n if n < 1e6 => (ns / 1e3, "µs"),
        n if n < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    // 1.0 and 10.0 are 1 and 10.
    let text = match value.abs() {
        v if v < 9.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    let digits = usize::from(share.abs() < 0.1 && share != 0.0);
    format!("{:.digits$} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_person_reads_them() {
        for (value, text) in [
            (0.0, "0"),
            (0.0831, "0.083"),
            (9.308, "9.31"),
            (12.44, "12.4"),
            (1_234_567.0, "1,234,567"),
            (-1_000.0, "-1,000"),
            (999.0, "999"),
            (0.0004, "4.0e-4"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(nanoseconds(1.0), "1 ns");
        assert_eq!(nanoseconds(1_500.0), "1.5 µs");
        assert_eq!(nanoseconds(-3e6), "-3 ms");
        assert_eq!(nanoseconds(2.5e10), "25 s");
        assert_eq!(percent(0.123), "12 %");
        assert_eq!(percent(0.0123), "1.2 %");
    }
}
