//! Answers, in protobuf's JSON: unset fields and empty lists are left out, numbers that are not finite are texts.

pub(crate) mod registry;
pub(crate) mod runs;
pub(crate) mod traces;

use lockgate_control::tracking::{KeyValue, Metric};
use serde_json::{Map, Value, json};

/// A number as protobuf's JSON writes it.
pub(crate) fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => json!("NaN"),
        None if value > 0.0 => json!("Infinity"),
        None => json!("-Infinity"),
    }
}

/// Tags or params.
pub(crate) fn pairs(pairs: &[KeyValue]) -> Vec<Value> {
    pairs.iter().map(|pair| json!({"key": pair.key, "value": pair.value})).collect()
}

/// One point of a metric.
pub(crate) fn metric(metric: &Metric) -> Value {
    let mut object = Map::new();
    object.insert("key".to_owned(), json!(metric.key));
    object.insert("value".to_owned(), number(metric.value));
    object.insert("timestamp".to_owned(), json!(metric.logged_at));
    object.insert("step".to_owned(), json!(metric.step));
    if let Some((name, digest)) = &metric.dataset {
        object.insert("dataset_name".to_owned(), json!(name));
        object.insert("dataset_digest".to_owned(), json!(digest));
    }
    put(&mut object, "model_id", metric.model_id.as_deref());
    Value::Object(object)
}

/// One point of a metric, and whose it is.
pub(crate) fn metric_of_run(found: &Metric) -> Value {
    let mut value = metric(found);
    if let Value::Object(object) = &mut value {
        put(object, "run_id", found.run_id.as_deref());
    }
    value
}

/// Adds a text where there is one.
pub(crate) fn put(object: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        object.insert(name.to_owned(), json!(text));
    }
}

/// Adds a list where it is not empty.
pub(crate) fn put_list(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(name.to_owned(), Value::Array(list));
    }
}

/// A page of a search: the list, and the next page's token.
pub(crate) fn page(name: &str, list: Vec<Value>, token: Option<String>) -> Value {
    let mut object = Map::new();
    put_list(&mut object, name, list);
    put(&mut object, "next_page_token", token.as_deref());
    Value::Object(object)
}
