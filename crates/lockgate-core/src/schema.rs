//! The feature schema: names, types and ranges of a model's inputs and outputs.

use serde::{Deserialize, Serialize};

/// The type of one column or tensor, after MLflow's signature types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
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
    /// A moment, as text (ISO 8601). Python flavours only.
    Datetime,
    /// Bytes, as base64 text. Python flavours only.
    Binary,
}

impl ColumnType {
    /// Whether values are numbers.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        !matches!(self, Self::String | Self::Datetime | Self::Binary)
    }
}

/// One named column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether a request must carry it.
    #[serde(default = "yes")]
    pub required: bool,
    /// Smallest and largest value seen in training, where known (numbers only).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<(f64, f64)>,
}

fn yes() -> bool {
    true
}

/// Names, types and ranges of a model's inputs and outputs, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FeatureSchema {
    /// What a request carries, one row of it.
    pub inputs: Vec<Column>,
    /// What an answer carries, one row of it.
    #[serde(default)]
    pub outputs: Vec<Column>,
}

impl FeatureSchema {
    /// How `newer` differs from this schema, one sentence a difference; empty where they accept the same rows.
    #[must_use]
    pub fn differences(&self, newer: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, old, new) in
            [("input", &self.inputs, &newer.inputs), ("output", &self.outputs, &newer.outputs)]
        {
            for column in old {
                match new.iter().find(|c| c.name == column.name) {
                    None => found.push(format!("{what} `{}` is gone", column.name)),
                    Some(c) if c.kind != column.kind => {
                        found.push(format!(
                            "{what} `{}` changed from {:?} to {:?}",
                            column.name, column.kind, c.kind
                        ));
                    }
                    Some(_) => {}
                }
            }
            for column in new.iter().filter(|c| !old.iter().any(|o| o.name == c.name)) {
                found.push(format!("{what} `{}` is new", column.name));
            }
        }
        found
    }
}
