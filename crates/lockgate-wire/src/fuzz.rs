//! The entry for a fuzzer: any bytes may come in, nothing may panic, and what is read must survive being written.

use crate::encoding::Encoding;
use crate::json::Limits;
use crate::mlflow::{ContentType, Invocation};
use crate::oip::grpc::{GrpcRequest, model_of, parse_response, write_response};
use crate::oip::{InferRequest, InferResponse, ResponseHead};
use crate::openai::{Asked, Events};
use bytes::Bytes;

/// Reads `bytes` with every reader of this crate.
///
/// # Errors
/// Where a body that was read and written again doesn't read as the same: a defect of this crate.
pub fn read_everything(bytes: &[u8]) -> Result<(), String> {
    let limits = Limits { max_elements: 4096, ..Limits::default() };
    if let Ok(first) = InferRequest::parse(bytes, &limits) {
        let written = first.to_bytes();
        let again = InferRequest::parse(&written, &limits)
            .map_err(|e| format!("a written request is refused: {e}"))?;
        // NaN differs from itself: compare what is written.
        if again.to_bytes() != written {
            return Err("a request changed by being written and read".to_owned());
        }
    }
    if let Ok(first) = InferResponse::parse(bytes, &limits) {
        let written = first.to_bytes();
        let again = InferResponse::parse(&written, &limits)
            .map_err(|e| format!("a written response is refused: {e}"))?;
        if again.to_bytes() != written {
            return Err("a response changed by being written and read".to_owned());
        }
    }
    messages(bytes, &limits)?;
    if let Ok(asked) = Asked::parse(bytes) {
        let _ = asked.of_model(&Bytes::copy_from_slice(bytes), "x");
    }
    Events::default().see(bytes);
    // The first two bytes say how much of the rest is JSON.
    if let Some((length, body)) = bytes.split_first_chunk::<2>() {
        let json = usize::from(u16::from_le_bytes(*length));
        let _ = InferResponse::parse_binary(body, json, &limits);
        if let Ok(request) = InferRequest::parse_binary(body, json, &limits) {
            let written = request.to_bytes();
            let again = InferRequest::parse(&written, &limits);
            let again = again.map_err(|e| format!("a binary request written as JSON is refused: {e}"))?;
            if again.to_bytes() != written {
                return Err("a binary request changed by being written as JSON".to_owned());
            }
        }
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let _ = encoding.unpack(body, 1 << 16);
        }
    }
    if crate::compare::difference(bytes, bytes, 0.0, &limits).is_some() {
        return Err("a body differs from itself".to_owned());
    }
    let _ = crate::compare::difference(bytes, b"{\"outputs\":[1,0.5,\"a\"]}", 0.1, &limits);
    for kind in [ContentType::Json, ContentType::Csv] {
        let _ = Invocation::parse(bytes, kind, &limits);
    }
    let _ = crate::feedback::parse(bytes);
    let _ = crate::tfs::Predict::parse(bytes, &limits);
    let _ = crate::tfs::examples(bytes, &limits);
    if let Ok(path) = std::str::from_utf8(bytes) {
        let _ = crate::tfs::TfsPath::parse(path);
    }
    Ok(())
}

/// The same for messages of gRPC.
fn messages(bytes: &[u8], limits: &Limits) -> Result<(), String> {
    let _ = model_of(bytes);
    if let Ok(read) = GrpcRequest::parse(Bytes::copy_from_slice(bytes), limits) {
        let head = ResponseHead { model_name: &read.model, ..ResponseHead::default() };
        for raw in [true, false] {
            let written = write_response(&head, &read.request.inputs, raw);
            let again = parse_response(written.clone().into(), limits)
                .map_err(|e| format!("a written message is refused: {e}"))?;
            if write_response(&head, &again.outputs, raw) != written {
                return Err("a message changed by being written and read".to_owned());
            }
        }
    }
    let _ = parse_response(Bytes::copy_from_slice(bytes), limits);
    Ok(())
}
