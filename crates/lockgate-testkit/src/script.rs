//! The commands of a script: one a line, words and `key=value` options; `#` begins a line of narration.
//!
//! ```text
//! environment steps=shadow-20%/10m,5%/15m,25%/15m,100%/5m disagreement=3% approve=1 backup=rules inconclusive=rollback deadline=30m gateways=3
//! release v1 errors=0.5%                # behaviour: errors, nan, refuses, unavailable, latency, slow=2%/500ms, cold=30s/300ms,
//!                                       # constant, differs, noise, flap=10s/60s, breaks-at=30%, restarting, down
//! release v2 same-as=v1 gates=fail by=dana
//! behave v2 errors=5%                   # from now on
//! traffic 50/s users=2000 idle=10m/20m retries=90% · heavy 2/s · incident 4% [over=30m] · lose 3% · counts lost|frozen|back
//! promote v2 by=ci · approve p1 by=ann [machine] [stale] · reject p1 by=ann · cancel p1
//! pause|resume|abort|rollback p1 by=ann
//! run 15m
//! server down|up · gateway 2 partition|heal|lag=5s · kill now|before-journal|… · clock +1h · show
//! expect p1 confirmed · expect routes v1 · expect requests|failed|bad v2 < 100 · expect sticky · expect fair · expect unanswered < 5
//! ```

use lockgate_core::clock::Millis;
use lockgate_core::event::{InstructionKind, RolloutEvent};
use lockgate_core::plan::{OnInconclusive, Step};
use lockgate_core::route::WHOLE;

/// How a release answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Behaviour {
    /// Chance of a bad answer.
    pub errors: f64,
    /// Chance of an answer that is not a number.
    pub nan: f64,
    /// Chance that it refuses what it is asked (4xx).
    pub refuses: f64,
    /// Chance that it says that it can't just now (503), so that another side is asked.
    pub unavailable: f64,
    /// Median latency in milliseconds.
    pub latency_ms: f64,
    /// A share of its answers takes so much longer.
    pub slow: Option<(f64, Millis)>,
    /// For a time from its first request on, every answer takes so much longer.
    pub cold: Option<(Millis, Millis)>,
    /// Whether it always says the same.
    pub is_constant: bool,
    /// Chance that it says something else than the first release does.
    pub differs: f64,
    /// Chance that it says something else than it would say if asked again.
    pub noise: f64,
    /// It errs only in the first part of each period.
    pub flap: Option<(Millis, Millis)>,
    /// With more than this share of the traffic its workers don't stay up.
    pub breaks_at: Option<f64>,
    /// Whether its workers are being started again.
    pub is_restarting: bool,
    /// Whether its workers don't stay up.
    pub is_down: bool,
}

/// How an environment rolls out.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// The steps.
    pub steps: Vec<Step>,
    /// How many people must say yes.
    pub approvals: u32,
    /// The release that answers when nothing else can.
    pub backup: Option<String>,
    /// How long a step waits beyond its hold.
    pub deadline_ms: Millis,
    /// What happens then.
    pub on_inconclusive: OnInconclusive,
    /// How long a release is on probation.
    pub probation_ms: Millis,
    /// The share of users who stay with what served before until then, in parts of 10,000.
    pub holdout: u32,
    /// How many gateways there are.
    pub gateways: usize,
    /// Whether latency is watched, too.
    pub has_latency_guard: bool,
    /// For how long slowness doesn't count at first.
    pub warmup_ms: Option<Millis>,
    /// The share of answers that may differ, where answers are compared.
    pub disagreement: Option<f64>,
}

/// What a release's gates say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateResult {
    /// They pass.
    Pass,
    /// They fail.
    Fail,
    /// They can't be carried out.
    Error,
    /// They say nothing.
    Silent,
}

/// Where the agent dies: the points of the specification that a simulated agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// At once.
    Now,
    /// A rollback is decided and not yet written down.
    BeforeJournal,
    /// It is written down, and no gateway knows.
    AfterJournal,
    /// So many gateways know.
    Flip(usize),
    /// Every gateway has acknowledged; it isn't sealed.
    AfterAcks,
    /// The seal is decided and not written down: the candidate is drained.
    BeforeSeal,
    /// The seal is written down and the server doesn't know.
    AfterSeal,
}

