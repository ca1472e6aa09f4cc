//! Texts with a form: durations, percents, sizes, steps, references.

mod quantity;
mod reference;
mod sentence;

pub(crate) use quantity::{bytes, duration_ms, fraction_ms, percent};
pub(crate) use reference::{backup, data_source, normal_path, principal, unit_header};
pub(crate) use sentence::{inconclusive, step};

use crate::diagnostic::quoted;
use lockgate_core::id::{EnvironmentName, GateName, GuardName, ModelName, ProjectName};

/// Why a text doesn't have its form, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// What a text is found to be.
pub(crate) enum Finding {
    /// Right.
    Fine,
    /// Right, but a later version brings it.
    Later(String),
    /// Nothing, with an example of what could stand there.
    Empty(Option<String>),
    /// Wrong.
    Wrong(Problem),
}

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Format {
    /// Anything but nothing.
    Any,
    /// Anything, even nothing.
    Free,
    ProjectName,
    EnvironmentName,
    GateName,
    GuardName,
    ModelName,
    /// A name of our own: a stage, a group, a dataset.
    Label,
    /// An alias of MLflow's registry.
    Alias,
    /// The name of a variable.
    Variable,
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// One of some words, of which those after the first list come later.
    OneOfSome(&'static [&'static str], &'static [&'static str]),
    /// Whole milliseconds.
    Duration,
    /// Milliseconds, with parts of them.
    Latency,
    Percent,
    Bytes,
    Step,
    Unit,
    Principal,
    Backup,
    Path,
    /// A path, or one of the sources that come later.
    DataSource,
    Inconclusive,
    DateRange,
    Window,
}

