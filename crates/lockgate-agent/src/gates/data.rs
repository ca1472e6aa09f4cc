//! The `data` gate: the environment's dataset fits the release's feature schema.

use super::dataset::{Dataset, Values};
use super::{Checked, Context};
use crate::AgentError;
use lockgate_core::gate::Outcome;
use lockgate_core::schema::{Column, ColumnType};
use std::collections::BTreeMap;

pub(super) async fn run(context: &Context<'_>, name: &str) -> Result<Checked, AgentError> {
    let schema = &context.release.manifest.feature_schema;
    if schema.inputs.is_empty() {
        return Err(AgentError::Gate("the release's schema names no input columns".to_owned()));
    }
    let data = Dataset::read(context, name).await?;
    if data.rows == 0 {
        return Err(AgentError::Gate(format!("dataset `{name}` has no rows")));
    }
    let problems: Vec<String> = schema.inputs.iter().filter_map(|column| problem(column, &data)).collect();
    let log = match problems.as_slice() {
        [] => format!("{} columns of {} rows fit the schema\n", schema.inputs.len(), data.rows),
        list => format!("{}\n", list.join("\n")),
    };
    let (outcome, summary) = match problems.first() {
        None => (Outcome::Pass, log.trim_end().to_owned()),
        Some(first) if problems.len() == 1 => (Outcome::Fail, first.clone()),
        Some(first) => (Outcome::Fail, format!("{first}, and {} more", problems.len() - 1)),
    };
    let measured = BTreeMap::from([
        ("rows".to_owned(), data.rows as f64),
        ("columns".to_owned(), schema.inputs.len() as f64),
        ("problems".to_owned(), problems.len() as f64),
    ]);
    Ok(Checked { outcome, summary, measured, inputs: vec![data.input()], log: log.into_bytes() })
}

/// What is wrong with one column, as a sentence.
fn problem(column: &Column, data: &Dataset) -> Option<String> {
    let name = &column.name;
    let Ok(values) = data.column(name) else {
        return column.required.then(|| format!("column `{name}` is missing"));
    };
    match (values, column.kind) {
        (Values::Texts(texts), kind) if !kind.is_numeric() => {
            let missing = texts.iter().filter(|t| t.is_none()).count();
            (missing > 0 && column.required).then(|| format!("column `{name}` has {missing} missing values"))
        }
        (Values::Texts(_), kind) => Some(format!("column `{name}` holds text; the model takes {kind:?}")),
        (Values::Numbers(_), kind) if !kind.is_numeric() => {
            Some(format!("column `{name}` holds numbers; the model takes text"))
        }
        (Values::Numbers(numbers), kind) => numbers_problem(column, kind, numbers),
    }
}

fn numbers_problem(column: &Column, kind: ColumnType, numbers: &[Option<f64>]) -> Option<String> {
    let name = &column.name;
    let present = || numbers.iter().flatten();
    let float = matches!(kind, ColumnType::Float | ColumnType::Double);
    let missing = numbers.iter().filter(|n| n.is_none_or(f64::is_nan)).count();
    if missing == numbers.len() {
        return Some(format!("column `{name}` has no values"));
    }
    if missing > 0 && !float {
        return Some(format!("column `{name}` has {missing} missing values; the model takes {kind:?}"));
    }
    if let Some(bad) = present().find(|n| n.is_infinite()) {
        return Some(format!("column `{name}` holds {bad}"));
    }
    if let Some(bad) = present().find(|n| !float && n.fract() != 0.0) {
        return Some(format!("column `{name}` holds {bad}; the model takes {kind:?}"));
    }
    if let Some(bad) = present().find(|n| kind == ColumnType::Boolean && **n != 0.0 && **n != 1.0) {
        return Some(format!("column `{name}` holds {bad}; the model takes true or false"));
    }
    let (low, high) = column.range?;
    let bad = present().find(|n| **n < low || **n > high)?;
    Some(format!("column `{name}` holds {bad}, outside {low} to {high} as in training"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::digest::Digest;

    fn with(values: Values) -> Dataset {
        Dataset {
            name: "d".to_owned(),
            columns: vec![("a".to_owned(), values)],
            rows: 2,
            digest: Digest::of(b""),
        }
    }

    fn column(kind: ColumnType) -> Column {
        Column { name: "a".to_owned(), kind, required: true, range: Some((0.0, 10.0)) }
    }

    #[test]
    fn columns_that_fit_have_no_problem() {
        assert_eq!(problem(&column(ColumnType::Float), &with(Values::Numbers(vec![Some(1.5), None]))), None);
        assert_eq!(
            problem(&column(ColumnType::Long), &with(Values::Numbers(vec![Some(1.0), Some(2.0)]))),
            None
        );
    }

    #[test]
    fn every_kind_of_misfit_is_named() {
        let cases = [
            (ColumnType::Long, Values::Numbers(vec![Some(1.5), Some(2.0)]), "holds 1.5"),
            (ColumnType::Long, Values::Numbers(vec![None, Some(2.0)]), "missing values"),
            (ColumnType::Float, Values::Numbers(vec![None, None]), "no values"),
            (ColumnType::Float, Values::Numbers(vec![Some(11.0), Some(2.0)]), "outside 0 to 10"),
            (ColumnType::Float, Values::Numbers(vec![Some(f64::INFINITY), Some(2.0)]), "holds inf"),
            (ColumnType::Float, Values::Texts(vec![Some("x".to_owned())]), "holds text"),
            (ColumnType::String, Values::Numbers(vec![Some(1.0)]), "takes text"),
            (ColumnType::Boolean, Values::Numbers(vec![Some(2.0)]), "true or false"),
        ];
        for (kind, values, words) in cases {
            let found = problem(&column(kind), &with(values)).unwrap_or_default();
            assert!(found.contains(words), "{kind:?}: `{found}` lacks `{words}`");
        }
        let mut other = column(ColumnType::Float);
        other.name = "b".to_owned();
        assert!(
            problem(&other, &with(Values::Numbers(vec![Some(1.0)])))
                .unwrap_or_default()
                .contains("is missing")
        );
    }
}
