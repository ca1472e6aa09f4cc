//! Named, typed, shaped data.

use crate::error::WireError;
use half::{bf16, f16};
use std::fmt;

/// The element types of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// True or false.
    Bool,
    /// 8-bit unsigned integer.
    Uint8,
    /// 16-bit unsigned integer.
    Uint16,
    /// 32-bit unsigned integer.
    Uint32,
    /// 64-bit unsigned integer.
    Uint64,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 16-bit floating point (IEEE 754 binary16).
    Fp16,
    /// 16-bit floating point with the range of 32 bits (bfloat16).
    Bf16,
    /// 32-bit floating point.
    Fp32,
    /// 64-bit floating point.
    Fp64,
    /// Text.
    Bytes,
}

impl Datatype {
    const NAMES: [(Self, &'static str); 14] = [
        (Self::Bool, "BOOL"),
        (Self::Uint8, "UINT8"),
        (Self::Uint16, "UINT16"),
        (Self::Uint32, "UINT32"),
        (Self::Uint64, "UINT64"),
        (Self::Int8, "INT8"),
        (Self::Int16, "INT16"),
        (Self::Int32, "INT32"),
        (Self::Int64, "INT64"),
        (Self::Fp16, "FP16"),
        (Self::Bf16, "BF16"),
        (Self::Fp32, "FP32"),
        (Self::Fp64, "FP64"),
        (Self::Bytes, "BYTES"),
    ];

    /// The protocol's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(d, _)| *d == self).map_or("", |(_, name)| name)
    }

    /// Reads the protocol's name.
    ///
    /// # Errors
    /// Where the name is not one of them.
    pub fn parse(name: &str) -> Result<Self, WireError> {
        if let Some((datatype, _)) = Self::NAMES.iter().find(|(_, n)| *n == name) {
            return Ok(*datatype);
        }
        let known = Self::NAMES.map(|(_, n)| n).join(", ");
        Err(WireError::bad(format!("unknown datatype `{}`; expected one of {known}", shown(name))))
    }

    /// Whether it is one of the floating-point types.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64)
    }

    /// How many bytes an element has in binary form; none for BYTES, whose elements say it themselves.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name from a request, cut to a length that is fit for an error message.
#[must_use]
pub fn shown(name: &str) -> String {
    if name.chars().nth(80).is_none() {
        name.to_owned()
    } else {
        name.chars().take(80).chain("…".chars()).collect()
    }
}

/// The elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// BOOL
    Bool(Vec<bool>),
    /// UINT8
    Uint8(Vec<u8>),
    /// UINT16
    Uint16(Vec<u16>),
    /// UINT32
    Uint32(Vec<u32>),
    /// UINT64
    Uint64(Vec<u64>),
    /// INT8
    Int8(Vec<i8>),
    /// INT16
    Int16(Vec<i16>),
    /// INT32
    Int32(Vec<i32>),
    /// INT64
    Int64(Vec<i64>),
    /// FP16
    Fp16(Vec<f16>),
    /// BF16
    Bf16(Vec<bf16>),
    /// FP32
    Fp32(Vec<f32>),
    /// FP64
    Fp64(Vec<f64>),
    /// BYTES, as text
    Bytes(Vec<String>),
}

/// Runs one expression for whichever vector the data holds.
#[macro_export]
macro_rules! with_elements {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::Data::Bool($values) => $body,
            $crate::Data::Uint8($values) => $body,
            $crate::Data::Uint16($values) => $body,
            $crate::Data::Uint32($values) => $body,
            $crate::Data::Uint64($values) => $body,
            $crate::Data::Int8($values) => $body,
            $crate::Data::Int16($values) => $body,
            $crate::Data::Int32($values) => $body,
            $crate::Data::Int64($values) => $body,
            $crate::Data::Fp16($values) => $body,
            $crate::Data::Bf16($values) => $body,
            $crate::Data::Fp32($values) => $body,
            $crate::Data::Fp64($values) => $body,
            $crate::Data::Bytes($values) => $body,
        }
    };
}

impl Data {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        with_elements!(self, values => values.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Bf16(_) => Datatype::Bf16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// How many elements are NaN or infinite.
    #[must_use]
    pub fn nonfinite(&self) -> usize {
        match self {
            Self::Fp16(values) => values.iter().filter(|v| !v.is_finite()).count(),
            Self::Bf16(values) => values.iter().filter(|v| !v.is_finite()).count(),
            Self::Fp32(values) => values.iter().filter(|v| !v.is_finite()).count(),
            Self::Fp64(values) => values.iter().filter(|v| !v.is_finite()).count(),
            _ => 0,
        }
    }
}

/// A name, a shape, and as many elements as the shape says.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    data: Data,
}

/// How many elements a shape holds; `None` where that overflows.
#[must_use]
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, d| product.checked_mul(*d))
}

impl Tensor {
    /// Puts the parts together.
    ///
    /// # Errors
    /// Where the shape doesn't hold exactly the elements that are there.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: Data) -> Result<Self, WireError> {
        match elements(&shape) {
            Some(n) if n == data.len() => Ok(Self { name: name.into(), shape, data }),
            Some(n) => Err(WireError::bad(format!(
                "the shape {shape:?} holds {n} elements, but data has {}",
                data.len()
            ))),
            None => Err(WireError::bad("the shape holds more elements than can be counted").at("shape")),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The type of the elements.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// The length of the first axis; 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements per row: the product of all axes but the first.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.get(1..).and_then(elements).unwrap_or(1)
    }

    /// Name, shape and elements, without a copy.
    #[must_use]
    pub fn into_parts(self) -> (String, Vec<usize>, Data) {
        (self.name, self.shape, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_hold_its_data_and_may_not_overflow() {
        assert!(Tensor::new("x", vec![2, 2], Data::Fp32(vec![0.0; 4])).is_ok());
        let error = Tensor::new("x", vec![2, 3], Data::Fp32(vec![0.0; 4])).unwrap_err();
        assert!(error.message.contains("6 elements, but data has 4"), "{error}");
        assert!(Tensor::new("x", vec![usize::MAX, 2], Data::Fp32(vec![])).is_err());
        // A zero axis hides no overflow: the product is taken from the left.
        assert!(Tensor::new("x", vec![usize::MAX, 2, 0], Data::Fp32(vec![])).is_err());
        assert!(Tensor::new("x", vec![], Data::Int64(vec![1])).is_ok());
    }

    #[test]
    fn names_round_trip() {
        for (datatype, name) in Datatype::NAMES {
            assert_eq!(Datatype::parse(name).unwrap(), datatype);
            assert_eq!(datatype.as_str(), name);
        }
        assert!(Datatype::parse("fp32").is_err());
    }

    #[test]
    fn nonfinite_counts_nan_and_both_infinities() {
        assert_eq!(Data::Fp64(vec![f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY]).nonfinite(), 3);
        assert_eq!(Data::Int64(vec![i64::MAX]).nonfinite(), 0);
        assert_eq!(Data::Fp16(vec![f16::NAN, f16::INFINITY, f16::MAX]).nonfinite(), 2);
        assert_eq!(Data::Bf16(vec![bf16::NAN, bf16::NEG_INFINITY, bf16::MAX]).nonfinite(), 2);
    }
}
