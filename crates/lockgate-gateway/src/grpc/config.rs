//! A worker's JSON about its model as messages.

use super::message::{
    ConfigInput, ConfigOutput, ModelConfig, ModelConfigAnswer, ModelMetadata, TensorMetadata,
};
use serde_json::Value;

/// The types of Triton's model configuration, in the order of their numbers.
const TYPES: [&str; 15] = [
    "TYPE_INVALID",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];

/// `GET /v2/models/{model}`.
pub(super) fn metadata(value: &Value) -> ModelMetadata {
    let tensors = |key: &str| {
        let one = |v: &Value| TensorMetadata {
            name: text(&v["name"]),
            datatype: text(&v["datatype"]),
            shape: numbers(&v["shape"]),
        };
        list(&value[key]).iter().map(one).collect()
    };
    ModelMetadata {
        name: text(&value["name"]),
        versions: list(&value["versions"]).iter().map(text).collect(),
        platform: text(&value["platform"]),
        inputs: tensors("inputs"),
        outputs: tensors("outputs"),
    }
}

/// `GET /v2/models/{model}/config`.
pub(super) fn config(value: &Value) -> ModelConfigAnswer {
    let kind = |v: &Value| {
        let place = TYPES.iter().position(|t| v["data_type"] == *t);
        place.and_then(|i| i32::try_from(i).ok()).unwrap_or(0)
    };
    let input =
        |v: &Value| ConfigInput { name: text(&v["name"]), data_type: kind(v), dims: numbers(&v["dims"]) };
    let output =
        |v: &Value| ConfigOutput { name: text(&v["name"]), data_type: kind(v), dims: numbers(&v["dims"]) };
    let config = ModelConfig {
        name: text(&value["name"]),
        platform: text(&value["platform"]),
        max_batch_size: 0,
        input: list(&value["input"]).iter().map(input).collect(),
        output: list(&value["output"]).iter().map(output).collect(),
        backend: text(&value["backend"]),
    };
    ModelConfigAnswer { config: Some(config) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn numbers(value: &Value) -> Vec<i64> {
    list(value).iter().filter_map(Value::as_i64).collect()
}
