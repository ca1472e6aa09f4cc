//! The inference response.

use super::binary::{self, Tail};
use super::parameter::{self, Parameter};
use super::{once, tensor};
use crate::error::WireError;
use crate::json::{Limits, Scanner, write};
use crate::tensor::Tensor;

/// A response that was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// Its version.
    pub model_version: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// Parameters of the response.
    pub parameters: Vec<(String, Parameter)>,
    /// The outputs.
    pub outputs: Vec<Tensor>,
}

/// What a response says beside its tensors.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseHead<'a> {
    /// The model that answers.
    pub model_name: &'a str,
    /// Its version.
    pub model_version: Option<&'a str>,
    /// The request's id.
    pub id: Option<&'a str>,
    /// Parameters of the response.
    pub parameters: &'a [(String, Parameter)],
}

/// Writes a response; non-finite floats become `NaN`, `Infinity`, `-Infinity`.
#[must_use]
pub fn write_response(head: &ResponseHead<'_>, outputs: &[Tensor]) -> Vec<u8> {
    let elements: usize = outputs.iter().map(|t| t.data().len()).sum();
    let mut out = Vec::with_capacity(elements.saturating_mul(12).saturating_add(256));
    write_head(&mut out, head);
    write::list(&mut out, outputs, tensor::write);
    out.push(b'}');
    out
}

/// Writes a response with the outputs that `is_binary` names in binary form behind the JSON. Gives the JSON's length too.
#[must_use]
pub fn write_binary_response(
    head: &ResponseHead<'_>,
    outputs: &[Tensor],
    is_binary: impl Fn(&Tensor) -> bool,
) -> (Vec<u8>, usize) {
    let bytes: usize = outputs.iter().map(|t| binary::size(t.data())).sum();
    let mut out = Vec::with_capacity(bytes.saturating_add(512));
    write_head(&mut out, head);
    write::list(&mut out, outputs, |out, t| {
        if is_binary(t) { tensor::write_binary(out, t) } else { tensor::write(out, t) }
    });
    out.push(b'}');
    let json = out.len();
    outputs.iter().filter(|t| is_binary(t)).for_each(|t| binary::append(&mut out, t.data()));
    (out, json)
}

fn write_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    out.extend_from_slice(b"{\"model_name\":");
    write::string(out, head.model_name);
    for (name, value) in [(&b",\"model_version\":"[..], head.model_version), (b",\"id\":", head.id)] {
        if let Some(text) = value {
            out.extend_from_slice(name);
            write::string(out, text);
        }
    }
    parameter::write_member(out, head.parameters);
    out.extend_from_slice(b",\"outputs\":");
}

impl InferResponse {
    /// Reads a response's body.
    ///
    /// # Errors
    /// What is wrong, with the field. A response without outputs is an error.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, WireError> {
        Self::parse_parts(body, None, limits)
    }

    /// Reads the body of a response with outputs in binary form; `json` is how many of its bytes are JSON.
    ///
    /// # Errors
    /// As [`InferResponse::parse`].
    pub fn parse_binary(body: &[u8], json: usize, limits: &Limits) -> Result<Self, WireError> {
        Self::parse_parts(body, Some(json), limits)
    }

    fn parse_parts(body: &[u8], json: Option<usize>, limits: &Limits) -> Result<Self, WireError> {
        let (json, mut tail) = Tail::split(body, json)?;
        let mut s = Scanner::new(json, limits);
        let (mut name, mut version, mut id, mut parameters, mut outputs) = (None, None, None, None, None);
        s.object("an object with `outputs`", |s, key| match &*key {
            "model_name" => text(s, &mut name, "model_name"),
            "model_version" => text(s, &mut version, "model_version"),
            "id" => text(s, &mut id, "id"),
            "parameters" if !s.accept_word("null") => {
                once(&mut parameters, parameter::read(s).map_err(|e| e.at("parameters"))?, "parameters")
            }
            "parameters" => Ok(()),
            "outputs" => {
                let found = tensor::read_list(s, limits.max_names, &mut tail).map_err(|e| e.at("outputs"))?;
                once(&mut outputs, found, "outputs")
            }
            _ => s.skip(),
        })?;
        s.end()?;
        tail.end()?;
        let outputs = outputs.filter(|o: &Vec<Tensor>| !o.is_empty());
        Ok(Self {
            model_name: name.ok_or_else(|| WireError::bad("the response has no `model_name`"))?,
            model_version: version,
            id,
            parameters: parameters.unwrap_or_default(),
            outputs: outputs.ok_or_else(|| WireError::bad("the response has no `outputs`"))?,
        })
    }

    /// Writes the response's body, all of it JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = ResponseHead {
            model_name: &self.model_name,
            model_version: self.model_version.as_deref(),
            id: self.id.as_deref(),
            parameters: &self.parameters,
        };
        write_response(&head, &self.outputs)
    }
}

/// A text, or `null` for one that is left out (some servers write it so).
fn text(s: &mut Scanner<'_>, slot: &mut Option<String>, key: &str) -> Result<(), WireError> {
    if s.accept_word("null") {
        return Ok(());
    }
    let value = s.string("a string").map_err(|e| e.at(key))?.into_owned();
    once(slot, value, key)
}
