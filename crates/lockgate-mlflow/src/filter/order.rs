//! Orders: `identifier [ASC|DESC]`.

use super::lexer::{Token, tokens};
use super::parser::{Identifier, named};
use super::rules::{Named, Noun};
use crate::error::MlflowError;
use lockgate_control::tracking::{Field, Order};

/// The attribute that MLflow's parser takes for a type's name, so that only a direction may follow.
const TIMESTAMP: &str = "timestamp";

/// Reads a list of orders.
pub(super) fn orders(noun: Noun, texts: &[String]) -> Result<Vec<Order>, MlflowError> {
    let mut found: Vec<Order> = Vec::new();
    for text in texts {
        let order = one(noun, text)?;
        if !found.iter().any(|other| other.field == order.field) {
            found.push(order);
        } else if noun != Noun::Experiment {
            // MLflow's own server answers so, with this code; experiments may be ordered by something twice.
            return Err(MlflowError::internal(format!("`order_by` contains duplicate fields: {texts:?}")));
        }
    }
    Ok(found)
}

fn one(noun: Noun, text: &str) -> Result<Order, MlflowError> {
    let invalid = |what: &str| {
        MlflowError::invalid(format!("Invalid {what} '{text}'. Use an identifier, then ASC or DESC"))
    };
    let clause = || invalid("order_by clause");
    // Blanks around it make it another thing to MLflow.
    if text.trim() != text {
        return Err(clause());
    }
    let tokens = tokens(text).map_err(|_| clause())?;
    let (first, direction) = match tokens.as_slice() {
        [first] => (first, None),
        [first, Token::Word(word)] => (first, Some(word.as_str())),
        _ => return Err(clause()),
    };
    let id = named(first).filter(|id| !id.literal).ok_or_else(clause)?;
    let ascending = match direction {
        None => true,
        Some(word) if word.eq_ignore_ascii_case("asc") => true,
        Some(word) if word.eq_ignore_ascii_case("desc") => false,
        Some(_) if *first == Token::Word(TIMESTAMP.to_owned()) => return Err(clause()),
        Some(_) => return Err(invalid("ordering key in order_by clause")),
    };
    Ok(Order { field: field(noun, &id)?, ascending, dataset: None })
}

fn field(noun: Noun, id: &Identifier) -> Result<Field, MlflowError> {
    let has_pairs = matches!(noun, Noun::Run | Noun::Trace);
    let invalid = |what: &str| Err(MlflowError::invalid(format!("Invalid order_by entity: {what}")));
    match noun.ordered_by(id)? {
        Named::Attribute(name, _) => Ok(Field::Attribute(name)),
        Named::Metric(key) => Ok(Field::Metric(key)),
        Named::Param(key) if has_pairs => Ok(Field::Param(key)),
        Named::Tag(key) if has_pairs => Ok(Field::Tag(key)),
        Named::Param(_) => invalid("parameter"),
        Named::Tag(_) => invalid("tag"),
        Named::Dataset(_) => Err(MlflowError::invalid("Invalid identifier type 'dataset'")),
    }
}
