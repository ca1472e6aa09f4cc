//! A row of an answer, and its columns as values.

use crate::error::StoreError;
use crate::query::Value;
use std::sync::Arc;

/// A row of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    names: Arc<[String]>,
    values: Vec<Value>,
}

/// What a column can be read as.
pub(crate) trait Column: Sized {
    /// What was expected, for people.
    const EXPECTED: &'static str;

    /// The value, where it is one.
    fn of(value: &Value) -> Option<Self>;
}

impl Column for String {
    const EXPECTED: &'static str = "text";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Column for i64 {
    const EXPECTED: &'static str = "integer";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl Column for f64 {
    const EXPECTED: &'static str = "number";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Real(number) => Some(*number),
            _ => None,
        }
    }
}

impl<T: Column> Column for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null(_) => Some(None),
            value => T::of(value).map(Some),
        }
    }
}

impl Row {
    pub(crate) fn new(names: &Arc<[String]>, values: Vec<Value>) -> Self {
        Self { names: Arc::clone(names), values }
    }

    /// The value of a column by its name.
    pub(crate) fn get<T: Column>(&self, name: &str) -> Result<T, StoreError> {
        match self.names.iter().position(|known| known == name) {
            Some(at) => self.at(at),
            None => Err(wrong::<T>(name, "no such column".to_owned())),
        }
    }

    /// The value of a column by its place, from 0.
    pub(crate) fn at<T: Column>(&self, place: usize) -> Result<T, StoreError> {
        let name = self.names.get(place).map_or("", String::as_str);
        let value = self.values.get(place).ok_or_else(|| wrong::<T>(name, "no such column".to_owned()))?;
        T::of(value).ok_or_else(|| {
            let found = match value {
                Value::Null(_) => "nothing".to_owned(),
                Value::Int(number) => format!("the integer {number}"),
                Value::Real(number) => format!("the number {number}"),
                Value::Text(text) => format!("a text of {} bytes", text.len()),
            };
            wrong::<T>(name, found)
        })
    }
}

fn wrong<T: Column>(column: &str, found: String) -> StoreError {
    StoreError::Value { column: column.to_owned(), found, expected: T::EXPECTED }
}

/// A TEXT column.
pub(crate) fn text(row: &Row, name: &str) -> Result<String, StoreError> {
    row.get(name)
}

/// A BIGINT column.
pub(crate) fn int(row: &Row, name: &str) -> Result<i64, StoreError> {
    row.get(name)
}

/// A TEXT column that may be NULL.
pub(crate) fn opt_text(row: &Row, name: &str) -> Result<Option<String>, StoreError> {
    row.get(name)
}

/// A BIGINT column that may be NULL.
pub(crate) fn opt_int(row: &Row, name: &str) -> Result<Option<i64>, StoreError> {
    row.get(name)
}

/// A DOUBLE PRECISION column.
pub(crate) fn real(row: &Row, name: &str) -> Result<f64, StoreError> {
    row.get(name)
}

/// A BIGINT column that counts: never negative.
pub(crate) fn count(row: &Row, name: &str) -> Result<u64, StoreError> {
    let found = int(row, name)?;
    u64::try_from(found).map_err(|_| StoreError::Value {
        column: name.to_owned(),
        found: found.to_string(),
        expected: "number from 0",
    })
}

/// A TEXT column that is parsed.
pub(crate) fn parsed<T: std::str::FromStr>(
    row: &Row,
    name: &str,
    expected: &'static str,
) -> Result<T, StoreError> {
    let found = text(row, name)?;
    found.parse().map_err(|_| StoreError::Value { column: name.to_owned(), found: found.clone(), expected })
}

/// A number as the engines store it.
pub(crate) fn signed(what: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Invalid { what, why: format!("{number} is too large") })
}
