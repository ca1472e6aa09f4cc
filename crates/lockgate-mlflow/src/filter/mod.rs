//! MLflow's grammar for conditions (`metrics.auc > 0.9 AND tags.team = 'ops'`) and orders (`start_time DESC`).
//!
//! `clause (AND clause)*`; no OR, no parentheses but for lists, no NOT but in `NOT IN` and `IS NOT NULL`.
//!
//! | module | subject |
//! |---|---|
//! | `lexer` | text to tokens |
//! | `parser` | tokens to conditions |
//! | `rules` | what may be said about which thing |
//! | `values` | what it may be compared with |
//! | `comparators` | and how |
//! | `logged` | the same about logged models, which say it their way |
//! | `traces` | the same about traces, which have most to say |
//! | `order` | orders |

mod comparators;
mod lexer;
mod logged;
mod order;
mod parser;
mod rules;
#[cfg(test)]
mod tests;
mod traces;
mod values;

pub(crate) use rules::IS_PROMPT;
pub(crate) use rules::Noun;

use crate::error::MlflowError;
use lexer::Fault;
use lockgate_control::tracking::{Clause, Field, Order};

/// Reads a filter string about one kind of thing.
///
/// # Errors
/// Where it breaks the grammar, or says something that can't be said about this kind of thing.
pub(crate) fn clauses(noun: Noun, text: &str) -> Result<Vec<Clause>, MlflowError> {
    let conditions = parser::conditions(text).map_err(|fault| broken(noun, text, &fault))?;
    conditions
        .iter()
        .map(|condition| {
            if condition.identifier.literal {
                return Err(MlflowError::invalid(format!(
                    "Invalid comparison clause. Expected 'Identifier' found '{}'",
                    condition.identifier.show()
                )));
            }
            let clause = rules::clause(noun, condition)?;
            // No rule allows what compares nothing; should one have forgotten to look, it ends here.
            if condition.unknown { Err(comparators::not_one_of(condition, &[])) } else { Ok(clause) }
        })
        .collect()
}

/// How it is said that a filter breaks the grammar.
fn broken(noun: Noun, text: &str, fault: &Fault) -> MlflowError {
    if noun == Noun::LoggedModel {
        return MlflowError::invalid(format!(
            "Invalid filter string: '{text}'. Use comparisons with AND between them, such as metrics.loss > 0.1 AND \
             params.lr = '0.01'"
        ));
    }
    MlflowError::invalid(match fault {
        Fault::Clause(what) => format!("Invalid clause(s) in filter string: '{what}'"),
        Fault::Several => {
            format!("Search filter contained multiple expression '{text}'. Provide AND-ed expression list.")
        }
        Fault::Blank => format!("Invalid filter '{text}'. There is nothing in it."),
    })
}

/// Reads a list of orders about one kind of thing.
///
/// # Errors
/// Where one breaks the grammar, or names something that such things can't be ordered by.
pub(crate) fn orders(noun: Noun, texts: &[String]) -> Result<Vec<Order>, MlflowError> {
    order::orders(noun, texts)
}

/// Reads what logged models are ordered by, which comes as a name.
///
/// # Errors
/// Where they can't be ordered by it.
pub(crate) fn order_field(name: &str) -> Result<Field, MlflowError> {
    logged::ordered_by(name)
}
