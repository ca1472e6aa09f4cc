//! Open Inference Protocol V2 over gRPC: the messages of one inference, to requests and from outputs.
//!
//! Field numbers are those of `open_inference_grpc.proto`, which Triton, MLServer and KServe share. What a message may make
//! of itself in memory is checked before it is decoded, because a few bytes can stand for a large structure.

mod contents;
mod message;
mod request;
mod response;
mod scan;
#[cfg(test)]
mod tests;

/// Where a worker takes `ModelInferRequest` as the body of a POST: gRPC's own path.
pub const INFER_PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

pub use request::{GrpcRequest, model_of};
pub use response::{parse_response, write_response};
