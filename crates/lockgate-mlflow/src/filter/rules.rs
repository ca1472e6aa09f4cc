//! What may be said about which thing.

use super::parser::{Condition, Identifier, Value};
use crate::error::MlflowError;
use lockgate_control::tracking::{Clause, Comparator, Field, Operand};

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noun {
    /// Experiments.
    Experiment,
    /// Runs.
    Run,
    /// Logged models.
    LoggedModel,
    /// Registered models.
    RegisteredModel,
    /// Versions of registered models.
    ModelVersion,
    /// Traces.
    Trace,
}

impl Noun {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Experiment,
        Self::Run,
        Self::LoggedModel,
        Self::RegisteredModel,
        Self::ModelVersion,
        Self::Trace,
    ];
}

/// What kind of value an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text; a list where the flag says so.
    Text { lists: bool },
    /// A whole number.
    Number,
    /// An experiment's number, which is written as text.
    Id,
    /// A status: equal or not, or in a list.
    Status,
}

/// An attribute: what it may be called, what the store calls it, its kind, and whether things are ordered by it.
struct Attribute {
    names: &'static [&'static str],
    name: &'static str,
    kind: Kind,
    filters: bool,
    orders: bool,
}

const fn attribute(names: &'static [&'static str], name: &'static str, kind: Kind) -> Attribute {
    Attribute { names, name, kind, filters: true, orders: true }
}

const WORDS: Kind = Kind::Text { lists: false };
const LISTS: Kind = Kind::Text { lists: true };

const EXPERIMENT: &[Attribute] = &[
    attribute(&["name"], "name", WORDS),
    attribute(&["experiment_id"], "experiment_id", Kind::Id),
    attribute(&["creation_time"], "creation_time", Kind::Number),
    attribute(&["last_update_time"], "last_update_time", Kind::Number),
];

const RUN: &[Attribute] = &[
    attribute(&["run_id"], "run_id", LISTS),
    attribute(&["run_name", "run name", "Run name", "Run Name"], "run_name", WORDS),
    attribute(&["user_id"], "user_id", WORDS),
    attribute(&["status"], "status", WORDS),
    attribute(&["artifact_uri"], "artifact_uri", WORDS),
    attribute(&["start_time", "created", "Created"], "start_time", Kind::Number),
    attribute(&["end_time"], "end_time", Kind::Number),
];

const LOGGED_MODEL: &[Attribute] = &[
    attribute(&["name"], "name", LISTS),
    attribute(&["model_id"], "model_id", LISTS),
    attribute(&["model_type"], "model_type", LISTS),
    attribute(&["status"], "status", Kind::Status),
    attribute(&["source_run_id"], "source_run_id", LISTS),
    attribute(
        &["creation_timestamp", "creation_timestamp_ms", "creation_time"],
        "creation_timestamp",
        Kind::Number,
    ),
    attribute(
        &["last_updated_timestamp", "last_updated_timestamp_ms"],
        "last_updated_timestamp",
        Kind::Number,
    ),
];

const REGISTERED_MODEL: &[Attribute] = &[
    attribute(&["name"], "name", LISTS),
    Attribute {
        filters: false,
        ..attribute(&["timestamp", "last_updated_timestamp"], "last_updated_timestamp", Kind::Number)
    },
];

const MODEL_VERSION: &[Attribute] = &[
    attribute(&["name"], "name", LISTS),
    Attribute { orders: false, ..attribute(&["run_id"], "run_id", LISTS) },
    Attribute { orders: false, ..attribute(&["source_path"], "source_path", WORDS) },
    attribute(&["version_number"], "version_number", Kind::Number),
    Attribute { filters: false, ..attribute(&["creation_timestamp"], "creation_timestamp", Kind::Number) },
    Attribute {
        filters: false,
        ..attribute(&["last_updated_timestamp"], "last_updated_timestamp", Kind::Number)
    },
];

/// The tag that marks MLflow's prompts, which are registered models to the protocol.
pub(crate) const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// What an identifier names.
pub(super) enum Named {
    Attribute(&'static str, Kind),
    Metric(String),
    Param(String),
    Tag(String),
    Dataset(&'static str),
}

impl Noun {
    const fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Experiment => EXPERIMENT,
            Self::Run => RUN,
            Self::LoggedModel => LOGGED_MODEL,
            Self::RegisteredModel => REGISTERED_MODEL,
            Self::ModelVersion => MODEL_VERSION,
            // Their grammar has a module of its own.
            Self::Trace => &[],
        }
    }