impl Format {
    pub(crate) fn check(self, text: &str) -> Finding {
        if text.trim().is_empty() && self != Self::Free {
            return Finding::Empty(self.example());
        }
        let outcome = match self {
            Self::Any | Self::Free => Ok(()),
            Self::ProjectName => ProjectName::new(text).map(drop).map_err(name_problem),
            Self::EnvironmentName => EnvironmentName::new(text).map(drop).map_err(name_problem),
            Self::GateName => GateName::new(text).map(drop).map_err(name_problem),
            Self::GuardName => GuardName::new(text).map(drop).map_err(name_problem),
            Self::ModelName => ModelName::new(text).map(drop).map_err(name_problem),
            Self::Label => reference::label(text),
            Self::Alias => reference::alias(text),
            Self::Variable => reference::variable(text),
            Self::OneOf(words) => one_of(text, words),
            Self::OneOfSome(now, later) => match (now.contains(&text), later.contains(&text)) {
                (true, _) => Ok(()),
                (_, true) => return Finding::Later(quoted(text)),
                _ => one_of(text, &[now, later].concat()),
            },
            Self::Duration => duration_ms(text).map(drop),
            Self::Latency => fraction_ms(text).map(drop),
            Self::Percent => percent(text).map(drop),
            Self::Bytes => bytes(text).map(drop),
            Self::Unit => unit_header(text).map(drop),
            Self::Principal => principal(text).map(drop),
            Self::Path => reference::path(text),
            Self::DateRange => sentence::freeze(text),
            Self::Window => sentence::window(text),
            Self::Backup if text == "last-confirmed" => {
                return Finding::Later("`last-confirmed` as a backup".to_owned());
            }
            Self::Backup => backup(text).map(drop),
            Self::DataSource => match reference::data_source(text) {
                Ok(None) => Ok(()),
                Ok(Some(scheme)) => return Finding::Later(format!("`{scheme}:` data")),
                Err(problem) => Err(problem),
            },
            Self::Step => step(text).map(drop),
            Self::Inconclusive => match inconclusive(text) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => return Finding::Later("`hold` for a time and then `rollback`".to_owned()),
                Err(problem) => Err(problem),
            },
        };
        outcome.map_or_else(Finding::Wrong, |()| Finding::Fine)
    }

    fn example(self) -> Option<String> {
        let example = match self {
            Self::Duration => "\"15m\"",
            Self::Latency => "\"20ms\"",
            Self::Percent => "\"50%\"",
            Self::Bytes => "\"2GiB\"",
            Self::Step => "\"canary 5% for 15m\"",
            Self::Unit => "\"header:X-User-Id\"",
            Self::Backup => "\"model@alias\"",
            _ => return None,
        };
        Some(format!("for example {example}"))
    }

    /// What JSON schema can say about it. No looser and no stricter than `check` where a regular expression suffices.
    pub(crate) fn pattern(self) -> Option<&'static str> {
        const AMOUNT: &str = r"^([0-9]+(\.[0-9]+)?\s*(us|ms|s|m|h|d|w|y)\s*)+$";
        Some(match self {
            Self::Free => return None,
            Self::Any | Self::Inconclusive => r"\S",
            Self::ProjectName | Self::EnvironmentName | Self::GateName | Self::GuardName | Self::Label => {
                r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
            }
            Self::ModelName => r"^[^/:@\\]{1,200}$",
            Self::Alias => r"^[A-Za-z0-9_-]{1,255}$",
            Self::Variable => r"^[A-Za-z_][A-Za-z0-9_]*$",
            Self::OneOf(_) | Self::OneOfSome(..) => return None,
            Self::Duration | Self::Latency => AMOUNT,
            Self::Percent => r"^[0-9]+(\.[0-9]+)?\s*%$",
            Self::Bytes => r"^[0-9]+(\.[0-9]+)?\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
            Self::Step => r"^\s*((canary|shadow|a/b)\s+)?[0-9]+(\.[0-9]+)?%(\s+for\s+[0-9][0-9a-z. ]*)?\s*$",
            Self::Unit => r"^header:[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            Self::Principal => r"^(group:[a-z0-9-]+|(person:)?[^\s:]+)$",
            Self::Backup => {
                r"^(last-confirmed|sha256:[0-9a-fA-F]{64}|[^/:@\\]+@[^\s/:@]+|[^/:@\\]+:[1-9][0-9]*)$"
            }
            Self::Path | Self::DataSource => r"^[^/\s]",
            Self::DateRange => {
                r"^([0-9]{4}-[0-9]{2}-[0-9]{2}\.\.[0-9]{4}-[0-9]{2}-[0-9]{2}|(Mon|Tue|Wed|Thu|Fri|Sat|Sun).*)$"
            }
            Self::Window => r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
        })
    }

    /// The words that there are, where the form is one of some.
    pub(crate) fn words(self) -> Option<Vec<&'static str>> {
        match self {
            Self::OneOf(words) => Some(words.to_vec()),
            Self::OneOfSome(now, later) => Some([now, later].concat()),
            _ => None,
        }
    }
}

fn name_problem(error: lockgate_core::id::InvalidName) -> Problem {
    Problem::new(format!("{} is not a valid {}", quoted(&error.value), error.noun), error.rule)
}

/// Names that other tools use for the same thing.
const ALIASES: &[(&str, &str)] = &[
    ("auc", "roc_auc"),
    ("logloss", "log_loss"),
    ("cross_entropy", "log_loss"),
    ("calibration", "ece"),
    ("acc", "accuracy"),
    ("golden", "parity"),
    ("load", "benchmark"),
    ("latency", "benchmark"),
    ("shell", "command"),
    ("schema", "data"),
    ("error_rate", "rate"),
    ("errors", "rate"),
    ("classification", "binary"),
    ("fail", "rollback"),
];

fn one_of(text: &str, words: &[&str]) -> Result<(), Problem> {
    if words.contains(&text) {
        return Ok(());
    }
    let alias = ALIASES.iter().find(|(a, to)| *a == text.to_ascii_lowercase() && words.contains(to));
    let near = alias.map(|(_, to)| *to).or_else(|| crate::nearest::nearest(text, words.iter().copied()));
    let list = words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
    let help = near.map_or_else(
        || format!("use one of {list}"),
        |word| format!("did you mean `{word}`? There are {list}"),
    );
    Err(Problem::new(format!("{} is not known here", quoted(text)), help))
}
