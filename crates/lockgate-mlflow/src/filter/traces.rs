//! What may be said about traces.

use super::parser::{Condition, Identifier, Value};
use super::rules::{Kind, NUMERIC, Named, allowed, bare, number, text, texts};
use crate::error::MlflowError;
use lockgate_control::tracking::{Clause, Comparator as C, Field, Operand, Tree};

/// The tag that holds a trace's name.
const NAME: &str = "mlflow.traceName";
/// The tag that stands for the prompts that a trace used.
const PROMPTS: &str = "mlflow.linkedPrompts";
/// The metadata that holds the run during which a trace was made.
const SOURCE_RUN: &str = "mlflow.sourceRun";

/// The metadata that names the conversation of a trace.
const SESSION: &str = "mlflow.trace.session";

/// Of all that is searched, only what belongs to traces knows regular expressions.
const PATTERNS_AND_LISTS: &[C] = &[C::Eq, C::Ne, C::Like, C::Ilike, C::Rlike, C::In, C::NotIn];
const PATTERNS_AND_NULL: &[C] = &[C::Eq, C::Ne, C::Like, C::Ilike, C::Rlike, C::IsNull, C::IsNotNull];

const ENTITIES: &str =
    "['attribute', 'tag', 'metadata', 'span', 'feedback', 'expectation', 'issue', 'trace']";
const ATTRIBUTES: &str = "'request_id', 'timestamp_ms', 'execution_time_ms', 'end_time_ms', 'status', \
                          'client_request_id', 'name', 'run_id', 'prompt', 'text'";

/// The part before the dot, by its main name.
fn entity(id: &Identifier) -> Result<&'static str, MlflowError> {
    match id.entity.as_deref() {
        None | Some("attribute" | "attributes" | "trace") => Ok("attribute"),
        Some("tag" | "tags") => Ok("tag"),
        Some("metadata" | "request_metadata") => Ok("metadata"),
        Some("span") => Ok("span"),
        Some("feedback") => Ok("feedback"),
        Some("expectation") => Ok("expectation"),
        Some("issue") => Ok("issue"),
        Some(other) => {
            Err(MlflowError::invalid(format!("Invalid entity type '{other}'. Valid values are {ENTITIES}")))
        }
    }
}

/// An attribute of the trace's own row.
fn own(name: &str) -> Option<&'static str> {
    Some(match name {
        "request_id" => "request_id",
        "client_request_id" => "client_request_id",
        "status" => "status",
        "timestamp" | "timestamp_ms" => "timestamp_ms",
        "execution_time" | "execution_time_ms" => "execution_time_ms",
        "end_time" | "end_time_ms" => "end_time_ms",
        _ => return None,
    })
}

fn unknown(name: &str) -> MlflowError {
    MlflowError::invalid(format!("Invalid attribute key '{name}' specified. Valid keys are {ATTRIBUTES}"))
}

/// What an order names.
pub(super) fn ordered_by(id: &Identifier) -> Result<Named, MlflowError> {
    match (entity(id)?, id.key.as_str()) {
        ("attribute", "name") => Ok(Named::Tag(NAME.to_owned())),
        ("attribute", "run_id") => Ok(Named::Param(SOURCE_RUN.to_owned())),
        ("attribute", "experiment_id") => Ok(Named::Attribute("experiment_id", Kind::Id)),
        ("attribute", "client_request_id") => Err(unknown(&id.key)),
        ("attribute", name) => {
            own(name).map(|name| Named::Attribute(name, Kind::Number)).ok_or_else(|| unknown(name))
        }
        ("tag", key) => Ok(Named::Tag(key.to_owned())),
        ("metadata", key) => Ok(Named::Param(key.to_owned())),
        (other, _) => Err(MlflowError::invalid(format!("Invalid identifier type '{other}'"))),
    }
}

/// Checks one condition and translates it.
pub(super) fn clause(condition: &Condition) -> Result<Clause, MlflowError> {
    let key = condition.identifier.key.clone();
    let (field, operand) = match entity(&condition.identifier)? {
        "attribute" => attribute(&key, condition)?,
        "tag" if key == PROMPTS => prompt(condition)?,
        "tag" => (Field::Tag(key), pattern("tag", condition)?),
        "metadata" => metadata(key, condition)?,
        "span" => span(&key, condition)?,
        "feedback" => (Field::Assessment("feedback", key), value(condition)?),
        "expectation" => (Field::Assessment("expectation", key), value(condition)?),
        _ => issue(&key, condition)?,
    };
    Ok(Clause { field, comparator: condition.comparator, operand })
}

