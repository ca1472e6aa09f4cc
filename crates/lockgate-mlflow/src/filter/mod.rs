//! MLflow's grammar for conditions (`metrics.auc > 0.9 AND tags.team = 'ops'`) and orders (`start_time DESC`).
//!
//! `clause (AND clause)*`; no OR, no parentheses but for lists, no NOT but in `NOT IN` and `IS NOT NULL`.
//!
//! | module | subject |
//! |---|---|
//! | `lexer` | text to tokens |
//! | `parser` | tokens to conditions |
//! | `rules` | what may be said about which thing |
//! | `traces` | the same about traces, which have most to say |
//! | `order` | orders |

mod lexer;
mod order;
mod parser;
mod rules;
#[cfg(test)]
mod tests;
mod traces;

pub(crate) use rules::IS_PROMPT;
pub(crate) use rules::Noun;

use crate::error::MlflowError;
use lockgate_control::tracking::{Clause, Order};

/// Reads a filter string about one kind of thing.
///
/// # Errors
/// Where it breaks the grammar, or says something that can't be said about this kind of thing.
pub(crate) fn clauses(noun: Noun, text: &str) -> Result<Vec<Clause>, MlflowError> {
    let conditions = parser::conditions(text)?;
    conditions.iter().map(|condition| rules::clause(noun, condition)).collect()
}

/// Reads a list of orders about one kind of thing.
///
/// # Errors
/// Where one breaks the grammar, or names something that such things can't be ordered by.
pub(crate) fn orders(noun: Noun, texts: &[String]) -> Result<Vec<Order>, MlflowError> {
    order::orders(noun, texts)
}

/// Reads what logged models are ordered by, which comes as a name.
pub(crate) fn order_field(noun: Noun, name: &str) -> Result<lockgate_control::tracking::Field, MlflowError> {
    order::field(noun, name)
}
