//! Which comparators go with what, and how it is said that one doesn't.

use super::parser::Condition;
use crate::error::MlflowError;
use lockgate_control::tracking::Comparator::{
    self, Eq, Ge, Gt, Ilike, In, IsNotNull, IsNull, Le, Like, Lt, Ne, NotIn, Rlike,
};

pub(super) const NUMERIC: &[Comparator] = &[Lt, Le, Gt, Ge, Eq, Ne];
pub(super) const PATTERNS: &[Comparator] = &[Eq, Ne, Like, Ilike];
pub(super) const PATTERNS_ONLY: &[Comparator] = &[Ilike, Like];
pub(super) const PATTERNS_AND_LISTS: &[Comparator] = &[Eq, Ne, Like, Ilike, In, NotIn];
pub(super) const PATTERNS_AND_NULL: &[Comparator] = &[Eq, Ne, Like, Ilike, IsNull, IsNotNull];
pub(super) const EQUALITY_AND_LISTS: &[Comparator] = &[Eq, Ne, In, NotIn];

/// A comparator as it is written.
const fn name(comparator: Comparator) -> &'static str {
    match comparator {
        Eq => "=",
        // What is lacking is asked for with `!=`.
        Ne | Comparator::Lacks => "!=",
        Lt => "<",
        Le => "<=",
        Gt => ">",
        Ge => ">=",
        Like => "LIKE",
        Ilike => "ILIKE",
        Rlike => "RLIKE",
        In => "IN",
        NotIn => "NOT IN",
        IsNull => "IS NULL",
        IsNotNull => "IS NOT NULL",
    }
}

/// Comparators with commas between them.
pub(super) fn names(comparators: &[Comparator]) -> String {
    let all: Vec<String> = comparators.iter().map(|one| format!("'{}'", name(*one))).collect();
    all.join(", ")
}

/// Whether a condition compares with one of these.
pub(super) fn is_one_of(condition: &Condition, comparators: &[Comparator]) -> bool {
    !condition.unknown && comparators.contains(&condition.comparator)
}

pub(super) fn not_one_of(condition: &Condition, comparators: &[Comparator]) -> MlflowError {
    MlflowError::invalid(format!(
        "Invalid comparator '{}' not one of '{{{}}}'",
        condition.written,
        names(comparators)
    ))
}

fn check(
    condition: &Condition,
    comparators: &[Comparator],
    wrong: impl FnOnce() -> MlflowError,
) -> Result<(), MlflowError> {
    if is_one_of(condition, comparators) { Ok(()) } else { Err(wrong()) }
}

/// Checks a comparator; what is wrong is said with those that there are.
pub(super) fn allowed(condition: &Condition, comparators: &[Comparator]) -> Result<(), MlflowError> {
    check(condition, comparators, || not_one_of(condition, comparators))
}

/// The same, said with what it is for.
pub(super) fn allowed_for(
    what: &str,
    condition: &Condition,
    comparators: &[Comparator],
) -> Result<(), MlflowError> {
    check(condition, comparators, || {
        MlflowError::invalid(format!("Invalid comparator for {what}: {}", condition.written))
    })
}

/// The same for a part of a trace, said with its name.
pub(super) fn allowed_of(
    part: &str,
    condition: &Condition,
    comparators: &[Comparator],
) -> Result<(), MlflowError> {
    check(condition, comparators, || {
        let (key, written) = (&condition.identifier.key, &condition.written);
        MlflowError::invalid(format!(
            "{part}.{key} comparator '{written}' not one of '{{{}}}'",
            names(comparators)
        ))
    })
}
