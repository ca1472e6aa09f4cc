//! Answers and their headers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use lockgate_wire::error::{mlflow_error, oip_error};
use lockgate_wire::oip::{BINARY_HEADER, binary};
use lockgate_wire::{Tensor, WireError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The headers that an inference answer carries.
pub mod header {
    /// How many rows were answered.
    pub const ROWS: &str = "x-lockgate-rows";
    /// How many of the outputs' values are NaN or infinite; only where there are any.
    pub const NONFINITE: &str = "x-lockgate-nonfinite";
    /// A 64-bit hash of the outputs' names, types, shapes and values, in hexadecimal: equal answers have equal hashes.
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
    of_kind(status, body, "application/json")
}

fn of_kind(status: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
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

/// What an inference answer is written in.
#[derive(Debug)]
pub(super) enum Written {
    /// JSON.
    Json(Vec<u8>),
    /// JSON of so many bytes, and the outputs' bytes behind it.
    Binary(Vec<u8>, usize),
    /// A message of gRPC.
    Message(Vec<u8>),
}

impl Written {
    fn reply(self) -> Reply {
        match self {
            Self::Json(body) => json(StatusCode::OK, body),
            Self::Binary(body, length) => {
                let mut reply = of_kind(StatusCode::OK, body, "application/octet-stream");
                reply.headers_mut().insert(HeaderName::from_static(BINARY_HEADER), HeaderValue::from(length));
                reply
            }
            Self::Message(body) => of_kind(StatusCode::OK, body, "application/protobuf"),
        }
    }
}

/// An inference answer.
pub(super) fn inferred(written: Written, rows: usize, outputs: &[Tensor], took: Duration) -> Reply {
    let mut reply = written.reply();
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

/// The hash of outputs: names, types, shapes and bits of the values, in order.
fn hash(outputs: &[Tensor]) -> u64 {
    let mut buffer = Vec::with_capacity(128);
    outputs.iter().fold(0, |seed, tensor| {
        buffer.clear();
        buffer.extend_from_slice(&(tensor.name().len() as u64).to_le_bytes());
        buffer.extend_from_slice(tensor.name().as_bytes());
        buffer.extend_from_slice(tensor.datatype().as_str().as_bytes());
        tensor.shape().iter().for_each(|d| buffer.extend_from_slice(&(*d as u64).to_le_bytes()));
        binary::append(&mut buffer, tensor.data());
        xxh3_64_with_seed(&buffer, seed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_wire::Data;

    #[test]
    fn the_hash_sees_every_name_value_type_and_shape() {
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
        let renamed = vec![Tensor::new("z", vec![2], Data::Fp32(vec![1.0, 2.0])).unwrap()];
        assert_ne!(base, hash(&renamed));
        let split = |a: &str, b: &str| hash(&make(&[2], Data::Bytes(vec![a.to_owned(), b.to_owned()])));
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }
}