    /// What the word before the dot means.
    fn named(self, id: &Identifier, ordering: bool) -> Result<Named, MlflowError> {
        let key = || id.key.clone();
        let logs = matches!(self, Self::Run | Self::LoggedModel);
        match (self, id.entity.as_deref()) {
            (_, None | Some("attribute" | "attributes")) => self.attribute(&id.key, ordering),
            (Self::Run | Self::Experiment, Some("attr")) | (Self::Run, Some("run")) => {
                self.attribute(&id.key, ordering)
            }
            (_, Some("metrics")) if logs => Ok(Named::Metric(key())),
            (Self::Run, Some("metric")) => Ok(Named::Metric(key())),
            (_, Some("params")) if logs => Ok(Named::Param(key())),
            (Self::Run, Some("param" | "parameter" | "parameters")) => Ok(Named::Param(key())),
            (_, Some("tags")) => Ok(Named::Tag(key())),
            (_, Some("tag")) if self != Self::LoggedModel => Ok(Named::Tag(key())),
            (Self::Run, Some("dataset" | "datasets")) => match id.key.as_str() {
                "name" => Ok(Named::Dataset("name")),
                "digest" => Ok(Named::Dataset("digest")),
                "context" => Ok(Named::Dataset("context")),
                other => Err(MlflowError::invalid(format!(
                    "Invalid dataset attribute key '{other}' specified. Valid keys are 'name', 'digest', 'context'"
                ))),
            },
            (_, Some(other)) => Err(MlflowError::invalid(format!(
                "Invalid entity type '{other}'. Valid values are {}",
                self.entities()
            ))),
        }
    }

    const fn entities(self) -> &'static str {
        match self {
            Self::Run => "['metric', 'parameter', 'tag', 'attribute', 'dataset']",
            Self::LoggedModel => "['metrics', 'params', 'tags', 'attributes']",
            Self::Experiment | Self::RegisteredModel | Self::ModelVersion | Self::Trace => {
                "['attribute', 'tag']"
            }
        }
    }

    fn attribute(self, name: &str, ordering: bool) -> Result<Named, MlflowError> {
        let usable = |a: &&Attribute| if ordering { a.orders } else { a.filters };
        let found = self.attributes().iter().filter(usable).find(|a| a.names.contains(&name));
        found.map(|a| Named::Attribute(a.name, a.kind)).ok_or_else(|| {
            let valid: Vec<&str> = self.attributes().iter().filter(usable).map(|a| a.names[0]).collect();
            let what = if ordering { "order by key" } else { "attribute key" };
            MlflowError::invalid(format!(
                "Invalid {what} '{name}' specified. Valid keys are '{}'",
                valid.join("', '")
            ))
        })
    }

    /// What an order names.
    pub(super) fn ordered_by(self, id: &Identifier) -> Result<Named, MlflowError> {
        if self == Self::Trace { super::traces::ordered_by(id) } else { self.named(id, true) }
    }
}

pub(super) fn allowed(
    what: &str,
    condition: &Condition,
    comparators: &[Comparator],
) -> Result<(), MlflowError> {
    if comparators.contains(&condition.comparator) {
        return Ok(());
    }
    Err(MlflowError::invalid(format!(
        "Invalid comparator for {what} '{}': {:?} can't be used there",
        condition.identifier.key, condition.comparator
    )))
}

use Comparator as C;

pub(super) const NUMERIC: &[Comparator] = &[C::Eq, C::Ne, C::Lt, C::Le, C::Gt, C::Ge];
const PATTERNS: &[Comparator] = &[C::Eq, C::Ne, C::Like, C::Ilike];
const PATTERNS_AND_LISTS: &[Comparator] = &[C::Eq, C::Ne, C::Like, C::Ilike, C::In, C::NotIn];
const PATTERNS_AND_NULL: &[Comparator] = &[C::Eq, C::Ne, C::Like, C::Ilike, C::IsNull, C::IsNotNull];
const EQUALITY_AND_LISTS: &[Comparator] = &[C::Eq, C::Ne, C::In, C::NotIn];

pub(super) fn text(value: &Value) -> Result<String, MlflowError> {
    match value {
        Value::Quoted(text) => Ok(text.clone()),
        other => Err(MlflowError::invalid(format!(
            "Parameter value is either not quoted or unidentified quote types used for string value {}. Use either \
             single or double quotes.",
            other.show()
        ))),
    }
}

