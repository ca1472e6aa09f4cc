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

/// The number that `binary_data_size` gives, where it is there.
pub(super) fn binary_size(parameters: &[(String, Parameter)]) -> Result<Option<usize>, WireError> {
    match find(parameters, "binary_data_size") {
        None => Ok(None),
        Some(Parameter::Integer(size)) if *size >= 0 => usize::try_from(*size)
            .map(Some)
            .map_err(|_| WireError::bad("the size is too large").at("binary_data_size")),
        Some(_) => {
            Err(WireError::bad("a whole number of bytes, 0 or more, was expected").at("binary_data_size"))
        }
    }
}

/// The switch `name`, where it is there.
pub(super) fn switch(parameters: &[(String, Parameter)], name: &str) -> Result<Option<bool>, WireError> {
    match find(parameters, name) {
        None => Ok(None),
        Some(Parameter::Bool(on)) => Ok(Some(*on)),
        Some(_) => Err(WireError::bad("true or false was expected").at(name)),
    }
}

fn find<'a>(parameters: &'a [(String, Parameter)], name: &str) -> Option<&'a Parameter> {
    parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// Refuses what a tensor's parameters may ask for in Triton, and what would change the answer's meaning if it were
/// passed over.
pub(super) fn refuse_elsewhere(parameters: &[(String, Parameter)]) -> Result<(), WireError> {
    let shared = parameters.iter().find(|(name, _)| name.starts_with("shared_memory_"));
    if let Some((name, _)) = shared {
        let message = "this server has no shared memory with its clients; send the tensor in the body";
        return Err(WireError::bad(message).at(name));
    }
    match find(parameters, "classification") {
        None | Some(Parameter::Integer(0)) => Ok(()),
        Some(_) => {
            let message = "this server doesn't sort outputs into classes; ask for the output itself";
            Err(WireError::bad(message).at("classification"))
        }
    }
}
