//! Answers and their headers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use lockgate_wire::error::{mlflow_error, oip_error};
use lockgate_wire::{Data, Tensor, WireError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The headers that an inference answer carries.
pub mod header {
    /// How many rows were answered.
    pub const ROWS: &str = "x-lockgate-rows";
    /// How many of the outputs' values are NaN or infinite; only where there are any.
    pub const NONFINITE: &str = "x-lockgate-nonfinite";
    /// A 64-bit hash of the outputs' types, shapes and values, in hexadecimal: equal answers have equal hashes.
    pub const ANSWER: &str = "x-lockgate-answer";
    /// How long the model ran, in microseconds.
    pub const INFER_US: &str = "x-lockgate-infer-us";
}

pub(super) type Reply = Response<Full<Bytes>>;

/// Whose error bodies a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Oip,
    Mlflow,
}

pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

pub(super) fn refused(error: &WireError, dialect: Dialect) -> Reply {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    json(status, if dialect == Dialect::Mlflow { error.mlflow_body() } else { error.oip_body() })
}

pub(super) fn failed(status: StatusCode, message: &str, dialect: Dialect) -> Reply {
    let code = match status {
        StatusCode::NOT_FOUND => "RESOURCE_DOES_NOT_EXIST",
        StatusCode::TOO_MANY_REQUESTS => "REQUEST_LIMIT_EXCEEDED",
        s if s.is_server_error() => "INTERNAL_ERROR",
        _ => "BAD_REQUEST",
    };
    json(status, if dialect == Dialect::Mlflow { mlflow_error(code, message) } else { oip_error(message) })
}

/// An inference answer.
pub(super) fn inferred(body: Vec<u8>, rows: usize, outputs: &[Tensor], took: Duration) -> Reply {
    let mut reply = json(StatusCode::OK, body);
    let headers = reply.headers_mut();
    headers.insert(HeaderName::from_static(header::ROWS), HeaderValue::from(rows));
    let nonfinite: usize = outputs.iter().map(|t| t.data().nonfinite()).sum();
    if nonfinite > 0 {
        headers.insert(HeaderName::from_static(header::NONFINITE), HeaderValue::from(nonfinite));
    }
    if let Ok(hash) = HeaderValue::from_str(&format!("{:016x}", hash(outputs))) {
        headers.insert(HeaderName::from_static(header::ANSWER), hash);
    }
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    headers.insert(HeaderName::from_static(header::INFER_US), HeaderValue::from(micros));
    reply
}

/// The hash of outputs: types, shapes and bits of the values, in order. Names don't count.
fn hash(outputs: &[Tensor]) -> u64 {
    let mut buffer = Vec::with_capacity(128);
    outputs.iter().fold(0, |seed, tensor| {
        buffer.clear();
        buffer.extend_from_slice(tensor.datatype().as_str().as_bytes());
        tensor.shape().iter().for_each(|d| buffer.extend_from_slice(&(*d as u64).to_le_bytes()));
        append(&mut buffer, tensor.data());
        xxh3_64_with_seed(&buffer, seed)
    })
}

fn append(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Bool(v) => v.iter().for_each(|x| out.push(u8::from(*x))),
        Data::Uint8(v) => out.extend_from_slice(v),
        Data::Uint16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Uint32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Uint64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Int8(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Int16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Int32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Int64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Fp32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Fp64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Bytes(v) => v.iter().for_each(|x| {
            out.extend_from_slice(&(x.len() as u64).to_le_bytes());
            out.extend_from_slice(x.as_bytes());
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_every_value_type_and_shape() {
        let make = |shape: &[usize], data| vec![Tensor::new("y", shape.to_vec(), data).unwrap()];
        let base = hash(&make(&[2], Data::Fp32(vec![1.0, 2.0])));
        assert_eq!(base, hash(&make(&[2], Data::Fp32(vec![1.0, 2.0]))));
        for other in [
            make(&[2], Data::Fp32(vec![1.0, 2.000_000_2])),
            make(&[2], Data::Fp32(vec![2.0, 1.0])),
            make(&[2, 1], Data::Fp32(vec![1.0, 2.0])),
            make(&[2], Data::Fp64(vec![1.0, 2.0])),
            make(&[2], Data::Bytes(vec!["a".to_owned(), "b".to_owned()])),
        ] {
            assert_ne!(base, hash(&other));
        }
        let split = |a: &str, b: &str| hash(&make(&[2], Data::Bytes(vec![a.to_owned(), b.to_owned()])));
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }
}
