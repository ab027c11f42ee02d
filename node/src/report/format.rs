//! Numbers in words, for tiles and tables.

/// What stands where there is no value.
pub(crate) const NONE: &str = "–";

/// 1234567 as 1,234,567.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// 1234567 as 1.23M; below ten thousand the number itself.
pub(crate) fn compact(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rounded, saturating
    if (0.0..9999.5).contains(&value) {
        return count(value.round() as u64);
    }
    for (unit, letter) in [(1e12, 'T'), (1e9, 'B'), (1e6, 'M'), (1e3, 'k')] {
        if value >= unit {
            let scaled = value / unit;
            let digits = 2_usize.saturating_sub(usize::from(scaled >= 10.0) + usize::from(scaled >= 100.0));
            return format!("{scaled:.digits$}{letter}");
        }
    }
    format!("{value:.0}")
}

/// `digits` decimals, or [`NONE`].
pub(crate) fn decimals(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { NONE.to_owned() }
}

/// Four digits whatever the size, such as a learning rate.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => NONE.to_owned(),
        0.0 => "0".to_owned(),
        size if (1e-3..1e5).contains(&size) => {
            let text = format!("{value:.5}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.3e}"),
    }
}

/// Seconds as 42.0 s, 3m 5s or 2h 10m.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NONE.to_owned();
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole seconds, saturating
    let whole = seconds.round() as u64;
    match (whole / 3600, whole % 3600 / 60, whole % 60) {
        (0, min, s) => format!("{min}m {s}s"),
        (h, min, _) => format!("{}h {min}m", count(h)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([compact(9999.4), compact(12_345.0), compact(1.05e6)], ["9,999", "12.3k", "1.05M"]);
        assert_eq!([compact(123.4e9), compact(f64::NAN), compact(0.0)], ["123B", NONE, "0"]);
        assert_eq!(
            [digits(0.003), digits(3e-5), digits(0.0), digits(12.0)],
            ["0.003", "3.000e-5", "0", "12"]
        );
        assert_eq!([decimals(1.0, 4), decimals(f64::INFINITY, 4)], ["1.0000", NONE]);
        assert_eq!([duration(42.04), duration(185.0), duration(7800.0)], ["42.0 s", "3m 5s", "2h 10m"]);
        assert_eq!([duration(f64::NAN), duration(1e300)], [NONE, "5,124,095,576,030,431h 0m"]);
    }
}
