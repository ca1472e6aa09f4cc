//! What may be said about logged models. MLflow has a grammar of their own for them: values need no quotes.

use super::comparators::{EQUALITY_AND_LISTS, NUMERIC, PATTERNS_AND_LISTS, is_one_of, names};
use super::parser::{Condition, Identifier, Value};
use super::rules::id;
use super::values::{list, number, numeric};
use crate::error::MlflowError;
use lockgate_control::tracking::{Clause, Comparator as C, Field, ModelStatus, Operand};

/// What kind of value an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// An experiment's number.
    Id,
    Status,
}

/// Attributes: what they are called, what the store calls them, and their kind.
const ATTRIBUTES: &[(&str, &str, Kind)] = &[
    ("model_id", "model_id", Kind::Text),
    ("name", "name", Kind::Text),
    ("experiment_id", "experiment_id", Kind::Id),
    ("model_type", "model_type", Kind::Text),
    ("status", "status", Kind::Status),
    ("source_run_id", "source_run_id", Kind::Text),
    ("artifact_location", "artifact_location", Kind::Text),
    ("lifecycle_stage", "lifecycle_stage", Kind::Text),
    ("creation_timestamp_ms", "creation_timestamp", Kind::Number),
    ("creation_timestamp", "creation_timestamp", Kind::Number),
    ("creation_time", "creation_timestamp", Kind::Number),
    ("last_updated_timestamp_ms", "last_updated_timestamp", Kind::Number),
    ("last_updated_timestamp", "last_updated_timestamp", Kind::Number),
];

fn attribute(key: &str) -> Option<(&'static str, Kind)> {
    ATTRIBUTES.iter().find(|(called, ..)| *called == key).map(|(_, name, kind)| (*name, *kind))
}

/// What logged models are ordered by.
pub(super) fn ordered_by(name: &str) -> Result<Field, MlflowError> {
    let invalid =
        |more: &str| Err(MlflowError::invalid(format!("Invalid order by field name: {name}{more}")));
    match name.split_once('.') {
        Some(("metrics", key)) => Ok(Field::Metric(key.trim_matches('`').to_owned())),
        Some(_) => invalid(". Only metrics are supported."),
        None => match attribute(name.trim_matches('`')) {
            Some((name, _)) => Ok(Field::Attribute(name)),
            None => invalid(""),
        },
    }
}

/// Checks one condition and translates it.
pub(super) fn clause(condition: &Condition) -> Result<Clause, MlflowError> {
    let Identifier { entity, key, .. } = &condition.identifier;
    let value = &condition.value;
    let (field, operand) = match entity.as_deref() {
        None | Some("attributes") => about_attribute(condition)?,
        Some("metrics") => {
            allowed("metrics", condition, NUMERIC)?;
            let operand = Operand::Real(number("metric", value)?);
            (Field::Metric(key.clone()), operand)
        }
        Some("params") => (Field::Param(key.clone()), texts("params", condition)?),
        Some("tags") => (Field::Tag(key.clone()), texts("tags", condition)?),
        Some(other) => {
            return Err(MlflowError::invalid(format!(
                "Invalid entity type: '{other}'. Expected one of ['attributes', 'metrics', 'params', 'tags']."
            )));
        }
    };
    Ok(Clause { field, comparator: condition.comparator, operand })
}

fn allowed(entity: &str, condition: &Condition, comparators: &[C]) -> Result<(), MlflowError> {
    let (key, written) = (&condition.identifier.key, &condition.written);
    if condition.about_null() {
        return Err(MlflowError::invalid(format!(
            "Invalid comparison: {entity}.{key} {written}. Expected a comparison with 3 tokens."
        )));
    }
    if is_one_of(condition, comparators) {
        return Ok(());
    }
    Err(MlflowError::invalid(format!(
        "Invalid comparison operator for {entity}.{key}: '{written}'. Expected one of ({}).",
        names(comparators)
    )))
}

fn about_attribute(condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    let key = &condition.identifier.key;
    let found = attribute(key);
    let kind = found.map_or(Kind::Text, |(_, kind)| kind);
    let operand = match kind {
        Kind::Text => texts("attributes", condition)?,
        Kind::Number => {
            allowed("attributes", condition, NUMERIC)?;
            numeric(&format!("numeric attribute: {key}"), &condition.value)?
        }
        Kind::Status => {
            if !is_one_of(condition, EQUALITY_AND_LISTS) && is_one_of(condition, PATTERNS_AND_LISTS) {
                return Err(MlflowError::invalid(format!(
                    "Invalid comparison operator for status: {}",
                    condition.written
                )));
            }
            each(texts("attributes", condition)?, status)?
        }
        Kind::Id => {
            allowed("attributes", condition, EQUALITY_AND_LISTS)?;
            match texts("attributes", condition)? {
                Operand::Texts(all) => {
                    Operand::Ints(all.iter().map(|text| id(key, text)).collect::<Result<_, _>>()?)
                }
                Operand::Text(one) => Operand::Int(id(key, &one)?),
                other => other,
            }
        }
    };
    let (name, _) = found.ok_or_else(|| {
        let valid: Vec<&str> = ATTRIBUTES.iter().map(|(called, ..)| *called).collect();
        MlflowError::invalid(format!(
            "Invalid attribute key '{key}' specified. Valid keys are '{{'{}'}}'",
            valid.join("', '")
        ))
    })?;
    Ok((Field::Attribute(name), operand))
}

/// Texts, with or without quotes.
fn texts(entity: &str, condition: &Condition) -> Result<Operand, MlflowError> {
    allowed(entity, condition, PATTERNS_AND_LISTS)?;
    Ok(match &condition.value {
        Value::List(items) => Operand::Texts(items.iter().map(plain).collect()),
        no_list @ Value::NoList(_) => Operand::Texts(list(no_list)?),
        one => Operand::Text(plain(one)),
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::Quoted(text) => text.clone(),
        other => other.show(),
    }
}

fn each(
    operand: Operand,
    change: impl Fn(&str) -> Result<String, MlflowError>,
) -> Result<Operand, MlflowError> {
    Ok(match operand {
        Operand::Texts(all) => Operand::Texts(all.iter().map(|text| change(text)).collect::<Result<_, _>>()?),
        Operand::Text(one) => Operand::Text(change(&one)?),
        other => other,
    })
}

/// A status by the name that it has in Python; what goes over the wire has a longer one.
fn status(name: &str) -> Result<String, MlflowError> {
    let long = match name {
        "PENDING" => ModelStatus::Pending.as_str(),
        "READY" => ModelStatus::Ready.as_str(),
        "FAILED" => ModelStatus::Failed.as_str(),
        "UNSPECIFIED" => "LOGGED_MODEL_STATUS_UNSPECIFIED",
        other => {
            return Err(MlflowError::invalid(format!("Unknown model status in filter: '{other}'")));
        }
    };
    Ok(long.to_owned())
}