pub(super) fn texts(value: &Value) -> Result<Operand, MlflowError> {
    match value {
        Value::List(items) => Ok(Operand::Texts(items.iter().map(text).collect::<Result<_, _>>()?)),
        single => Ok(Operand::Text(text(single)?)),
    }
}

fn no_number(what: &str, value: &Value) -> MlflowError {
    MlflowError::invalid(format!("Expected numeric value type for {what}. Found {}", value.show()))
}

pub(super) fn bare<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::Bare(text) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn number(what: &str, value: &Value) -> Result<f64, MlflowError> {
    // Words such as `nan` and `inf` are no numbers in this grammar.
    let digits = matches!(value, Value::Bare(text) if text.contains(|c: char| c.is_ascii_digit()));
    bare(value).filter(|_| digits).ok_or_else(|| no_number(what, value))
}

/// Checks one condition and translates it.
pub(super) fn clause(noun: Noun, condition: &Condition) -> Result<Clause, MlflowError> {
    if noun == Noun::Trace {
        return super::traces::clause(condition);
    }
    let value = &condition.value;
    let mut comparator = condition.comparator;
    let (field, operand) = match noun.named(&condition.identifier, false)? {
        Named::Attribute(name, kind) => {
            (Field::Attribute(name), attribute_operand(noun, name, kind, condition)?)
        }
        Named::Metric(key) => {
            allowed("metric", condition, NUMERIC)?;
            (Field::Metric(key), Operand::Real(number("metric", value)?))
        }
        Named::Param(key) => {
            allowed("param", condition, PATTERNS_AND_NULL)?;
            (Field::Param(key), text_or_none(value)?)
        }
        Named::Tag(key) => {
            let registry = matches!(noun, Noun::RegisteredModel | Noun::ModelVersion);
            allowed("tag", condition, if registry { PATTERNS } else { PATTERNS_AND_NULL })?;
            let mut operand = text_or_none(value)?;
            if registry && key == IS_PROMPT {
                (comparator, operand) = about_prompts(comparator, operand);
            }
            (Field::Tag(key), operand)
        }
        Named::Dataset(part) => {
            allowed("dataset", condition, PATTERNS_AND_LISTS)?;
            (Field::Dataset(part), texts(value)?)
        }
    };
    Ok(Clause { field, comparator, operand })
}

/// Models without the mark are no prompts, whatever way round it is asked.
fn about_prompts(comparator: Comparator, operand: Operand) -> (Comparator, Operand) {
    let is = |word: &str| matches!(&operand, Operand::Text(text) if text.eq_ignore_ascii_case(word));
    match comparator {
        C::Ne if is("true") => (C::Lacks, operand),
        C::Eq if is("false") => (C::Lacks, Operand::Text("true".to_owned())),
        other => (other, operand),
    }
}

fn text_or_none(value: &Value) -> Result<Operand, MlflowError> {
    match value {
        Value::None => Ok(Operand::None),
        other => Ok(Operand::Text(text(other)?)),
    }
}

fn attribute_operand(
    noun: Noun,
    name: &str,
    kind: Kind,
    condition: &Condition,
) -> Result<Operand, MlflowError> {
    let value = &condition.value;
    match kind {
        Kind::Text { lists } => {
            allowed("attribute", condition, if lists { PATTERNS_AND_LISTS } else { PATTERNS })?;
            texts(value)
        }
        Kind::Status => {
            allowed("attribute", condition, EQUALITY_AND_LISTS)?;
            texts(value)
        }
        Kind::Number => {
            allowed("attribute", condition, NUMERIC)?;
            if let Some(whole) = bare::<i64>(value) {
                return Ok(Operand::Int(whole));
            }
            if noun == Noun::ModelVersion {
                return Err(MlflowError::invalid(format!(
                    "Invalid value for numeric attribute '{name}': {}",
                    value.show()
                )));
            }
            Ok(Operand::Real(number(&format!("numeric attribute: {name}"), value)?))
        }
        Kind::Id => {
            allowed("attribute", condition, EQUALITY_AND_LISTS)?;
            let id = |value: &Value| match value {
                Value::Quoted(text) | Value::Bare(text) => {
                    text.parse::<i64>().map_err(|_| no_number(name, value))
                }
                other => Err(no_number(name, other)),
            };
            match value {
                Value::List(items) => Ok(Operand::Ints(items.iter().map(id).collect::<Result<_, _>>()?)),
                single => Ok(Operand::Int(id(single)?)),
            }
        }
    }
}
