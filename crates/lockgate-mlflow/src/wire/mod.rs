//! Answers, in protobuf's JSON: unset fields and empty lists are left out, numbers that are not finite are texts.

pub(crate) mod python;
pub(crate) mod registry;
pub(crate) mod runs;
pub(crate) mod traces;

use axum::Json;
use axum::response::{IntoResponse, Response};
use lockgate_control::tracking::{KeyValue, Metric};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// A number as protobuf's JSON writes it.
pub(crate) struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

/// A tag or a param.
#[derive(Serialize)]
pub(crate) struct Pair<'a> {
    key: &'a str,
    value: &'a str,
}

/// Tags or params.
pub(crate) fn pairs(pairs: &[KeyValue]) -> Vec<Pair<'_>> {
    pairs.iter().map(|pair| Pair { key: &pair.key, value: &pair.value }).collect()
}

/// One point of a metric.
#[derive(Serialize)]
pub(crate) struct Point<'a> {
    key: &'a str,
    value: Number,
    timestamp: i64,
    step: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
}

/// One point of a metric.
pub(crate) fn metric(found: &Metric) -> Point<'_> {
    Point { run_id: None, ..metric_of_run(found) }
}

/// One point of a metric, and whose it is.
pub(crate) fn metric_of_run(found: &Metric) -> Point<'_> {
    let dataset = found.dataset.as_ref();
    Point {
        key: &found.key,
        value: Number(found.value),
        timestamp: found.logged_at,
        step: found.step,
        dataset_name: dataset.map(|(name, _)| name.as_str()),
        dataset_digest: dataset.map(|(_, digest)| digest.as_str()),
        model_id: found.model_id.as_deref(),
        run_id: found.run_id.as_deref(),
    }
}

/// A page of a search that may be long: it is written as it is, without a tree of values between.
pub(crate) fn long_page<T: Serialize>(name: &'static str, list: Vec<T>, token: Option<String>) -> Response {
    Json(Page { name, list, token }).into_response()
}

struct Page<T> {
    name: &'static str,
    list: Vec<T>,
    token: Option<String>,
}

impl<T: Serialize> Serialize for Page<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.list.is_empty() {
            map.serialize_entry(self.name, &self.list)?;
        }
        if let Some(token) = &self.token {
            map.serialize_entry("next_page_token", token)?;
        }
        map.end()
    }
}

/// Adds a text where there is one.
pub(crate) fn put(object: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        object.insert(name.to_owned(), json!(text));
    }
}

/// Adds a list where it is not empty.
pub(crate) fn put_list<T: Serialize>(object: &mut Map<String, Value>, name: &str, list: Vec<T>) {
    if !list.is_empty() {
        object.insert(name.to_owned(), json!(list));
    }
}

/// A page of a search: the list, and the next page's token.
pub(crate) fn page(name: &str, list: Vec<Value>, token: Option<String>) -> Value {
    let mut object = Map::new();
    put_list(&mut object, name, list);
    put(&mut object, "next_page_token", token.as_deref());
    Value::Object(object)
}
