//! Outputs to `ModelInferResponse`, and back for the log.

use super::contents;
use super::message::{InferTensor, ModelInferResponse};
use super::request::{read_parameters, tensor};
use super::scan::{check_response, damaged};
use crate::error::WireError;
use crate::json::Limits;
use crate::oip::{InferResponse, ResponseHead, binary};
use crate::tensor::{Data, Tensor};
use bytes::Bytes;
use prost::Message as _;

/// Writes a message. Outputs are raw bytes where `raw` says so, and where one of them has no other form; else they lie in the
/// fields for their types.
#[must_use]
pub fn write_response(head: &ResponseHead<'_>, outputs: &[Tensor], raw: bool) -> Vec<u8> {
    let raw = raw || outputs.iter().any(|t| matches!(t.data(), Data::Fp16(_) | Data::Bf16(_)));
    let bytes = |t: &Tensor| {
        let mut out = Vec::with_capacity(binary::size(t.data()));
        binary::append(&mut out, t.data());
        Bytes::from(out)
    };
    let output = |t: &Tensor| InferTensor {
        name: t.name().to_owned(),
        datatype: t.datatype().as_str().to_owned(),
        shape: t.shape().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
        contents: if raw { None } else { contents::write(t.data()) },
        ..InferTensor::default()
    };
    let message = ModelInferResponse {
        model_name: head.model_name.to_owned(),
        model_version: head.model_version.unwrap_or_default().to_owned(),
        id: head.id.unwrap_or_default().to_owned(),
        outputs: outputs.iter().map(output).collect(),
        raw_output_contents: if raw { outputs.iter().map(bytes).collect() } else { Vec::new() },
        ..ModelInferResponse::default()
    };
    message.encode_to_vec()
}

/// Reads a message that [`write_response`] wrote.
///
/// # Errors
/// What is wrong, with the field.
pub fn parse_response(message: Bytes, limits: &Limits) -> Result<InferResponse, WireError> {
    check_response(&message, limits)?;
    let message = ModelInferResponse::decode(message).map_err(|_| damaged())?;
    let mut raw = message.raw_output_contents.into_iter();
    let outputs =
        message.outputs.into_iter().map(|t| tensor(t, raw.next())).collect::<Result<Vec<_>, _>>()?;
    let text = |text: String| Some(text).filter(|t| !t.is_empty());
    Ok(InferResponse {
        model_name: message.model_name,
        model_version: text(message.model_version),
        id: text(message.id),
        parameters: read_parameters(message.parameters),
        outputs,
    })
}
