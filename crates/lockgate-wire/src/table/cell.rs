//! Rows of cells, and arrays of cells, before anybody knows their types.

use crate::error::WireError;
use crate::json::Scanner;
use crate::tensor::{Data, Tensor, shown};

/// One value as a request wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// `null`, or an empty CSV cell.
    Null,
    /// True or false.
    Bool(bool),
    /// A number without fraction that fits 64 bits.
    Integer(i64),
    /// Any other number, NaN and infinities among them.
    Float(f64),
    /// Text.
    Text(String),
}

impl Cell {
    /// Reads one value.
    pub(crate) fn read(s: &mut Scanner<'_>) -> Result<Self, WireError> {
        Ok(match s.peek() {
            Some(b'"') => Self::Text(s.string("a string")?.into_owned()),
            Some(b't' | b'f') => Self::Bool(s.boolean()?),
            Some(b'n') if s.accept_word("null") => Self::Null,
            Some(b'[' | b'{') => return Err(s.unexpected("a single value")),
            _ => match s.number()? {
                Ok(whole) => Self::Integer(whole),
                Err(float) => Self::Float(float),
            },
        })
    }
}

/// Rows of equal width, row-major, with or without column names.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Option<Vec<String>>,
    width: usize,
    rows: usize,
    cells: Vec<Cell>,
    from_text: bool,
}

impl Table {
    /// Puts rows together. `width` is `None` where no row says it.
    ///
    /// # Errors
    /// Where names and width differ, a name is there twice, or there are no rows.
    pub fn new(
        names: Option<Vec<String>>,
        width: Option<usize>,
        rows: usize,
        cells: Vec<Cell>,
    ) -> Result<Self, WireError> {
        if rows == 0 {
            return Err(WireError::bad("there are no rows"));
        }
        let width = width.unwrap_or(0);
        if width == 0 {
            return Err(WireError::bad("the rows have no columns"));
        }
        if rows.checked_mul(width) != Some(cells.len()) {
            return Err(WireError::bad("the rows have different lengths"));
        }
        if let Some(names) = &names {
            if names.len() != width {
                return Err(WireError::bad(format!(
                    "there are {} column names, but a row has {width} values",
                    names.len()
                )));
            }
            let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
            sorted.sort_unstable();
            if let Some(twice) =
                sorted.windows(2).find_map(|w| if w.first() == w.last() { w.first() } else { None })
            {
                return Err(WireError::bad("this column is given twice").at(&shown(twice)));
            }
        }
        Ok(Self { names, width, rows, cells, from_text: false })
    }

    /// Marks the cells as text that numbers may be read from (CSV).
    #[must_use]
    pub(crate) fn mark_from_text(mut self) -> Self {
        self.from_text = true;
        self
    }

    /// Whether numbers may be read from text.
    pub(super) fn is_from_text(&self) -> bool {
        self.from_text
    }

    /// The columns' names.
    #[must_use]
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One cell.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Option<&Cell> {
        if column < self.width {
            self.cells.get(row.checked_mul(self.width)?.checked_add(column)?)
        } else {
            None
        }
    }

    /// The cells of one column.
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = &Cell> {
        self.cells.iter().skip(column).step_by(self.width.max(1))
    }

    /// The rows, each a slice.
    pub(super) fn each_row(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks_exact(self.width.max(1))
    }
}

/// An array of any shape, named where it is one of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its name.
    pub name: Option<String>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub cells: Vec<Cell>,
}

impl Array {
    /// The cells of a tensor.
    pub(super) fn of_tensor(tensor: &Tensor) -> Self {
        let cells = match tensor.data() {
            Data::Bool(v) => v.iter().map(|x| Cell::Bool(*x)).collect(),
            Data::Uint8(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Uint16(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Uint32(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Uint64(v) => {
                v.iter().map(|x| i64::try_from(*x).map_or(Cell::Float(*x as f64), Cell::Integer)).collect()
            }
            Data::Int8(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Int16(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Int32(v) => v.iter().map(|x| Cell::Integer(i64::from(*x))).collect(),
            Data::Int64(v) => v.iter().map(|x| Cell::Integer(*x)).collect(),
            Data::Fp16(v) => v.iter().map(|x| Cell::Float(x.to_f64())).collect(),
            Data::Bf16(v) => v.iter().map(|x| Cell::Float(x.to_f64())).collect(),
            Data::Fp32(v) => v.iter().map(|x| Cell::Float(f64::from(*x))).collect(),
            Data::Fp64(v) => v.iter().map(|x| Cell::Float(*x)).collect(),
            Data::Bytes(v) => v.iter().map(|x| Cell::Text(x.clone())).collect(),
        };
        Self { name: Some(tensor.name().to_owned()), shape: tensor.shape().to_vec(), cells }
    }
}

/// What a request carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Rows.
    Table(Table),
    /// Arrays; one without a name, or several with.
    Arrays(Vec<Array>),
}
