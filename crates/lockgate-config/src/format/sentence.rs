//! Short sentences: rollout steps, what to do without a verdict, windows and freezes.

use super::Problem;
use super::quantity::{duration_ms, percent};
use crate::diagnostic::quoted;
use lockgate_core::plan::{OnInconclusive, Step, Switch};
use lockgate_core::route::WHOLE;

const STEP_HELP: &str = "write \"preview for 10m\", \"preview for 10m by hand\", \"shadow 20% for 10m\", \"canary 5% for 15m\", \
    \"25% for 30m\", \"a/b 50% for 7d\" or \"100%\"";

/// Reads `preview [for DURATION] [by hand]` or `[canary|shadow|a/b] SHARE [for DURATION]`.
pub(crate) fn step(text: &str) -> Result<Step, Problem> {
    let wrong = |why: &str| Problem::new(format!("{} is not a rollout step: {why}", quoted(text)), STEP_HELP);
    let words: Vec<&str> = text.split_whitespace().collect();
    let (make, words): (fn(u32, i64) -> Step, _) = match words.as_slice() {
        ["preview", rest @ ..] => return preview(rest).map_err(|why| wrong(&why)),
        ["blue/green" | "blue-green" | "bluegreen", ..] => {
            let help = "blue/green is two steps: rollout = [\"preview for 10m\", \"100%\"]";
            return Err(Problem::new(format!("{} is not a rollout step", quoted(text)), help));
        }
        ["shadow", rest @ ..] => (Step::mirroring, rest),
        ["a/b", rest @ ..] => (Step::ab, rest),
        ["canary", rest @ ..] => (Step::live, rest),
        all => (Step::live, all),
    };
    let (share, hold) = match words {
        [share] => (*share, None),
        [share, "for", duration @ ..] if !duration.is_empty() => (*share, Some(duration.concat())),
        [_, "for"] => return Err(wrong("`for` needs a duration")),
        [] => return Err(wrong("the share is missing")),
        [_, other, ..] => return Err(wrong(&format!("{} is not understood after the share", quoted(other)))),
    };
    if !share.ends_with('%') {
        return Err(wrong(&format!("{} is no share, which needs a percent sign", quoted(share))));
    }
    let share = percent(share).map_err(|_| wrong(&format!("{} is not a percentage", quoted(share))))?;
    let hold_ms = match hold {
        Some(text) => {
            duration_ms(&text).map_err(|_| wrong(&format!("{} is not a duration", quoted(&text))))?
        }
        None => 0,
    };
    let parts = share * f64::from(WHOLE);
    if parts > f64::from(WHOLE) || parts <= 0.0 {
        return Err(wrong("a share lies above 0% and not above 100%"));
    }
    if (parts - parts.round()).abs() > 1e-6 || parts.round() < 1.0 {
        return Err(wrong("the finest share is 0.01%"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and WHOLE")]
    let weight = parts.round() as u32;
    let step = make(weight, hold_ms);
    if step.ab && weight >= WHOLE {
        return Err(wrong("an A/B test needs two sides, so a share below 100%"));
    }
    Ok(step)
}

/// Reads what follows `preview`.
fn preview(words: &[&str]) -> Result<Step, String> {
    let (switch, words) = match words {
        [rest @ .., "by", "hand"] => (Switch::ByHand, rest),
        all => (Switch::Automatic, all),
    };
    match words {
        [] => Ok(Step::previewing(switch, 0)),
        ["for"] => Err("`for` needs a duration".to_owned()),
        ["for", duration @ ..] => {
            let text = duration.concat();
            let hold_ms = duration_ms(&text).map_err(|_| format!("{} is not a duration", quoted(&text)))?;
            Ok(Step::previewing(switch, hold_ms))
        }
        [share, ..] if share.ends_with('%') => {
            Err("no user gets to a preview, so it has no share; what comes after it has".to_owned())
        }
        [other, ..] => Err(format!("{} is not understood after `preview`", quoted(other))),
    }
}

/// Reads what happens at the deadline; `None` is right, but comes later.
pub(crate) fn inconclusive(text: &str) -> Result<Option<OnInconclusive>, Problem> {
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["hold"] => Ok(Some(OnInconclusive::Hold)),
        ["rollback"] => Ok(Some(OnInconclusive::Rollback)),
        ["hold", duration, "then", "rollback"] => duration_ms(duration).map(|_| None),
        words => {
            let help = if words.contains(&"promote") {
                "nothing is promoted without evidence: use \"hold\" or \"rollback\""
            } else {
                "use \"hold\" or \"rollback\""
            };
            Err(Problem::new(format!("{} is not what can happen at the deadline", quoted(text)), help))
        }
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// `2026-12-15..2027-01-04`, or `Sat,Sun Europe/Berlin`.
pub(crate) fn freeze(text: &str) -> Result<(), Problem> {
    let help = "write \"2026-12-15..2027-01-04\" or \"Sat,Sun Europe/Berlin\"";
    let wrong = |why: String| Problem::new(format!("{} is not a freeze: {why}", quoted(text)), help);
    if let Some((from, to)) = text.split_once("..") {
        let date = |t: &str| date(t).ok_or_else(|| wrong(format!("{} is not a date", quoted(t))));
        let (from, to) = (date(from)?, date(to)?);
        return if from <= to { Ok(()) } else { Err(wrong("it ends before it begins".to_owned())) };
    }
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [days_text, zone_text] if days(days_text) && zone(zone_text) => Ok(()),
        _ => Err(wrong("it is neither two dates nor days with a time zone".to_owned())),
    }
}

/// `Mon..Thu 09:00-16:00 Europe/Berlin`.
pub(crate) fn window(text: &str) -> Result<(), Problem> {
    let fine = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [days_text, hours, zone_text] => {
            let times = hours.split_once('-').and_then(|(a, b)| Some((minute(a)?, minute(b)?)));
            days(days_text) && zone(zone_text) && times.is_some_and(|(a, b)| a < b)
        }
        _ => false,
    };
    if fine {
        return Ok(());
    }
    Err(Problem::new(
        format!("{} is not a window of time", quoted(text)),
        "write \"Mon..Thu 09:00-16:00 Europe/Berlin\"",
    ))
}

fn date(text: &str) -> Option<(u32, u32, u32)> {
    let parts: Vec<&str> = text.trim().split('-').collect();
    let [year, month, day] = parts.as_slice() else { return None };
    let digits = |t: &str, n: usize| {
        (t.len() == n && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok())?
    };
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    (1..=last).contains(&day).then_some((year, month, day))
}

fn days(text: &str) -> bool {
    text.split(',').all(|part| match part.split_once("..") {
        Some((a, b)) => DAYS.contains(&a) && DAYS.contains(&b),
        None => DAYS.contains(&part),
    })
}

fn zone(text: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    };
    text == "UTC" || (text.contains('/') && text.split('/').all(part))
}

fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits =
        |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok())?;
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_short_sentence() {
        let live = Step::live;
        assert_eq!(step("canary 5% for 15m").unwrap(), live(500, 900_000));
        assert_eq!(step("25% for 1h 30m").unwrap(), live(2_500, 5_400_000));
        assert_eq!(step("100%").unwrap(), live(10_000, 0));
        assert_eq!(step("0.01%").unwrap(), live(1, 0));
        assert_eq!(step("33.33%").unwrap(), live(3_333, 0));
        assert_eq!(step("shadow 100% for 10m").unwrap(), Step::mirroring(10_000, 600_000));
        assert_eq!(step("shadow 20%").unwrap(), Step::mirroring(2_000, 0));
        assert_eq!(step("a/b 50% for 7d").unwrap(), Step::ab(5_000, 604_800_000));
        for bad in [
            "",
            "canary",
            "5",
            "5% for",
            "5% 15m",
            "0%",
            "101%",
            "0.001%",
            "-5%",
            "5% for ever",
            "canary canary 5%",
            "a/b 100% for 7d",
            "a/b",
            "5% for 15m please",
        ] {
            assert!(step(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_preview_has_a_time_and_a_hand_but_no_share() {
        let by = Step::previewing;
        assert_eq!(step("preview").unwrap(), by(Switch::Automatic, 0));
        assert_eq!(step("preview for 1h 30m").unwrap(), by(Switch::Automatic, 5_400_000));
        assert_eq!(step("preview by hand").unwrap(), by(Switch::ByHand, 0));
        assert_eq!(step("preview for 10m by hand").unwrap(), by(Switch::ByHand, 600_000));
        for bad in
            ["preview 5%", "preview for", "preview for by hand", "preview hand", "preview by", "by hand"]
        {
            assert!(step(bad).is_err(), "{bad}");
        }
        let help = step("blue/green").unwrap_err().help.unwrap();
        assert!(help.contains("[\"preview for 10m\", \"100%\"]"), "{help}");
    }

    #[test]
    fn windows_and_freezes_are_checked_to_the_day() {
        assert!(freeze("2026-12-15..2027-01-04").is_ok());
        assert!(freeze("2028-02-29..2028-02-29").is_ok());
        assert!(freeze("Sat,Sun Europe/Berlin").is_ok());
        for bad in [
            "2026-13-01..2026-12-01",
            "2026-02-29..2026-03-01",
            "2027-01-04..2026-12-15",
            "Sat",
            "Caturday UTC",
            "..",
            "2026-1-1..2026-1-2",
        ] {
            assert!(freeze(bad).is_err(), "{bad}");
        }
        assert!(window("Mon..Thu 09:00-16:00 Europe/Berlin").is_ok());
        for bad in
            ["Mon", "Mon 16:00-09:00 UTC", "Mon 9-16 UTC", "Mon 09:00-25:00 UTC", "Mon 09:60-10:00 UTC"]
        {
            assert!(window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_promoted_at_a_deadline() {
        assert_eq!(inconclusive("hold").unwrap(), Some(OnInconclusive::Hold));
        assert_eq!(inconclusive("hold 48h then rollback").unwrap(), None);
        let refused = inconclusive("promote").unwrap_err();
        assert!(refused.help.unwrap().contains("without evidence"));
        assert!(inconclusive("hold ever then rollback").is_err());
    }
}
