//! JSON as the inference protocols write it: numbers fast, `NaN` and `Infinity` tokens allowed where numbers are,
//! strict about everything else.

mod array;
mod finite;
mod scan;
mod text;
pub mod write;

pub use finite::{Nonfinite, nonfinite};
pub use scan::{Integer, Scanner};

/// What one body may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Elements of all tensors, cells of all rows, together.
    pub max_elements: usize,
    /// How deep arrays and objects may be nested.
    pub max_depth: usize,
    /// Tensors in one request, columns in one table.
    pub max_names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_elements: 16 * 1024 * 1024, max_depth: 16, max_names: 16 * 1024 }
    }
}