fn pattern(what: &str, condition: &Condition) -> Result<Operand, MlflowError> {
    allowed(what, condition, PATTERNS_AND_NULL)?;
    match &condition.value {
        Value::None => Ok(Operand::None),
        value => Ok(Operand::Text(text(value)?)),
    }
}

fn metadata(key: String, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    let operand = pattern("metadata", condition)?;
    let field = match key.as_str() {
        // A trace belongs to the run that made it and to those that it was linked to.
        SOURCE_RUN if condition.comparator == C::Eq => Field::Link("run"),
        // The conversation has a column of its own, with an index.
        SESSION => Field::Attribute("session_id"),
        _ => Field::Param(key),
    };
    Ok((field, operand))
}

fn attribute(key: &str, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    match key {
        "name" => Ok((Field::Tag(NAME.to_owned()), pattern("tag", condition)?)),
        "run_id" => metadata(SOURCE_RUN.to_owned(), condition),
        "prompt" => prompt(condition),
        "text" => span("content", condition),
        key => {
            let name = own(key).ok_or_else(|| unknown(key))?;
            let operand = if name.ends_with("_ms") {
                allowed("attribute", condition, NUMERIC)?;
                numeric(&format!("numeric attribute: {name}"), &condition.value)?
            } else {
                allowed("attribute", condition, PATTERNS_AND_LISTS)?;
                texts(&condition.value)?
            };
            Ok((Field::Attribute(name), operand))
        }
    }
}

fn numeric(what: &str, value: &Value) -> Result<Operand, MlflowError> {
    match bare::<i64>(value) {
        Some(whole) => Ok(Operand::Int(whole)),
        None => Ok(Operand::Real(number(what, value)?)),
    }
}

fn prompt(condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    if condition.comparator != C::Eq {
        return Err(MlflowError::invalid(
            "Invalid comparator for prompts filter. Only '=' is supported with format: prompt = \"name/version\"",
        ));
    }
    let name = text(&condition.value)?;
    if name.matches('/').count() != 1 {
        return Err(MlflowError::invalid(format!(
            "Invalid prompts filter value '{name}'. Expected format: prompt = \"name/version\""
        )));
    }
    Ok((Field::Link("prompt"), Operand::Text(name)))
}

fn issue(key: &str, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    if key != "id" {
        return Err(MlflowError::invalid(format!(
            "Invalid issue attribute '{key}'. Supported attributes: id"
        )));
    }
    allowed("issue", condition, &[C::Eq])?;
    Ok((Field::Link("issue"), Operand::Text(text(&condition.value)?)))
}

fn span(key: &str, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    if let Some(name) = key.strip_prefix("attributes.") {
        let name = name.trim_matches('`');
        if name.is_empty() {
            return Err(MlflowError::invalid("Span attribute name cannot be empty after 'attributes.'"));
        }
        allowed("span attribute", condition, PATTERNS_AND_LISTS)?;
        return Ok((Field::SpanAttribute(name.to_owned()), texts(&condition.value)?));
    }
    let field = match key {
        "name" => Field::Span("name"),
        "type" => Field::Span("kind"),
        "status" => Field::Span("status"),
        "content" => {
            allowed("span", condition, &[C::Like, C::Ilike])?;
            return Ok((Field::Span("content"), Operand::Text(text(&condition.value)?)));
        }
        other => {
            return Err(MlflowError::invalid(format!(
                "Invalid span attribute '{other}'. Supported attributes: name, status, type, attributes.<attribute_name>."
            )));
        }
    };
    allowed("span", condition, PATTERNS_AND_LISTS)?;
    Ok((field, texts(&condition.value)?))
}

/// What an assessment's value is compared with: texts are kept as JSON, numbers and flags as they are written.
fn value(condition: &Condition) -> Result<Operand, MlflowError> {
    match condition.comparator {
        C::IsNull | C::IsNotNull => Ok(Operand::None),
        C::Lt | C::Le | C::Gt | C::Ge => numeric("assessment", &condition.value),
        C::Eq | C::Ne => {
            let plain = text(&condition.value)?;
            let json = Tree::Text(plain.clone()).dump_ascii();
            Ok(Operand::Texts(vec![plain, json]))
        }
        _ => {
            allowed("assessment", condition, &[C::Like, C::Ilike, C::Rlike])?;
            Ok(Operand::Text(text(&condition.value)?))
        }
    }
}
