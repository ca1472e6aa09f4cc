//! What may be said about traces.

use super::comparators::{NUMERIC, PATTERNS_ONLY, allowed, allowed_of, is_one_of, not_one_of};
use super::parser::{Condition, Identifier};
use super::rules::{Kind, Named, pair_operand};
use super::values::{numeric, text, texts};
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
    match id.plain_entity() {
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
    MlflowError::invalid(format!(
        "Invalid attribute key '{name}' specified. Valid keys are '{{{ATTRIBUTES}}}'"
    ))
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
        "feedback" => (Field::Assessment("feedback", key), value("feedback", condition)?),
        "expectation" => (Field::Assessment("expectation", key), value("expectation", condition)?),
        _ => issue(&key, condition)?,
    };
    Ok(Clause { field, comparator: condition.comparator, operand })
}

fn pattern(what: &str, condition: &Condition) -> Result<Operand, MlflowError> {
    allowed(condition, PATTERNS_AND_NULL)?;
    pair_operand(what, &condition.value)
}

fn metadata(key: String, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    let operand = pattern("request_metadata", condition)?;
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
    let numeric_key = own(key).is_some_and(|name| name.ends_with("_ms"));
    let known = own(key).is_some() || matches!(key, "name" | "run_id" | "prompt" | "text");
    if condition.value.is_number() && known && !numeric_key {
        return Err(MlflowError::invalid(
            "Only the '{'end_time_ms', 'execution_time_ms', 'timestamp_ms'}' attributes support comparison with \
             numeric values.",
        ));
    }
    match key {
        "name" => Ok((Field::Tag(NAME.to_owned()), pattern("tag", condition)?)),
        "run_id" => metadata(SOURCE_RUN.to_owned(), condition),
        "prompt" => prompt(condition),
        "text" => span("content", condition),
        key => {
            let name = own(key).ok_or_else(|| unknown(key))?;
            let operand = if numeric_key {
                allowed(condition, NUMERIC)?;
                numeric(&format!("numeric attribute: {name}"), &condition.value)?
            } else {
                allowed(condition, PATTERNS_AND_LISTS)?;
                texts("attributes", &condition.value)?
            };
            Ok((Field::Attribute(name), operand))
        }
    }
}

fn prompt(condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    if !is_one_of(condition, &[C::Eq]) {
        return Err(MlflowError::invalid(format!(
            "Invalid comparator '{}' for prompts filter. Only '=' is supported with format: prompt = \"name/version\"",
            condition.written
        )));
    }
    let name = text("tag (e.g. 'my-value')", &condition.value)?;
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
    allowed_of("issue", condition, &[C::Eq])?;
    Ok((Field::Link("issue"), pair_operand("issue", &condition.value)?))
}

fn span(key: &str, condition: &Condition) -> Result<(Field, Operand), MlflowError> {
    if let Some(name) = key.strip_prefix("attributes.") {
        let name = name.trim_matches('`');
        if name.is_empty() {
            return Err(MlflowError::invalid("Span attribute name cannot be empty after 'attributes.'"));
        }
        allowed_of("span", condition, PATTERNS_AND_LISTS)?;
        return Ok((
            Field::SpanAttribute(name.to_owned()),
            texts("span (e.g. 'my-value')", &condition.value)?,
        ));
    }
    let field = match key {
        "name" => Field::Span("name"),
        "type" => Field::Span("kind"),
        "status" => Field::Span("status"),
        "content" => {
            // A trace's text is the content of its spans.
            let identifier = Identifier { key: key.to_owned(), ..condition.identifier.clone() };
            allowed_of("span", &Condition { identifier, ..condition.clone() }, PATTERNS_ONLY)?;
            return Ok((Field::Span("content"), pair_operand("span", &condition.value)?));
        }
        other => {
            return Err(MlflowError::invalid(format!(
                "Invalid span attribute '{other}'. Supported attributes: name, status, type, attributes.<attribute_name>."
            )));
        }
    };
    allowed_of("span", condition, PATTERNS_AND_LISTS)?;
    Ok((field, texts("span (e.g. 'my-value')", &condition.value)?))
}

/// What an assessment's value is compared with: texts are kept as JSON, numbers and flags as they are written.
fn value(kind: &str, condition: &Condition) -> Result<Operand, MlflowError> {
    const ALL: &[C] =
        &[C::Eq, C::Ne, C::Lt, C::Le, C::Gt, C::Ge, C::Like, C::Ilike, C::Rlike, C::IsNull, C::IsNotNull];
    if condition.unknown {
        return Err(not_one_of(condition, ALL));
    }
    match condition.comparator {
        C::Lt | C::Le | C::Gt | C::Ge => {
            numeric(&format!("{kind} when using comparator '{}'", condition.written), &condition.value)
        }
        C::Eq | C::Ne => {
            let plain = text(&format!("{kind} (e.g. 'my-value')"), &condition.value)?;
            let json = Tree::Text(plain.clone()).dump_ascii();
            Ok(Operand::Texts(vec![plain, json]))
        }
        _ => {
            allowed_of("assessment", condition, ALL)?;
            pair_operand(kind, &condition.value)
        }
    }
}
