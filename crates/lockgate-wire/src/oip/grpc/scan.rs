//! Protobuf's wire format, as far as one must look before decoding.

use crate::error::WireError;
use crate::json::Limits;

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// The fields of one message, in order.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (i, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(i * 7).ok()?).unwrap_or(0);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(i + 1..)?;
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn one(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => self.varint().map(|_| Value::Number)?,
            1 => self.take(8).map(|_| Value::Number)?,
            5 => self.take(4).map(|_| Value::Number)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            // Groups, which no message of ours has.
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let one = self.one();
        if one.is_none() {
            self.0 = &[];
        }
        Some(one.ok_or_else(damaged))
    }
}

pub(super) fn damaged() -> WireError {
    WireError::bad("the message is no valid protobuf")
}

/// Most parameters of a request or a tensor.
const PARAMETERS_MAX: usize = 256;
/// Most bytes that a packed shape takes: eight axes of ten bytes each.
const SHAPE_MAX: usize = 80;

struct Budget<'a> {
    limits: &'a Limits,
    elements: usize,
}

impl Budget<'_> {
    fn spend(&mut self, count: usize) -> Result<(), WireError> {
        self.elements = self.elements.checked_sub(count).ok_or_else(|| {
            WireError::too_large(format!(
                "the message holds more than {} elements; send fewer rows at a time",
                self.limits.max_elements
            ))
        })?;
        Ok(())
    }
}

/// Checks that a request doesn't become larger in memory than limits allow.
pub(super) fn check_request(message: &[u8], limits: &Limits) -> Result<(), WireError> {
    check(message, limits, |output| {
        let parameters = Fields::of(output).filter(|f| matches!(f, Ok((2, _)))).count();
        few(parameters)
    })
}

/// The same for a response, where field 6 holds raw bytes instead of messages.
pub(super) fn check_response(message: &[u8], limits: &Limits) -> Result<(), WireError> {
    check(message, limits, |_| Ok(()))
}

fn check(
    message: &[u8],
    limits: &Limits,
    six: impl Fn(&[u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut budget = Budget { limits, elements: limits.max_elements };
    let (mut names, mut parameters) = (0_usize, 0_usize);
    for field in Fields::of(message) {
        match field? {
            (4, _) => parameters += 1,
            (5, Value::Bytes(tensor)) => {
                names += 1;
                check_tensor(tensor, &mut budget)?;
            }
            (6, Value::Bytes(value)) => {
                names += 1;
                six(value)?;
            }
            (7, _) => names += 1,
            _ => {}
        }
        // Inputs, outputs and raw contents each have a place.
        if names > limits.max_names.saturating_mul(3) {
            return Err(WireError::too_large(format!("there are more than {} tensors", limits.max_names)));
        }
    }
    few(parameters)
}

fn few(parameters: usize) -> Result<(), WireError> {
    if parameters > PARAMETERS_MAX {
        return Err(WireError::bad(format!("there are more than {PARAMETERS_MAX} parameters")));
    }
    Ok(())
}

fn check_tensor(tensor: &[u8], budget: &mut Budget<'_>) -> Result<(), WireError> {
    let (mut axes, mut parameters) = (0, 0);
    for field in Fields::of(tensor) {
        match field? {
            (3, Value::Number) => axes += 1,
            (3, Value::Bytes(packed)) => axes += packed.len(),
            (4, _) => parameters += 1,
            (5, Value::Bytes(contents)) => check_contents(contents, budget)?,
            _ => {}
        }
    }
    if axes > SHAPE_MAX {
        return Err(WireError::bad("a shape has at most eight axes"));
    }
    few(parameters)
}

fn check_contents(contents: &[u8], budget: &mut Budget<'_>) -> Result<(), WireError> {
    for field in Fields::of(contents) {
        let count = match field? {
            (1..=5, Value::Bytes(packed)) => packed.iter().filter(|b| **b < 0x80).count(),
            (6, Value::Bytes(packed)) => packed.len() / 4,
            (7, Value::Bytes(packed)) => packed.len() / 8,
            _ => 1,
        };
        budget.spend(count)?;
    }
    Ok(())
}
