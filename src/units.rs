//! Durations and sizes as people write them, the same in configurations, limits and arguments of the command. Knows nothing of what they
//! are for.

use std::time::Duration;

/// Reads a duration: seconds (`5`, `0.5`), or a number with its unit (`5s`, `500 ms`, `2m`, `1.5 h`).
///
/// ```
/// use std::time::Duration;
/// assert_eq!(rhaiway::parse_duration("1.5 min"), Ok(Duration::from_secs(90)));
/// assert!(rhaiway::parse_duration("0").is_err());
/// ```
///
/// # Errors
/// What was expected, where it is none, or not over 0.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let scale = match &*unit.to_lowercase() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => Some(1e-3),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "h" | "hr" | "hour" | "hours" => Some(3600.0),
        _ => None,
    };
    let seconds = scale.zip(number.parse::<f64>().ok()).map(|(scale, number)| number * scale);
    match seconds {
        None => Err(format!("expected {DURATION}")),
        Some(seconds) => from_seconds(seconds).ok_or_else(|| no_duration(seconds).into()),
    }
}

/// What a duration looks like, for messages.
pub(crate) const DURATION: &str = "a duration, such as `5`, `0.5 s`, `500ms` or `2m`";

/// Why a number of seconds is no duration.
pub(crate) fn no_duration(seconds: f64) -> &'static str {
    if seconds > 1.0 { "expected a duration of less than 10^19 seconds" } else { "expected a duration over 0" }
}

/// `None` where it is not over 0, or more than a clock can hold.
pub(crate) fn from_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

/// Reads a size: bytes (`65536`), or a number with its unit (`64 KiB`, `64kb`, `1.5 MiB`). `K`, `M` and `G` alone are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text);
    let scale: u64 = match &*unit.to_lowercase() {
        "" | "b" | "byte" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return usize::try_from(whole.checked_mul(scale)?).ok();
    }
    let number: f64 = number.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "a scale is small")]
    let size = number * scale as f64;
    // Half a byte is none, and beyond this not each number can be told from its neighbours.
    if !(0.0..9e15).contains(&size) || size.fract() != 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    usize::try_from(size as u64).ok()
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let letters = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    // `1e19` is a number; `inf` and `NaN` are units that there are not.
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return (text, "");
    }
    (letters.trim_end(), &text[letters.len()..])
}

/// A size as the documentation has it: `64 MiB`, `1.4 MiB`, `13 bytes`.
pub(crate) fn size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((scale, unit)) = UNITS.into_iter().find(|(scale, _)| bytes >= *scale) else {
        return if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") };
    };
    if bytes.is_multiple_of(scale) {
        return format!("{} {unit}", bytes / scale);
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let rounded = format!("{:.1}", bytes as f64 / scale as f64);
    format!("{} {unit}", rounded.strip_suffix(".0").unwrap_or(&rounded))
}

/// A size that is over another: in full where the units would show them as the same.
pub(crate) fn size_over(bytes: usize, limit: usize) -> String {
    let shown = size(bytes);
    if shown == size(limit) { format!("{bytes} bytes") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_units() {
        for (text, milliseconds) in [
            ("5", 5000),
            ("5s", 5000),
            (" 0.5 s ", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1.5 h", 5_400_000),
            ("3 minutes", 180_000),
            ("1e1", 10_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["0", "-1", "0ms", "-5s"] {
            assert_eq!(parse_duration(text), Err("expected a duration over 0".into()), "{text}");
        }
        for text in ["", "soon", "5 parsecs", "NaN", "inf", "5 s s", "s", "1,5"] {
            assert_eq!(parse_duration(text), Err(format!("expected {DURATION}")), "{text}");
        }
    }

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("65536", 65536),
            ("64 KiB", 65536),
            ("64kib", 65536),
            ("64kb", 64000),
            ("64K", 65536),
            ("1.5 MiB", 3 << 19),
            ("2GB", 2_000_000_000),
            ("12 bytes", 12),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.3 B", "5 XB", "1 KiB KiB", "99999999999999999999", "NaN", "99999999999 GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_in_the_documentation() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((64 << 20) + 1, "64 MiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(size_over((64 << 20) + 1, 64 << 20), "67108865 bytes");
        assert_eq!(size_over(65 << 20, 64 << 20), "65 MiB");
    }
}