impl KillPoint {
    /// Whether the agent dies before this event reaches its disk.
    pub(crate) fn is_before(self, event: &RolloutEvent) -> bool {
        match self {
            Self::BeforeJournal => matches!(event, RolloutEvent::RollbackDecided { .. }),
            Self::BeforeSeal => matches!(event, RolloutEvent::RolledBack { .. }),
            Self::Now | Self::AfterJournal | Self::Flip(_) | Self::AfterAcks | Self::AfterSeal => false,
        }
    }

    /// Whether it dies after this event was written down, and how many gateways hear of it first.
    pub(crate) fn reached_after(self, event: &RolloutEvent) -> Option<usize> {
        match (self, event) {
            (Self::AfterJournal, RolloutEvent::RollbackDecided { .. }) => Some(0),
            (Self::Flip(gateways), RolloutEvent::RollbackDecided { .. }) => Some(gateways),
            (Self::AfterAcks, RolloutEvent::RollbackApplied { .. })
            | (Self::AfterSeal, RolloutEvent::RolledBack { .. }) => Some(usize::MAX),
            _ => None,
        }
    }
}

/// One line of a script.
#[derive(Debug, Clone)]
pub(crate) struct Words<'a> {
    plain: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        let (mut plain, mut options) = (Vec::new(), Vec::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(option) => options.push(option),
                None => plain.push(word),
            }
        }
        Self { plain, options }
    }

    /// The word at this place.
    pub(crate) fn at(&self, place: usize) -> Result<&'a str, String> {
        self.plain.get(place).copied().ok_or_else(|| format!("word {} is missing", place + 1))
    }

    /// All words from this place on.
    pub(crate) fn rest(&self, place: usize) -> String {
        self.plain.get(place..).unwrap_or_default().join(" ")
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    pub(crate) fn option(&self, key: &str) -> Option<&'a str> {
        self.options.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.options.iter().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => Err(format!("`{key}` is not known here; there are {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

/// `5%` as 0.05.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
    number.map(|n| n / 100.0).ok_or_else(|| format!("`{text}` is no share: write 5%"))
}

/// `15m` in milliseconds; units are ms, s, m and h.
pub(crate) fn span(text: &str) -> Result<Millis, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let found =
        units.iter().find_map(|(unit, ms)| Some(text.strip_suffix(unit)?.parse::<Millis>().ok()? * ms));
    found.ok_or_else(|| format!("`{text}` is no time: write 250ms, 30s, 15m or 2h"))
}

/// `50/s` as 50.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").and_then(|n| n.parse().ok());
    number.ok_or_else(|| format!("`{text}` is no rate: write 50/s"))
}

