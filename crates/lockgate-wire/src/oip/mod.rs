//! Open Inference Protocol V2: requests, responses and metadata, in JSON and with tensors in binary form.
//!
//! Specification: <https://github.com/kserve/open-inference-protocol>. Unknown members are passed over, as the
//! protocol's servers do; known members of the wrong kind, or given twice, are errors.

pub mod binary;
pub mod grpc;
mod metadata;
mod parameter;
mod path;
mod request;
mod response;
mod tensor;

pub use metadata::{InputSpec, model_config, model_metadata};
pub use parameter::Parameter;
pub use path::{ModelPath, Verb, decode, encode};
pub use request::{InferRequest, RequestedOutput};
pub use response::{InferResponse, ResponseHead, write_binary_response, write_response};

use crate::error::WireError;
use crate::json::write;

/// The header that announces the binary tensor extension.
pub const BINARY_HEADER: &str = "inference-header-content-length";

/// The extensions of the protocol that the server's metadata list.
pub const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "model_configuration", "statistics"];

/// The body of `GET /v2`.
#[must_use]
pub fn server_metadata(version: &str) -> Vec<u8> {
    let mut out = b"{\"name\":\"lockgate\",\"version\":".to_vec();
    write::string(&mut out, version);
    out.extend_from_slice(b",\"extensions\":");
    write::list(&mut out, EXTENSIONS, write::string);
    out.push(b'}');
    out
}

/// Puts a value into a slot that may be filled only once.
fn once<T>(slot: &mut Option<T>, value: T, key: &str) -> Result<(), WireError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(WireError::bad("this member is given twice").at(key)),
    }
}
