//! Sizes, durations and limits as people write them. The command line puts the
//! name of the flag in front of each error.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A limit: a number, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

/// Units of a size, bytes. Decimal units are decimal, as everywhere but in
/// memory modules.
const SIZES: [(&str, u64); 10] = [
    ("b", 1),
    ("", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Units of a duration, milliseconds.
const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Parses a size such as `64MiB`, `1.5GiB`, `10kB` or `4096`, in bytes.
fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Parses a duration such as `250ms`, `30s`, `5m`, `1.5h` or `30d`; more than
/// nothing.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    // A bare number has no unit on purpose: half the world would read it as
    // seconds, the other half as milliseconds.
    match parse(text, &DURATIONS) {
        Some(0) => Err(format!("`{text}` is too short; at least 1ms")),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(format!(
            "`{text}` is no duration; write a number and ms, s, m, h or d, such as 30s"
        )),
    }
}

/// Parses a limit on a number: `1000`, or `none`.
pub(crate) fn parse_limit(text: &str) -> Result<Limit, String> {
    limit(text, |text| text.parse().ok())
        .ok_or_else(|| format!("`{text}` is no limit; write a number of at least 1, or none"))
}

/// Parses a limit on a size: `64MiB`, or `none`.
pub(crate) fn parse_size_limit(text: &str) -> Result<Limit, String> {
    limit(text, parse_size)
        .ok_or_else(|| format!("`{text}` is no limit; write a number and B, kB, MB, GB, KiB, MiB or GiB, such as 64MiB, or none"))
}

/// A size for people: three digits and a binary unit.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    for (unit, size) in units {
        if bytes >= size {
            let whole = bytes / size;
            let tenth = bytes % size * 10 / size;
            return if tenth == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenth} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// A point in time as RFC 3339, in UTC.
pub(crate) fn show_time(time: SystemTime) -> String {
    let shown = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => time::Duration::try_from(after).ok(),
        Err(error) => time::Duration::try_from(error.duration())
            .ok()
            .map(|before| -before),
    }
    .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
    .and_then(|time| time.format(&Rfc3339).ok());
    shown.unwrap_or_else(|| "beyond the calendar".into())
}

fn limit(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<Limit> {
    if text.eq_ignore_ascii_case("none") {
        return Some(Limit(None));
    }
    let number = number(text).filter(|&number| number > 0 && i64::try_from(number).is_ok())?;
    Some(Limit(Some(number)))
}

/// A number with up to nine decimal places, and one of the units. Exact, and
/// rounded down to the smallest unit.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let &(_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(decimals.len()).ok()?);
    let whole: u64 = whole.parse().ok()?;
    let decimals: u128 = decimals.parse().ok()?;
    let scaled = u128::from(whole)
        .checked_mul(scale)?
        .checked_add(decimals)?;
    u64::try_from(scaled.checked_mul(factor.into())? / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("10kB", 10_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("0.1KiB", 102),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.",
            ".5",
            "1x",
            "1.2.3",
            "1 2",
            "99999999999TiB",
            "1.0000000001kB",
            "１",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("1ms", 1),
            ("250ms", 250),
            ("30s", 30_000),
            ("0.5s", 500),
            ("5m", 300_000),
            ("1.5h", 5_400_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "0s",
            "0.1ms",
            "-5s",
            "5 years",
            "1e3s",
            "999999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("none"), Ok(Limit(None)));
        assert_eq!(parse_limit("7"), Ok(Limit(Some(7))));
        assert_eq!(parse_size_limit("1KiB"), Ok(Limit(Some(1024))));
        for text in ["0", "-1", "", "18446744073709551615"] {
            assert!(parse_limit(text).is_err(), "{text}");
            assert!(parse_size_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(show_size(bytes), shown);
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(show_time(time), "2023-11-14T22:13:20.25Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(show_time(before), "1969-12-31T23:59:59Z");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        assert_eq!(show_time(far), "beyond the calendar");
    }
}
