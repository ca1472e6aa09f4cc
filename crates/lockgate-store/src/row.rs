//! Answers: their rows, and columns as values.

use crate::error::StoreError;
use std::ops::Range;
use std::sync::Arc;

/// All rows of an answer. Their texts lie in one: answers of tens of thousands of rows are common.
#[derive(Debug)]
pub(crate) struct Answer {
    names: Vec<String>,
    cells: Vec<Cell>,
    text: String,
}

#[derive(Debug)]
enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(Range<usize>),
}

impl Answer {
    /// One without rows, with these columns.
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { names, cells: Vec::new(), text: String::new() }
    }

    /// How many columns there are.
    pub(crate) fn width(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn null(&mut self) {
        self.cells.push(Cell::Null);
    }

    pub(crate) fn int(&mut self, number: i64) {
        self.cells.push(Cell::Int(number));
    }

    pub(crate) fn real(&mut self, number: f64) {
        self.cells.push(Cell::Real(number));
    }

    pub(crate) fn text(&mut self, text: &str) {
        let from = self.text.len();
        self.text.push_str(text);
        self.cells.push(Cell::Text(from..self.text.len()));
    }

    /// The rows, of which each has all its columns.
    pub(crate) fn rows(self) -> Vec<Row> {
        let (width, count) = (self.width(), self.cells.len());
        let answer = Arc::new(self);
        (0..count).step_by(width.max(1)).map(|first| Row { answer: Arc::clone(&answer), first }).collect()
    }
}

/// A row of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    answer: Arc<Answer>,
    first: usize,
}

/// What a column can be read as.
pub(crate) trait Column<'r>: Sized {
    /// What was expected, for people.
    const EXPECTED: &'static str;

    /// The value, where it is one.
    fn of(found: &Found<'r>) -> Option<Self>;
}

/// What was found in a column.
pub(crate) enum Found<'r> {
    Null,
    Int(i64),
    Real(f64),
    Text(&'r str),
}

impl<'r> Column<'r> for &'r str {
    const EXPECTED: &'static str = "text";

    fn of(found: &Found<'r>) -> Option<Self> {
        match found {
            Found::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'r> Column<'r> for String {
    const EXPECTED: &'static str = "text";

    fn of(found: &Found<'r>) -> Option<Self> {
        <&str>::of(found).map(str::to_owned)
    }
}

impl<'r> Column<'r> for i64 {
    const EXPECTED: &'static str = "integer";

    fn of(found: &Found<'r>) -> Option<Self> {
        match found {
            Found::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'r> Column<'r> for f64 {
    const EXPECTED: &'static str = "number";

    fn of(found: &Found<'r>) -> Option<Self> {
        match found {
            Found::Real(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn of(found: &Found<'r>) -> Option<Self> {
        match found {
            Found::Null => Some(None),
            found => T::of(found).map(Some),
        }
    }
}

impl Row {
    /// The value of a column by its name.
    pub(crate) fn get<'r, T: Column<'r>>(&'r self, name: &str) -> Result<T, StoreError> {
        match self.answer.names.iter().position(|known| known == name) {
            Some(at) => self.at(at),
            None => Err(wrong::<T>(name, "no such column".to_owned())),
        }
    }

    /// The value of a column by its place, from 0.
    pub(crate) fn at<'r, T: Column<'r>>(&'r self, place: usize) -> Result<T, StoreError> {
        let name = self.answer.names.get(place).map_or("", String::as_str);
        let found = match self.answer.cells.get(self.first + place) {
            Some(Cell::Int(number)) => Found::Int(*number),
            Some(Cell::Real(number)) => Found::Real(*number),
            Some(Cell::Text(range)) => Found::Text(self.answer.text.get(range.clone()).unwrap_or_default()),
            Some(Cell::Null) => Found::Null,
            None => return Err(wrong::<T>(name, "no such column".to_owned())),
        };
        T::of(&found).ok_or_else(|| {
            let found = match found {
                Found::Null => "nothing".to_owned(),
                Found::Int(number) => format!("the integer {number}"),
                Found::Real(number) => format!("the number {number}"),
                Found::Text(text) => format!("a text of {} bytes", text.len()),
            };
            wrong::<T>(name, found)
        })
    }
}

fn wrong<'r, T: Column<'r>>(column: &str, found: String) -> StoreError {
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
