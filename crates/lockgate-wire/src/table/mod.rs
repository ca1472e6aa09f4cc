//! The mapping between named columns and a model's tensor inputs.

mod cell;
mod convert;
mod plan;

pub use cell::{Array, Cell, Payload, Table};
pub use plan::{ColumnKind, ColumnSpec, MISSING, Plan};
