//! Durations, percents and sizes.

use super::Problem;
use crate::diagnostic::quoted;

const DURATION_HELP: &str =
    "write a number and a unit (ms, s, m, h, d, w, y): \"500ms\", \"15m\", \"1h30m\", \"7d\"";
/// The longest duration: 100 years of 365 days, in milliseconds.
const LONGEST_MS: f64 = 100.0 * 365.0 * 86_400_000.0;

/// Reads a duration as whole milliseconds.
pub(crate) fn duration_ms(text: &str) -> Result<i64, Problem> {
    let ms = fraction_ms(text)?;
    if ms.fract() != 0.0 {
        return Err(Problem::new(
            format!("{} is not a whole number of milliseconds", quoted(text)),
            "the finest unit here is 1ms",
        ));
    }
    // Exact: a whole number far below 2^53.
    #[expect(clippy::cast_possible_truncation, reason = "bounded by LONGEST_MS and whole")]
    Ok(ms as i64)
}

/// Reads a duration as milliseconds with parts of them.
pub(crate) fn fraction_ms(text: &str) -> Result<f64, Problem> {
    let wrong = || Problem::new(format!("{} is not a duration", quoted(text)), duration_help(text));
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        total += number * unit_ms(unit).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    if !total.is_finite() || total > LONGEST_MS {
        return Err(Problem::new(
            format!("{} is too long", quoted(text)),
            "the longest duration is 100 years (\"100y\")",
        ));
    }
    // Microseconds are the finest unit: cut what binary fractions add below them.
    Ok((total * 1_000.0).round() / 1_000.0)
}

fn duration_help(text: &str) -> String {
    match text.trim().parse::<u64>() {
        Ok(number) => format!("a duration needs a unit: \"{number}s\", \"{number}m\", \"{number}h\""),
        Err(_) => DURATION_HELP.to_owned(),
    }
}

fn unit_ms(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        "w" => 7.0 * 86_400_000.0,
        "y" => 365.0 * 86_400_000.0,
        _ => return None,
    })
}

/// A decimal number at the start: digits, at most one point between digits, no sign, no exponent.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let plain = number.len() <= 18
        && number.starts_with(|c: char| c.is_ascii_digit())
        && number.ends_with(|c: char| c.is_ascii_digit());
    let value = number.parse::<f64>().ok().filter(|_| plain)?;
    Some((value, rest))
}

/// Reads a percentage: `50%` is 0.5.
pub(crate) fn percent(text: &str) -> Result<f64, Problem> {
    let trimmed = text.trim();
    match leading_number(trimmed) {
        Some((number, rest)) if rest.trim() == "%" => {
            if number > 100_000.0 {
                return Err(Problem::new(
                    format!("{} is too large", quoted(text)),
                    "the largest share is \"100000%\"",
                ));
            }
            Ok(number / 100.0)
        }
        Some((number, "")) => {
            let help = format!(
                "a share needs a percent sign: \"{}%\"",
                if number <= 1.0 { number * 100.0 } else { number }
            );
            Err(Problem::new(format!("{} is not a percentage", quoted(text)), help))
        }
        _ => Err(Problem::new(
            format!("{} is not a percentage", quoted(text)),
            "write a number and a percent sign: \"5%\", \"0.5%\"",
        )),
    }
}

/// Reads a size in bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, Problem> {
    let wrong = || {
        Problem::new(
            format!("{} is not a size", quoted(text)),
            "write a number and a unit: \"512MiB\", \"2GiB\", \"4GB\"",
        )
    };
    let (number, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let factor = match unit.trim() {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let size = number * factor;
    if !(1.0..=1e15).contains(&size) {
        return Err(Problem::new(
            format!("{} is out of range", quoted(text)),
            "a size lies between 1B and 1000TB",
        ));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1e15")]
    Ok(size.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration_ms(text).unwrap(), ms, "{text}");
        }
        assert_eq!(fraction_ms("250us").unwrap(), 0.25);
        assert_eq!(fraction_ms("0.1ms").unwrap(), 0.1);
        for bad in [
            "",
            " ",
            "15",
            "m",
            "-5m",
            "5 minutes",
            "1e3s",
            "5m7",
            ".5s",
            "5.s",
            "1.2.3s",
            "101y",
            "9999999999999999999y",
            "nan s",
        ] {
            assert!(fraction_ms(bad).is_err(), "{bad}");
        }
        assert!(duration_ms("250us").is_err());
        assert!(duration_ms("15").unwrap_err().help.unwrap().contains("\"15m\""));
    }

    #[test]
    fn percents_and_sizes_need_their_unit() {
        assert_eq!(percent("50%").unwrap(), 0.5);
        assert_eq!(percent("0.5 %").unwrap(), 0.005);
        assert_eq!(percent("0.5").unwrap_err().help.unwrap(), "a share needs a percent sign: \"50%\"");
        for bad in ["-5%", "%", "5 percent", "1e3%", "200000%"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes("2GiB").unwrap(), 2 << 30);
        assert_eq!(bytes("4 GB").unwrap(), 4_000_000_000);
        for bad in ["2G", "2", "0B", "GiB", "-1GB", "9999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
