//! The entry for a fuzzer: any bytes may come in, nothing may panic, and what is read must survive being written.

use crate::json::Limits;
use crate::mlflow::{ContentType, Invocation};
use crate::oip::{InferRequest, InferResponse};

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
    if crate::compare::difference(bytes, bytes, 0.0, &limits).is_some() {
        return Err("a body differs from itself".to_owned());
    }
    let _ = crate::compare::difference(bytes, b"{\"outputs\":[1,0.5,\"a\"]}", 0.1, &limits);
    for kind in [ContentType::Json, ContentType::Csv] {
        let _ = Invocation::parse(bytes, kind, &limits);
    }
    let _ = crate::tfs::Predict::parse(bytes, &limits);
    let _ = crate::tfs::examples(bytes, &limits);
    if let Ok(path) = std::str::from_utf8(bytes) {
        let _ = crate::tfs::TfsPath::parse(path);
    }
    Ok(())
}
