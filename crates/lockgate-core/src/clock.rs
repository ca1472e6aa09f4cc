//! Time and randomness come in as arguments, so that every decision can be replayed.

use jiff::Timestamp;

/// Milliseconds since 1970-01-01T00:00:00Z (UTC).
pub type Millis = i64;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// The current time in milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> Millis;
}

/// Gives random bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);
}

/// Formats `ms` as RFC 3339 with six decimals, for example `2026-11-24T12:00:00.000000Z`.
///
/// Times outside jiff's range (years -9999 to 9999) are clamped to its ends.
#[must_use]
pub fn rfc3339(ms: Millis) -> String {
    let ts = Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX });
    format!("{ts:.6}")
}

/// Parses an RFC 3339 time (any precision, with an offset) into milliseconds.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_rfc3339(text: &str) -> Result<Millis, String> {
    text.parse::<Timestamp>()
        .map(Timestamp::as_millisecond)
        .map_err(|e| format!("`{text}` is not a time such as 2026-11-24T12:00:00Z: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_795_521_601_250), "2026-11-24T12:00:01.250000Z");
        assert_eq!(parse_rfc3339("2026-11-24T13:00:01.25+01:00"), Ok(1_795_521_601_250));
        assert!(parse_rfc3339("yesterday").is_err());
    }
}
