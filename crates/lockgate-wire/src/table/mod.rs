//! The mapping between named columns and a model's tensor inputs.

mod cell;
mod column;
mod convert;
mod plan;

pub use cell::{Array, Cell, Payload, Table};
pub use column::{ColumnKind, ColumnSpec};
pub use plan::{MISSING, Plan};
