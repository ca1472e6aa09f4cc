//! `ModelInferRequest` to a request.

use super::message::{Choice, InferParameter, InferTensor, ModelInferRequest};
use super::scan::{Fields, Value, check_request, damaged};
use super::{contents, message};
use crate::error::WireError;
use crate::json::Limits;
use crate::oip::parameter;
use crate::oip::{InferRequest, Parameter, RequestedOutput, binary};
use crate::tensor::{Datatype, Tensor, shown};
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// A request that came as a message.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcRequest {
    /// The model that it asks.
    pub model: String,
    /// The model's version; empty where it names none.
    pub version: String,
    /// Whether its tensors are raw bytes, so that the answer's have to be too.
    pub raw: bool,
    /// What it asks.
    pub request: InferRequest,
}

/// Most fields of a message, tensors and their contents among them.
const FIELDS_MAX: usize = 1 << 16;

/// The model's name and version in a message, without a look at the rest.
///
/// # Errors
/// Where the message is damaged or has too many fields, or they are no text.
pub fn model_of(message: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut model, mut version) = ("", "");
    for (i, field) in Fields::of(message).enumerate() {
        if i >= FIELDS_MAX {
            return Err(WireError::too_large(format!("the message has more than {FIELDS_MAX} fields")));
        }
        let slot = match field? {
            (1, Value::Bytes(bytes)) => (&mut model, bytes),
            (2, Value::Bytes(bytes)) => (&mut version, bytes),
            _ => continue,
        };
        *slot.0 = std::str::from_utf8(slot.1).map_err(|_| damaged())?;
    }
    Ok((model, version))
}

impl GrpcRequest {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(message: Bytes, limits: &Limits) -> Result<Self, WireError> {
        check_request(&message, limits)?;
        let message = ModelInferRequest::decode(message).map_err(|_| damaged())?;
        let raw = !message.raw_input_contents.is_empty();
        let inputs = tensors(message.inputs, message.raw_input_contents)?;
        let outputs = requested(message.outputs)?;
        let request = InferRequest {
            id: Some(message.id).filter(|id| !id.is_empty()),
            parameters: read_parameters(message.parameters),
            inputs,
            outputs,
        };
        Ok(Self { model: message.model_name, version: message.model_version, raw, request })
    }
}

fn tensors(inputs: Vec<InferTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, WireError> {
    if inputs.is_empty() {
        return Err(WireError::bad("there must be at least one tensor").at("inputs"));
    }
    if !raw.is_empty() && raw.len() != inputs.len() {
        let message = format!("there are {} raw contents for {} inputs", raw.len(), inputs.len());
        return Err(WireError::bad(message).at("raw_input_contents"));
    }
    let mut names = BTreeSet::new();
    let mut raw = raw.into_iter();
    let mut found = Vec::with_capacity(inputs.len());
    for (i, input) in inputs.into_iter().enumerate() {
        if !names.insert(input.name.clone()) {
            let message = format!("the tensor `{}` is given twice", shown(&input.name));
            return Err(WireError::bad(message).at("inputs"));
        }
        found.push(tensor(input, raw.next()).map_err(|e| e.at(&format!("inputs[{i}]")))?);
    }
    Ok(found)
}

/// One tensor, from raw bytes or from the message's own contents.
pub(super) fn tensor(tensor: InferTensor, raw: Option<Bytes>) -> Result<Tensor, WireError> {
    let datatype = Datatype::parse(&tensor.datatype).map_err(|e| e.at("datatype"))?;
    parameter::refuse_elsewhere(&read_parameters(tensor.parameters)).map_err(|e| e.at("parameters"))?;
    let axis = |d: &i64| usize::try_from(*d).ok();
    let shape = tensor.shape.iter().map(axis).collect::<Option<Vec<usize>>>();
    let shape = shape.filter(|s| s.len() <= 8).ok_or_else(|| {
        WireError::bad("a shape has at most eight axes, each 0 or more elements long").at("shape")
    })?;
    match raw {
        Some(_) if tensor.contents.is_some() => {
            Err(WireError::bad("the tensor has contents and raw contents; it takes one of them"))
        }
        Some(bytes) => binary::tensor(tensor.name, shape, datatype, &bytes),
        None => {
            let data = contents::read(datatype, tensor.contents.unwrap_or_default())?;
            let place = contents::field(datatype);
            Tensor::new(tensor.name, shape, data).map_err(|e| if e.field.is_none() { e.at(place) } else { e })
        }
    }
}

fn requested(outputs: Vec<message::RequestedOutputTensor>) -> Result<Vec<RequestedOutput>, WireError> {
    let mut names = BTreeSet::new();
    let mut found = Vec::with_capacity(outputs.len());
    for (i, output) in outputs.into_iter().enumerate() {
        let place = format!("outputs[{i}]");
        parameter::refuse_elsewhere(&read_parameters(output.parameters))
            .map_err(|e| e.at("parameters").at(&place))?;
        if !names.insert(output.name.clone()) || i >= 1024 {
            let message = "an output is asked for twice, or there are more than 1024";
            return Err(WireError::bad(message).at(&place));
        }
        found.push(RequestedOutput { name: output.name, binary: None });
    }
    Ok(found)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what doesn't fit 64 bits with a sign is kept as the nearest float"
)]
pub(super) fn read_parameters(parameters: BTreeMap<String, InferParameter>) -> Vec<(String, Parameter)> {
    let read = |value: InferParameter| {
        Some(match value.choice? {
            Choice::Bool(on) => Parameter::Bool(on),
            Choice::Int64(number) => Parameter::Integer(number),
            Choice::Uint64(number) => {
                i64::try_from(number).map_or(Parameter::Float(number as f64), Parameter::Integer)
            }
            Choice::Double(number) => Parameter::Float(number),
            Choice::Text(text) => Parameter::Text(text),
        })
    };
    parameters.into_iter().filter_map(|(name, value)| Some((name, read(value)?))).collect()
}
