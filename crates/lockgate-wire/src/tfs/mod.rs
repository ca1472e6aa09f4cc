//! TensorFlow Serving's REST API, which is KServe's V1 protocol, too: `/v1/models/…`.
//!
//! Reference: <https://www.tensorflow.org/tfx/serving/api_rest>. `NaN`, `Infinity` and `-Infinity` are legal in both directions.

mod path;
mod request;
mod response;

pub use path::{Pick, TfsPath, TfsVerb};
pub use request::{Form, Predict, examples};
pub use response::{
    Served, list, metadata, status, write_classes, write_outputs, write_regressions, write_rows,
};