/// Changes a behaviour by a line's options.
pub(crate) fn behave(words: &Words<'_>, behaviour: &mut Behaviour) -> Result<(), String> {
    words.only(&[
        "errors",
        "nan",
        "refuses",
        "unavailable",
        "latency",
        "slow",
        "cold",
        "constant",
        "differs",
        "noise",
        "flap",
        "breaks-at",
        "restarting",
        "down",
        "same-as",
        "gates",
        "by",
    ])?;
    let two = |value: &'static str, text: &str| {
        text.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).ok_or(format!("write {value}"))
    };
    for (key, value) in &words.options {
        match *key {
            "errors" => behaviour.errors = share(value)?,
            "nan" => behaviour.nan = share(value)?,
            "differs" => behaviour.differs = share(value)?,
            "noise" => behaviour.noise = share(value)?,
            "latency" => behaviour.latency_ms = span(value)? as f64,
            "constant" => behaviour.is_constant = *value == "yes",
            "down" => behaviour.is_down = *value == "yes",
            "restarting" => behaviour.is_restarting = *value == "yes",
            "refuses" => behaviour.refuses = share(value)?,
            "unavailable" => behaviour.unavailable = share(value)?,
            "breaks-at" => behaviour.breaks_at = Some(share(value)?),
            "flap" => {
                let (bad, period) = two("flap=10s/60s", value)?;
                behaviour.flap = Some((span(&bad)?, span(&period)?));
            }
            "slow" => {
                let (of, ms) = two("slow=2%/500ms", value)?;
                behaviour.slow = Some((share(&of)?, span(&ms)?));
            }
            "cold" => {
                let (lasts, ms) = two("cold=30s/300ms", value)?;
                behaviour.cold = Some((span(&lasts)?, span(&ms)?));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn gates(words: &Words<'_>) -> Result<GateResult, String> {
    Ok(match words.option("gates") {
        None | Some("pass") => GateResult::Pass,
        Some("fail") => GateResult::Fail,
        Some("error") => GateResult::Error,
        Some("silent") => GateResult::Silent,
        Some(other) => return Err(format!("gates may pass, fail, error or be silent, not `{other}`")),
    })
}

pub(crate) fn kill_point(text: &str) -> Result<KillPoint, String> {
    Ok(match text {
        "now" => KillPoint::Now,
        "before-journal" => KillPoint::BeforeJournal,
        "after-journal" => KillPoint::AfterJournal,
        "after-acks" => KillPoint::AfterAcks,
        "before-seal" => KillPoint::BeforeSeal,
        "after-seal" => KillPoint::AfterSeal,
        other => match other.strip_prefix("flip-").and_then(|n| n.parse().ok()) {
            Some(gateways) => KillPoint::Flip(gateways),
            None => return Err(format!("there is no kill point `{other}`")),
        },
    })
}

pub(crate) fn instruction(text: &str) -> Option<InstructionKind> {
    Some(match text {
        "pause" => InstructionKind::Pause,
        "resume" => InstructionKind::Resume,
        "abort" => InstructionKind::Abort,
        "rollback" => InstructionKind::Rollback,
        "switch" => InstructionKind::Switch,
        _ => return None,
    })
}

/// The environment of a script's first line.
pub(crate) fn environment(words: &Words<'_>) -> Result<Environment, String> {
    words.only(&[
        "steps",
        "approve",
        "backup",
        "deadline",
        "inconclusive",
        "probation",
        "holdout",
        "gateways",
        "latency",
        "warmup",
        "disagreement",
    ])?;
    let number = |key: &str, default: usize| match words.option(key) {
        Some(text) => text.parse::<usize>().map_err(|_| format!("`{text}` is no number")),
        None => Ok(default),
    };
    let time = |key: &str, default: Millis| words.option(key).map_or(Ok(default), span);
    let steps = words.option("steps").unwrap_or("5%/15m,25%/15m,100%/5m");
    Ok(Environment {
        steps: steps.split(',').map(step).collect::<Result<_, _>>()?,
        approvals: u32::try_from(number("approve", 0)?).map_err(|e| e.to_string())?,
        backup: words.option("backup").map(ToOwned::to_owned),
        deadline_ms: time("deadline", 1_800_000)?,
        on_inconclusive: match words.option("inconclusive") {
            Some("rollback") => OnInconclusive::Rollback,
            None | Some("hold") => OnInconclusive::Hold,
            Some(other) => return Err(format!("inconclusive is hold or rollback, not `{other}`")),
        },
        probation_ms: time("probation", 3_600_000)?,
        holdout: words.option("holdout").map(parts).transpose()?.unwrap_or(0),
        gateways: number("gateways", 1)?.max(1),
        warmup_ms: words.option("warmup").map(span).transpose()?,
        has_latency_guard: words.option("latency") == Some("yes"),
        disagreement: words.option("disagreement").map(share).transpose()?,
    })
}

/// A share in parts of 10,000.
fn parts(text: &str) -> Result<u32, String> {
    Ok((share(text)? * f64::from(WHOLE)).round() as u32)
}

fn step(text: &str) -> Result<Step, String> {
    let (weight, hold) = text.split_once('/').ok_or_else(|| format!("`{text}` is no step: write 5%/15m"))?;
    Ok(match weight.strip_prefix("shadow-") {
        Some(mirrored) => Step::mirroring(parts(mirrored)?, span(hold)?),
        None => Step::live(parts(weight)?, span(hold)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_share_and_a_time() {
        assert_eq!(step("5%/15m"), Ok(Step::live(500, 900_000)));
        assert_eq!(step("shadow-20%/10m"), Ok(Step::mirroring(2000, 600_000)));
        assert!(step("5%").is_err());
        assert!(step("5/15m").unwrap_err().contains("write 5%"));
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_the_known_ones() {
        let found = environment(&Words::new("environment step=5%/15m")).unwrap_err();
        assert!(found.contains("`step`") && found.contains("steps"), "{found}");
    }

    #[test]
    fn spans_have_units() {
        assert_eq!([span("250ms"), span("3s"), span("2h")], [Ok(250), Ok(3_000), Ok(7_200_000)]);
        assert!(span("15").is_err());
    }
}
