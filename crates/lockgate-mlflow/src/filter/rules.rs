//! What may be said about which thing.

use super::comparators::{
    EQUALITY_AND_LISTS, NUMERIC, PATTERNS, PATTERNS_AND_LISTS, PATTERNS_AND_NULL, allowed, allowed_for,
};
use super::parser::{Condition, Identifier, Value};
use super::values::{bare, no_number, number, numeric, text, texts};
use crate::error::MlflowError;
use lockgate_control::tracking::{Clause, Comparator as C, Field, Operand};

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
    attribute(&["run_name"], "run_name", WORDS),
    Attribute { orders: false, ..attribute(&["run name", "Run name", "Run Name"], "run_name", WORDS) },
    attribute(&["user_id"], "user_id", WORDS),
    attribute(&["status"], "status", WORDS),
    attribute(&["artifact_uri"], "artifact_uri", WORDS),
    attribute(&["start_time", "created", "Created"], "start_time", Kind::Number),
    attribute(&["end_time"], "end_time", Kind::Number),
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
            Self::RegisteredModel => REGISTERED_MODEL,
            Self::ModelVersion => MODEL_VERSION,
            // Their grammars have modules of their own.
            Self::LoggedModel | Self::Trace => &[],
        }
    }

    /// Whether it belongs to the model registry.
    const fn registered(self) -> bool {
        matches!(self, Self::RegisteredModel | Self::ModelVersion)
    }

    /// What the word before the dot means.
    fn named(self, id: &Identifier, ordering: bool) -> Result<Named, MlflowError> {
        let key = || id.key.clone();
        let run = self == Self::Run;
        let entity = if run { id.plain_entity() } else { id.entity.as_deref() };
        match entity {
            None | Some("attribute") => self.attribute(id, ordering),
            Some("attributes") if ordering || !self.registered() => self.attribute(id, ordering),
            Some("attr" | "run") if run => self.attribute(id, ordering),
            Some("metric" | "metrics") if run => Ok(Named::Metric(key())),
            Some("param" | "params" | "parameter" | "parameters") if run => Ok(Named::Param(key())),
            Some("tag" | "tags") => Ok(Named::Tag(key())),
            Some("dataset" | "datasets") if run => match id.key.as_str() {
                "name" => Ok(Named::Dataset("name")),
                "digest" => Ok(Named::Dataset("digest")),
                "context" => Ok(Named::Dataset("context")),
                other => Err(MlflowError::invalid(format!(
                    "Invalid dataset key '{other}' specified. Valid keys are '{{'name', 'digest', 'context'}}'"
                ))),
            },
            Some(other) => {
                Err(MlflowError::invalid(format!("Invalid entity type '{other}'. {}", self.entities())))
            }
        }
    }

    const fn entities(self) -> &'static str {
        match self {
            Self::Run => "Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
            Self::Experiment => "Valid entity types are ('attribute', 'attributes', 'tag', 'tags')",
            _ => "Valid entity types are ('attribute', 'tag', 'tags')",
        }
    }

    fn attribute(self, id: &Identifier, ordering: bool) -> Result<Named, MlflowError> {
        // In the registry's filters a quoted name is another one.
        let name = if self.registered() && !ordering { &id.written } else { &id.key };
        let usable = |a: &&Attribute| if ordering { a.orders } else { a.filters };
        let found = self.attributes().iter().filter(usable).find(|a| a.names.contains(&name.as_str()));
        found.map(|a| Named::Attribute(a.name, a.kind)).ok_or_else(|| {
            let valid: Vec<&str> = self.attributes().iter().filter(usable).map(|a| a.names[0]).collect();
            let valid = valid.join("', '");
            let what =
                if ordering && self == Self::RegisteredModel { "order by key" } else { "attribute key" };
            MlflowError::invalid(format!("Invalid {what} '{name}' specified. Valid keys are '{{'{valid}'}}'"))
        })
    }

    /// What an order names.
    pub(super) fn ordered_by(self, id: &Identifier) -> Result<Named, MlflowError> {
        match (self, &id.entity) {
            (Self::Trace, _) => super::traces::ordered_by(id),
            // They are ordered by attributes only, which are named without more ado.
            (Self::RegisteredModel, Some(entity)) => {
                let key = format!("{entity}.{}", id.key);
                self.attribute(&Identifier { entity: None, key, ..id.clone() }, true)
            }
            _ => self.named(id, true),
        }
    }

    /// The attributes that can be compared with a list.
    fn lists(self) -> Vec<&'static str> {
        let lists = |a: &&Attribute| matches!(a.kind, Kind::Text { lists: true } | Kind::Id);
        let mut found: Vec<&str> = self.attributes().iter().filter(lists).map(|a| a.names[0]).collect();
        found.sort_unstable();
        found
    }
}

/// Checks one condition and translates it.
pub(super) fn clause(noun: Noun, condition: &Condition) -> Result<Clause, MlflowError> {
    match noun {
        Noun::Trace => return super::traces::clause(condition),
        Noun::LoggedModel => return super::logged::clause(condition),
        _ => {}
    }
    let named = noun.named(&condition.identifier, false)?;
    if condition.about_null() {
        may_be_null(noun, &named, &condition.identifier.key)?;
    }
    let value = &condition.value;
    let mut comparator = condition.comparator;
    let (field, operand) = match named {
        Named::Attribute(name, kind) => {
            (Field::Attribute(name), attribute_operand(noun, name, kind, condition)?)
        }
        Named::Metric(key) => {
            let operand = Operand::Real(number("metric", value)?);
            allowed(condition, NUMERIC)?;
            (Field::Metric(key), operand)
        }
        Named::Param(key) => {
            let operand = pair_operand("parameter", value)?;
            allowed(condition, PATTERNS_AND_NULL)?;
            (Field::Param(key), operand)
        }
        Named::Tag(key) => {
            let mut operand = pair_operand("tag", value)?;
            match noun {
                Noun::Run => allowed(condition, PATTERNS_AND_NULL)?,
                Noun::Experiment => allowed_for("tag", condition, PATTERNS_AND_NULL)?,
                _ => allowed_for("tag", condition, PATTERNS)?,
            }
            if noun.registered() && key == IS_PROMPT {
                (comparator, operand) = about_prompts(comparator, operand);
            }
            (Field::Tag(key), operand)
        }
        Named::Dataset(part) => {
            let operand = texts("dataset attributes", value)?;
            allowed(condition, PATTERNS_AND_LISTS)?;
            (Field::Dataset(part), operand)
        }
    };
    Ok(Clause { field, comparator, operand })
}

