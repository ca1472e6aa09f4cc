//! Parameters: a string, a number or a boolean by name.

use crate::error::WireError;
use crate::json::{Scanner, write};
use crate::tensor::shown;

/// The value of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
}

/// Reads `{"name": value}`.
pub(super) fn read(scanner: &mut Scanner<'_>) -> Result<Vec<(String, Parameter)>, WireError> {
    let mut found: Vec<(String, Parameter)> = Vec::new();
    scanner.object("an object of parameters", |s, key| {
        let value = match s.peek() {
            Some(b'"') => Parameter::Text(s.string("a string")?.into_owned()),
            Some(b't' | b'f') => Parameter::Bool(s.boolean()?),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => match s.number()? {
                Ok(whole) => Parameter::Integer(whole),
                Err(float) => Parameter::Float(float),
            },
            _ => return Err(s.unexpected("a string, a number or a boolean").at(&shown(&key))),
        };
        if found.len() >= 256 {
            return Err(WireError::bad("there are more than 256 parameters"));
        }
        if found.iter().any(|(name, _)| *name == key) {
            return Err(WireError::bad("this parameter is given twice").at(&shown(&key)));
        }
        found.push((key.into_owned(), value));
        Ok(())
    })?;
    Ok(found)
}

/// Writes `,"parameters":{...}`, or nothing where there are none.
pub(super) fn write_member(out: &mut Vec<u8>, parameters: &[(String, Parameter)]) {
    if parameters.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"parameters\":{");
    for (i, (name, value)) in parameters.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write::string(out, name);
        out.push(b':');
        match value {
            Parameter::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
            Parameter::Integer(v) => write::integer(out, *v),
            Parameter::Float(v) => write::f64(out, *v),
            Parameter::Text(v) => write::string(out, v),
        }
    }
    out.push(b'}');
}

/// Refuses what only the binary tensor extension could answer.
pub(super) fn refuse_binary(parameters: &[(String, Parameter)]) -> Result<(), WireError> {
    let asked = parameters.iter().any(|(name, value)| match name.as_str() {
        "binary_data_size" => true,
        "binary_data" | "binary_data_output" => *value == Parameter::Bool(true),
        _ => false,
    });
    if asked { Err(super::binary_refused()) } else { Ok(()) }
}
