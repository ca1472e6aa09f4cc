//! What a condition compares with.

use super::parser::Value;
use crate::error::MlflowError;
use lockgate_control::tracking::Operand;

/// A text in quotes. Where it is something else, `what` says where a text was expected.
pub(super) fn text(what: &str, value: &Value) -> Result<String, MlflowError> {
    match value {
        Value::Quoted(text) => Ok(text.clone()),
        Value::Bare(word) if !value.is_number() && !word.eq_ignore_ascii_case("NULL") => {
            Err(MlflowError::invalid(format!(
                "Parameter value is either not quoted or unidentified quote types used for string value {word}. Use \
                 either single or double quotes."
            )))
        }
        other => Err(MlflowError::invalid(format!(
            "Expected a quoted string value for {what}. Got value {}",
            other.show()
        ))),
    }
}

/// A text, or a list of them.
pub(super) fn texts(what: &str, value: &Value) -> Result<Operand, MlflowError> {
    match value {
        Value::List(_) | Value::NoList(_) => Ok(Operand::Texts(list(value)?)),
        single => Ok(Operand::Text(text(what, single)?)),
    }
}

/// A list of texts.
pub(super) fn list(value: &Value) -> Result<Vec<String>, MlflowError> {
    let wrong =
        |why: &str| MlflowError::invalid(format!("While parsing a list in the query, expected {why}"));
    let Value::List(items) = value else {
        return Err(wrong("a non-empty list of string values, but got ill-formed list."));
    };
    if items.is_empty() {
        return Err(wrong("a non-empty list of string values, but got empty list"));
    }
    let quoted = |item: &Value| match item {
        Value::Quoted(text) => Some(text.clone()),
        _ => None,
    };
    items.iter().map(quoted).collect::<Option<_>>().ok_or_else(|| {
        wrong(&format!(
            "string value, punctuation, or whitespace, but got different type in list: {}",
            value.show()
        ))
    })
}

pub(super) fn no_number(what: &str, value: &Value) -> MlflowError {
    MlflowError::invalid(format!("Expected numeric value type for {what}. Found {}", value.show()))
}

/// A number outside quotes.
pub(super) fn bare<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::Bare(text) if value.is_number() => text.parse().ok(),
        _ => None,
    }
}

/// The same, which has to be there.
pub(super) fn number(what: &str, value: &Value) -> Result<f64, MlflowError> {
    bare(value).ok_or_else(|| no_number(what, value))
}

/// A number, whole where it can be.
pub(super) fn numeric(what: &str, value: &Value) -> Result<Operand, MlflowError> {
    match bare::<i64>(value) {
        Some(whole) => Ok(Operand::Int(whole)),
        None => Ok(Operand::Real(number(what, value)?)),
    }
}
