//! Times and durations in protobuf's JSON: `2026-11-26T09:17:28.304Z` and `0.088s`.

use crate::error::MlflowError;
use jiff::Timestamp;
use lockgate_core::clock::Millis;

/// Reads a time.
pub(crate) fn time(text: &str) -> Result<Millis, MlflowError> {
    let parsed: Timestamp =
        text.parse().map_err(|e| MlflowError::invalid(format!("Invalid time '{text}': {e}")))?;
    Ok(parsed.as_millisecond())
}

/// Writes a time.
pub(crate) fn shown_time(time: Millis) -> String {
    let Ok(stamp) = Timestamp::from_millisecond(time) else { return "1970-01-01T00:00:00Z".to_owned() };
    if time.rem_euclid(1000) == 0 { format!("{stamp:.0}") } else { format!("{stamp:.3}") }
}

/// Reads a duration, in milliseconds.
pub(crate) fn duration(text: &str) -> Result<i64, MlflowError> {
    let wrong = || MlflowError::invalid(format!("Invalid duration '{text}': write seconds, such as 1.5s"));
    let number = text.strip_suffix('s').ok_or_else(wrong)?;
    let (sign, number) = number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    // Ten thousand years: protobuf's limit.
    let seconds: i64 =
        seconds.parse().ok().filter(|seconds| *seconds <= 315_576_000_000).ok_or_else(wrong)?;
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().map_err(|_| wrong())?;
    seconds.checked_mul(1000).and_then(|s| s.checked_add(millis)).map(|ms| sign * ms).ok_or_else(wrong)
}

/// Writes a duration.
pub(crate) fn shown_duration(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    if rest == 0 { format!("{sign}{seconds}s") } else { format!("{sign}{seconds}.{rest:03}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["2026-11-26T09:17:28.304Z", "2026-11-26T09:17:28Z", "1969-12-31T23:59:59.999Z"] {
            assert_eq!(shown_time(time(text).unwrap()), text);
        }
        assert_eq!(
            time("2026-11-26T10:17:28.304999+01:00").unwrap(),
            time("2026-11-26T09:17:28.304Z").unwrap()
        );
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0.088s", "0s", "12s", "1.500s", "-0.001s"] {
            assert_eq!(shown_duration(duration(text).unwrap()), text);
        }
        assert_eq!((duration("1.5s").unwrap(), duration("0.0005s").unwrap()), (1500, 0));
        for bad in ["", "s", "1", "1.2.3s", "abcs", "99999999999999999999s", "1.0000000001s", "1.üs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
