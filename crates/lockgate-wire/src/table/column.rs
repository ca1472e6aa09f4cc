//! The columns of a schema.

use crate::tensor::Datatype;

/// The type of a column, after MLflow's signature types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// True or false.
    Boolean,
    /// 32-bit signed integer.
    Integer,
    /// 64-bit signed integer.
    Long,
    /// 32-bit floating point.
    Float,
    /// 64-bit floating point.
    Double,
    /// Text.
    String,
    /// A moment, as text.
    Datetime,
    /// Bytes, as base64 text.
    Binary,
}

impl ColumnKind {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::String => "string",
            Self::Datetime => "datetime (text, ISO 8601)",
            Self::Binary => "binary (base64 text)",
        }
    }

    /// Whether a graph's input of this type can take such a column without a loss of meaning.
    pub(super) fn fits(self, datatype: Datatype) -> bool {
        match self {
            Self::String | Self::Datetime | Self::Binary => datatype == Datatype::Bytes,
            Self::Float | Self::Double => datatype.is_float(),
            Self::Integer | Self::Long => !matches!(datatype, Datatype::Bytes | Datatype::Bool),
            Self::Boolean => datatype != Datatype::Bytes,
        }
    }

    /// Whether its values are written as text.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::String | Self::Datetime | Self::Binary)
    }

    pub(super) fn of(datatype: Datatype) -> Self {
        match datatype {
            Datatype::Bool => Self::Boolean,
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => Self::Float,
            Datatype::Fp64 => Self::Double,
            Datatype::Bytes => Self::String,
            _ => Self::Long,
        }
    }
}

/// One column of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnKind,
    /// Whether a request must carry it. A float column that is left out is a missing value (NaN).
    pub required: bool,
}