/// Whether it may be asked if there is something.
fn may_be_null(noun: Noun, named: &Named, key: &str) -> Result<(), MlflowError> {
    let kind = match named {
        Named::Tag(_) if !noun.registered() => return Ok(()),
        Named::Param(_) => return Ok(()),
        Named::Attribute(..) => "attribute",
        Named::Metric(_) => "metric",
        Named::Tag(_) => "tag",
        Named::Dataset(_) => "dataset",
    };
    const WORDS: &str = "IS NULL / IS NOT NULL is";
    Err(MlflowError::invalid(match noun {
        Noun::Run => format!("{WORDS} only supported for tags and params, not for '{kind}' '{key}'"),
        Noun::Experiment => format!("{WORDS} only supported for tags, not for {kind} '{key}'"),
        Noun::RegisteredModel => format!("{WORDS} not supported for registered model search."),
        _ => format!("{WORDS} not supported for model version search."),
    }))
}

/// Models without the mark are no prompts, whatever way round it is asked.
fn about_prompts(comparator: C, operand: Operand) -> (C, Operand) {
    let is = |word: &str| matches!(&operand, Operand::Text(text) if text.eq_ignore_ascii_case(word));
    match comparator {
        C::Ne if is("true") => (C::Lacks, operand),
        C::Eq if is("false") => (C::Lacks, Operand::Text("true".to_owned())),
        other => (other, operand),
    }
}

/// What a param or a tag is compared with.
pub(super) fn pair_operand(what: &str, value: &Value) -> Result<Operand, MlflowError> {
    match value {
        Value::None => Ok(Operand::None),
        other => Ok(Operand::Text(text(&format!("{what} (e.g. 'my-value')"), other)?)),
    }
}

fn attribute_operand(
    noun: Noun,
    name: &str,
    kind: Kind,
    condition: &Condition,
) -> Result<Operand, MlflowError> {
    let (key, value) = (&condition.identifier.key, &condition.value);
    if matches!(value, Value::List(_) | Value::NoList(_)) && (noun.registered() || kind != Kind::Number) {
        no_lists(noun, kind)?;
    }
    let comparators = |list| match noun {
        Noun::ModelVersion if kind == Kind::Number => {
            allowed_for(&format!("attribute {key}"), condition, list)
        }
        _ if noun.registered() => allowed_for("attribute", condition, list),
        _ => allowed(condition, list),
    };
    match kind {
        Kind::Text { lists } => {
            let operand = attribute_texts(noun, value)?;
            comparators(if lists { PATTERNS_AND_LISTS } else { PATTERNS })?;
            Ok(operand)
        }
        Kind::Number => {
            let operand = attribute_number(noun, key, value)?;
            comparators(NUMERIC)?;
            Ok(operand)
        }
        Kind::Id => {
            let operand = match texts("attributes", value)? {
                Operand::Texts(all) => {
                    Operand::Ints(all.iter().map(|text| id(name, text)).collect::<Result<_, _>>()?)
                }
                Operand::Text(one) => Operand::Int(id(name, &one)?),
                other => other,
            };
            allowed_for(name, condition, EQUALITY_AND_LISTS)?;
            Ok(operand)
        }
    }
}

/// The number of an experiment.
pub(super) fn id(name: &str, text: &str) -> Result<i64, MlflowError> {
    text.parse().map_err(|_| no_number(name, &Value::Quoted(text.to_owned())))
}

fn no_lists(noun: Noun, kind: Kind) -> Result<(), MlflowError> {
    if matches!(kind, Kind::Text { lists: true } | Kind::Id) {
        return Ok(());
    }
    Err(MlflowError::invalid(format!(
        "Only ['{}'] attributes support comparison with a list of quoted string values.",
        noun.lists().join("', '")
    )))
}

fn attribute_texts(noun: Noun, value: &Value) -> Result<Operand, MlflowError> {
    if noun == Noun::ModelVersion && value.is_number() {
        return Err(MlflowError::invalid(
            "Only the '{'version_number'}' attributes support comparison with numeric values.",
        ));
    }
    let what = if noun.registered() { "a list of quoted string values for attributes" } else { "attributes" };
    texts(what, value)
}

fn attribute_number(noun: Noun, key: &str, value: &Value) -> Result<Operand, MlflowError> {
    let whole = match value {
        // A version's number may be in quotes.
        Value::Quoted(text) if noun == Noun::ModelVersion => text.parse().ok(),
        other => bare::<i64>(other),
    };
    match (whole, noun) {
        (Some(whole), _) => Ok(Operand::Int(whole)),
        (None, Noun::Run) => numeric(&format!("numeric attribute: {key}"), value),
        (None, Noun::Experiment) if !value.is_number() => {
            Err(no_number(&format!("numeric attribute: {key}"), value))
        }
        _ => Err(MlflowError::invalid(format!(
            "Invalid value for numeric attribute '{key}': {}",
            value.show()
        ))),
    }
}
