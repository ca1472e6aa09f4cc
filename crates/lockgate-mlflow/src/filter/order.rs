//! Orders: `identifier [ASC|DESC]`.

use super::lexer::{Token, tokens};
use super::parser::{Identifier, identifier};
use super::rules::{Named, Noun};
use crate::error::MlflowError;
use lockgate_control::tracking::{Field, Order};

/// Reads a list of orders.
pub(super) fn orders(noun: Noun, texts: &[String]) -> Result<Vec<Order>, MlflowError> {
    let mut found: Vec<Order> = Vec::new();
    for text in texts {
        let order = one(noun, text)?;
        if found.iter().any(|other| other.field == order.field) {
            // MLflow's own server answers so, with this code.
            return Err(MlflowError::internal(format!("`order_by` contains duplicate fields: {texts:?}")));
        }
        found.push(order);
    }
    Ok(found)
}

fn one(noun: Noun, text: &str) -> Result<Order, MlflowError> {
    let invalid = || {
        MlflowError::invalid(format!(
            "Invalid order_by clause '{text}'. Use an identifier, and ASC or DESC after it"
        ))
    };
    // The direction is the last word; what is before it may have blanks ("Run Name DESC").
    let trimmed = text.trim();
    let (rest, ascending) = match trimmed.rsplit_once(char::is_whitespace) {
        Some((rest, last)) if last.eq_ignore_ascii_case("asc") => (rest.trim_end(), true),
        Some((rest, last)) if last.eq_ignore_ascii_case("desc") => (rest.trim_end(), false),
        _ => (trimmed, true),
    };
    let id = match tokens(rest).map_err(|_| invalid())?.as_slice() {
        [Token::Word(word)] => identifier(word),
        [Token::Quoted(key)] => Identifier { entity: None, key: key.clone() },
        [Token::Word(_), Token::Word(_)] => Identifier { entity: None, key: rest.to_owned() },
        _ => return Err(invalid()),
    };
    Ok(Order { field: named(noun, &id)?, ascending, dataset: None })
}

/// What a name alone names.
pub(super) fn field(noun: Noun, name: &str) -> Result<Field, MlflowError> {
    named(noun, &identifier(name))
}

fn named(noun: Noun, id: &Identifier) -> Result<Field, MlflowError> {
    let invalid = |key: &str| MlflowError::invalid(format!("Invalid order by field name: {key}"));
    let has_pairs = matches!(noun, Noun::Run | Noun::Trace);
    Ok(match noun.ordered_by(id)? {
        Named::Attribute(name, _) => Field::Attribute(name),
        Named::Metric(key) => Field::Metric(key),
        Named::Param(key) if has_pairs => Field::Param(key),
        Named::Tag(key) if has_pairs => Field::Tag(key),
        Named::Param(key) | Named::Tag(key) => return Err(invalid(&key)),
        Named::Dataset(key) => return Err(invalid(key)),
    })
}
