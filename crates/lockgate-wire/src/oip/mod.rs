//! Open Inference Protocol V2, REST: requests, responses and metadata.
//!
//! Specification: <https://github.com/kserve/open-inference-protocol>. Unknown members are passed over, as the
//! protocol's servers do; known members of the wrong kind, or given twice, are errors.

mod metadata;
mod parameter;
mod path;
mod request;
mod response;
mod tensor;

pub use metadata::{InputSpec, model_metadata};
pub use parameter::Parameter;
pub use path::{ModelPath, Verb, decode};
pub use request::InferRequest;
pub use response::{InferResponse, ResponseHead, write_response};

use crate::error::WireError;

/// The header that announces the binary tensor extension.
pub const BINARY_HEADER: &str = "inference-header-content-length";

/// The error for a request that carries [`BINARY_HEADER`].
#[must_use]
pub fn binary_refused() -> WireError {
    WireError::unsupported(
        "this server doesn't speak the binary tensor extension (Inference-Header-Content-Length); send the tensors \
         as JSON (tritonclient: set_data_from_numpy(..., binary_data=False))",
    )
}

/// Puts a value into a slot that may be filled only once.
fn once<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<(), WireError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(WireError::bad("this member is given twice").at(key)),
    }
}
