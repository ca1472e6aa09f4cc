//! Cells to typed elements: nothing is lost on the way, or it is an error.

use super::cell::Cell;
use super::column::ColumnKind;
use crate::error::WireError;
use crate::tensor::{Data, Datatype};
use half::{bf16, f16};

/// How cells become elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// What the schema says.
    pub(super) kind: ColumnKind,
    /// What the graph takes.
    pub(super) datatype: Datatype,
    /// Whether numbers may be read from text.
    pub(super) from_text: bool,
}

/// An empty vector of the type, with room.
pub(super) fn empty(datatype: Datatype, room: usize) -> Data {
    match datatype {
        Datatype::Bool => Data::Bool(Vec::with_capacity(room)),
        Datatype::Uint8 => Data::Uint8(Vec::with_capacity(room)),
        Datatype::Uint16 => Data::Uint16(Vec::with_capacity(room)),
        Datatype::Uint32 => Data::Uint32(Vec::with_capacity(room)),
        Datatype::Uint64 => Data::Uint64(Vec::with_capacity(room)),
        Datatype::Int8 => Data::Int8(Vec::with_capacity(room)),
        Datatype::Int16 => Data::Int16(Vec::with_capacity(room)),
        Datatype::Int32 => Data::Int32(Vec::with_capacity(room)),
        Datatype::Int64 => Data::Int64(Vec::with_capacity(room)),
        Datatype::Fp16 => Data::Fp16(Vec::with_capacity(room)),
        Datatype::Bf16 => Data::Bf16(Vec::with_capacity(room)),
        Datatype::Fp32 => Data::Fp32(Vec::with_capacity(room)),
        Datatype::Fp64 => Data::Fp64(Vec::with_capacity(room)),
        Datatype::Bytes => Data::Bytes(Vec::with_capacity(room)),
    }
}

/// Appends one cell.
pub(super) fn push(out: &mut Data, cell: &Cell, rule: Rule) -> Result<(), WireError> {
    match out {
        Data::Bool(v) => v.push(boolean(cell, rule)?),
        Data::Uint8(v) => v.push(whole(cell, rule)?),
        Data::Uint16(v) => v.push(whole(cell, rule)?),
        Data::Uint32(v) => v.push(whole(cell, rule)?),
        Data::Uint64(v) => v.push(whole(cell, rule)?),
        Data::Int8(v) => v.push(whole(cell, rule)?),
        Data::Int16(v) => v.push(whole(cell, rule)?),
        Data::Int32(v) => v.push(whole(cell, rule)?),
        Data::Int64(v) => v.push(whole(cell, rule)?),
        Data::Fp16(v) => v.push(half(real(cell, rule)?, f16::from_f64, |v| v.is_finite(), rule)?),
        Data::Bf16(v) => v.push(half(real(cell, rule)?, bf16::from_f64, |v| v.is_finite(), rule)?),
        Data::Fp32(v) => v.push(single(real(cell, rule)?)?),
        Data::Fp64(v) => v.push(real(cell, rule)?),
        Data::Bytes(v) => v.push(text(cell, rule)?),
    }
    Ok(())
}

fn wrong(cell: &Cell, rule: Rule) -> WireError {
    let found = match cell {
        Cell::Null => {
            return WireError::bad(format!(
                "null (a missing value) where {} was expected",
                rule.kind.as_str()
            ));
        }
        Cell::Bool(_) => "a boolean",
        Cell::Integer(_) => "an integer",
        Cell::Float(v) if v.is_nan() => "NaN (a missing value)",
        Cell::Float(_) => "a number with a fraction",
        Cell::Text(_) => "text",
    };
    WireError::bad(format!("{found} where {} was expected", rule.kind.as_str()))
}

fn boolean(cell: &Cell, rule: Rule) -> Result<bool, WireError> {
    match cell {
        Cell::Bool(value) => Ok(*value),
        Cell::Text(t) if rule.from_text && t.eq_ignore_ascii_case("true") => Ok(true),
        Cell::Text(t) if rule.from_text && t.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(wrong(cell, rule)),
    }
}

fn integer(cell: &Cell, rule: Rule) -> Result<i64, WireError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match cell {
        _ if rule.kind == ColumnKind::Boolean => boolean(cell, rule).map(i64::from),
        Cell::Integer(value) => Ok(*value),
        // JavaScript and pandas write whole numbers as 1.0.
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53: exact")]
        Cell::Float(v) if v.fract() == 0.0 && v.abs() <= EXACT => Ok(*v as i64),
        Cell::Text(t) if rule.from_text => t.trim().parse().map_err(|_| wrong(cell, rule)),
        _ => Err(wrong(cell, rule)),
    }
}

fn whole<T: TryFrom<i64>>(cell: &Cell, rule: Rule) -> Result<T, WireError> {
    let value = ranged(integer(cell, rule)?, rule)?;
    T::try_from(value)
        .map_err(|_| WireError::bad(format!("{value} is out of the range of {}", rule.datatype)))
}

fn ranged(value: i64, rule: Rule) -> Result<i64, WireError> {
    if rule.kind == ColumnKind::Integer && i32::try_from(value).is_err() {
        return Err(WireError::bad(format!("{value} is out of the range of a 32-bit integer")));
    }
    Ok(value)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a model that takes floats gets integers as the nearest float"
)]
fn real(cell: &Cell, rule: Rule) -> Result<f64, WireError> {
    if !matches!(rule.kind, ColumnKind::Float | ColumnKind::Double) {
        return Ok(ranged(integer(cell, rule)?, rule)? as f64);
    }
    match cell {
        Cell::Null => Ok(f64::NAN),
        Cell::Integer(value) => Ok(*value as f64),
        Cell::Float(value) => Ok(*value),
        Cell::Text(t) if rule.from_text => {
            let t = t.trim();
            let digits = t.bytes().any(|b| b.is_ascii_digit());
            let named = matches!(t.trim_start_matches('-'), "NaN" | "nan" | "inf" | "Infinity");
            let value: f64 = t.parse().map_err(|_| wrong(cell, rule))?;
            if named || (digits && value.is_finite()) { Ok(value) } else { Err(wrong(cell, rule)) }
        }
        _ => Err(wrong(cell, rule)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what doesn't fit is refused below")]
fn single(value: f64) -> Result<f32, WireError> {
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() {
        return Err(WireError::bad(format!("{value} is out of the range of FP32")));
    }
    Ok(narrow)
}

fn half<T>(
    value: f64,
    narrow: impl Fn(f64) -> T,
    finite: impl Fn(&T) -> bool,
    rule: Rule,
) -> Result<T, WireError> {
    let narrow = narrow(value);
    if value.is_finite() && !finite(&narrow) {
        return Err(WireError::bad(format!("{value} is out of the range of {}", rule.datatype)));
    }
    Ok(narrow)
}

fn text(cell: &Cell, rule: Rule) -> Result<String, WireError> {
    match cell {
        Cell::Text(value) => Ok(value.clone()),
        _ => Err(wrong(cell, rule)),
    }
}
