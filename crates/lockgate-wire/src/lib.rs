//! Codecs of the inference protocols: bytes to tensors and back. No sockets, no files, no clock.
//!
//! Nothing here panics, whatever the bytes are, and every allocation is bounded by [`Limits`].
//!
//! | module | subject |
//! |---|---|
//! | [`encoding`] | packed bodies: gzip and deflate |
//! | [`error`] | what is wrong with a request, with each protocol's own error body |
//! | [`tensor`] | named, typed, shaped data |
//! | [`json`] | our own JSON scanner and writer: fast numbers, `NaN` and `Infinity` tokens, strict limits |
//! | [`oip`] | Open Inference Protocol V2 |
//! | [`mlflow`] | MLflow's scoring protocol (`/invocations`) |
//! | [`compare`] | whether two answers say the same |
//! | [`tfs`] | TensorFlow Serving's REST API |
//! | [`openai`] | OpenAI's API, as far as it must be read to pass it on |
//! | [`table`] | the mapping between named columns and a model's tensor inputs |
//! | [`feedback`] | what is said of predictions afterwards |
//! | [`fuzz`] | the entry for a fuzzer |

pub mod compare;
pub mod encoding;
pub mod error;
pub mod feedback;
pub mod fuzz;
pub mod json;
pub mod mlflow;
pub mod oip;
pub mod openai;
pub mod table;
pub mod tensor;
pub mod tfs;

pub use encoding::Encoding;
pub use error::WireError;
pub use json::Limits;
pub use tensor::{Data, Datatype, Tensor};
