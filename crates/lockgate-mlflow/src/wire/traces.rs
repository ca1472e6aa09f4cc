//! Traces, spans and assessments.

use super::{Number, put, put_list};
use crate::time::{shown_duration, shown_time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockgate_control::tracking::{Assessment, KeyValue, Span, Trace, Tree};
use serde_json::{Map, Value, json};

/// How much is shown of keys, of metadata, and of tags' values, as by MLflow's own server.
const SHORT: usize = 250;
const LONG: usize = 4096;
/// How much is shown of a stack trace, and what the rest is cut off with.
const STACK: usize = 10_000;
const STACK_CUT: &str = "[Stack trace is truncated]\n...\n";

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

fn pairs(pairs: &[KeyValue], limit: usize) -> Value {
    pairs
        .iter()
        .map(|pair| (cut(&pair.key, SHORT), json!(cut(&pair.value, limit))))
        .collect::<Map<_, _>>()
        .into()
}

/// A trace without its spans.
pub(crate) fn info(trace: &Trace) -> Value {
    let mut object = Map::new();
    object.insert("trace_id".to_owned(), json!(trace.trace_id));
    put(&mut object, "client_request_id", trace.client_request_id.as_deref());
    let experiment = json!({"experiment_id": trace.experiment_id.to_string()});
    let location = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": experiment});
    object.insert("trace_location".to_owned(), location);
    put(&mut object, "request_preview", trace.request_preview.as_deref());
    put(&mut object, "response_preview", trace.response_preview.as_deref());
    object.insert("request_time".to_owned(), json!(shown_time(trace.started)));
    put(&mut object, "execution_duration", trace.duration.map(shown_duration).as_deref());
    object.insert("state".to_owned(), json!(trace.state));
    if !trace.metadata.is_empty() {
        object.insert("trace_metadata".to_owned(), pairs(&trace.metadata, SHORT));
    }
    if !trace.tags.is_empty() {
        object.insert("tags".to_owned(), pairs(&trace.tags, LONG));
    }
    put_list(&mut object, "assessments", trace.assessments.iter().map(assessment).collect());
    Value::Object(object)
}

/// A trace with its spans.
pub(crate) fn whole(trace: &Trace, spans: &[Span]) -> Value {
    let mut object = Map::new();
    object.insert("trace_info".to_owned(), info(trace));
    let shown = spans.iter().filter_map(|span| Tree::parse(&span.content));
    put_list(&mut object, "spans", shown.map(|content| self::span(&content)).collect());
    Value::Object(object)
}

fn text<'a>(tree: &'a Tree, key: &str) -> Option<&'a str> {
    tree.get(key).and_then(Tree::as_text)
}

fn count(tree: &Tree, key: &str) -> Option<i64> {
    tree.get(key).and_then(Tree::as_count)
}

/// A span as OpenTelemetry's messages are written in protobuf's JSON.
fn span(content: &Tree) -> Value {
    let mut object = Map::new();
    for key in ["trace_id", "span_id", "parent_span_id", "name"] {
        put(&mut object, key, text(content, key));
    }
    for key in ["start_time_unix_nano", "end_time_unix_nano"] {
        if let Some(time) = count(content, key).filter(|time| *time != 0) {
            object.insert(key.to_owned(), json!(time));
        }
    }
    let written = |value: &Tree| match value {
        Tree::Text(text) => Tree::parse(text).unwrap_or_else(|| value.clone()),
        other => other.clone(),
    };
    put_list(&mut object, "attributes", attributes(content.get("attributes"), written));
    let items = |key: &str| content.get(key).and_then(Tree::as_list).unwrap_or_default();
    put_list(&mut object, "events", items("events").iter().map(event).collect());
    put_list(&mut object, "links", items("links").iter().map(link).collect());
    let mut status = Map::new();
    if let Some(found) = content.get("status") {
        put(&mut status, "message", text(found, "message").filter(|text| !text.is_empty()));
        put(&mut status, "code", text(found, "code").filter(|code| *code != "STATUS_CODE_UNSET"));
    }
    object.insert("status".to_owned(), Value::Object(status));
    Value::Object(object)
}

fn event(event: &Tree) -> Value {
    let mut object = Map::new();
    object.insert("time_unix_nano".to_owned(), json!(count(event, "time_unix_nano").unwrap_or_default()));
    put(&mut object, "name", text(event, "name"));
    put_list(&mut object, "attributes", attributes(event.get("attributes"), Tree::clone));
    Value::Object(object)
}

fn link(link: &Tree) -> Value {
    let bytes = |key: &str| {
        let digits = text(link, key).unwrap_or_default().trim_start_matches("tr-");
        let byte = |i: usize| digits.get(i..i + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let bytes: Vec<u8> = (0..digits.len() / 2).filter_map(|i| byte(2 * i)).collect();
        STANDARD.encode(bytes)
    };
    let mut object = Map::new();
    object.insert("trace_id".to_owned(), json!(bytes("trace_id")));
    object.insert("span_id".to_owned(), json!(bytes("span_id")));
    put_list(&mut object, "attributes", attributes(link.get("attributes"), Tree::clone));
    Value::Object(object)
}

fn attributes(tree: Option<&Tree>, read: impl Fn(&Tree) -> Tree) -> Vec<Value> {
    let Some(Tree::Map(pairs)) = tree else { return Vec::new() };
    pairs.iter().map(|(key, value)| json!({"key": key, "value": any(&read(value))})).collect()
}

/// A value as OpenTelemetry writes values of any kind.
fn any(tree: &Tree) -> Value {
    match tree {
        Tree::Null => json!({}),
        Tree::Bool(flag) => json!({"bool_value": flag}),
        Tree::Int(number) => json!({"int_value": number}),
        Tree::Real(real) => json!({"double_value": json!(Number(*real))}),
        Tree::Text(text) => json!({"string_value": text}),
        Tree::List(items) => {
            let mut list = Map::new();
            put_list(&mut list, "values", items.iter().map(any).collect());
            json!({"array_value": list})
        }
        Tree::Map(pairs) => {
            let mut list = Map::new();
            let pair = |(key, value): &(String, Tree)| json!({"key": key, "value": any(value)});
            put_list(&mut list, "values", pairs.iter().map(pair).collect());
            json!({"kvlist_value": list})
        }
    }
}

/// A value as protobuf writes values of any kind: all numbers are floats.
fn plain(tree: &Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => json!(flag),
        Tree::Int(whole) => json!(Number(*whole as f64)),
        Tree::Real(real) => json!(Number(*real)),
        Tree::Text(text) => json!(text),
        Tree::List(items) => items.iter().map(plain).collect(),
        Tree::Map(pairs) => {
            pairs.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into()
        }
    }
}

/// What was said about a trace.
pub(crate) fn assessment(said: &Assessment) -> Value {
    let mut object = Map::new();
    object.insert("assessment_id".to_owned(), json!(said.assessment_id));
    object.insert("assessment_name".to_owned(), json!(said.name));
    object.insert("trace_id".to_owned(), json!(said.trace_id));
    put(&mut object, "span_id", said.span_id.as_deref());
    let mut source = Map::new();
    source.insert("source_type".to_owned(), json!(said.source_type));
    put(&mut source, "source_id", said.source_id.as_deref());
    object.insert("source".to_owned(), Value::Object(source));
    object.insert("create_time".to_owned(), json!(shown_time(said.created)));
    object.insert("last_update_time".to_owned(), json!(shown_time(said.updated)));
    let value = Tree::parse(&said.value).unwrap_or(Tree::Null);
    match said.kind.as_str() {
        "feedback" => {
            let mut feedback = Map::new();
            feedback.insert("value".to_owned(), plain(&value));
            if let Some(error) = said.error.as_deref().and_then(Tree::parse) {
                feedback.insert("error".to_owned(), failure(&error));
            }
            object.insert("feedback".to_owned(), Value::Object(feedback));
        }
        "expectation" if matches!(value, Tree::List(_) | Tree::Map(_)) => {
            let written = json!({"serialization_format": "JSON_FORMAT", "value": said.value});
            object.insert("expectation".to_owned(), json!({"serialized_value": written}));
        }
        "expectation" => {
            object.insert("expectation".to_owned(), json!({"value": plain(&value)}));
        }
        _ => {
            object.insert("issue".to_owned(), plain(&value));
        }
    }
    put(&mut object, "rationale", said.rationale.as_deref());
    if let Some(Tree::Map(pairs)) = said.metadata.as_deref().and_then(Tree::parse) {
        let text = |value: &Tree| value.as_text().map_or_else(|| value.dump(), str::to_owned);
        let pairs: Map<String, Value> =
            pairs.iter().map(|(key, value)| (key.clone(), json!(text(value)))).collect();
        object.insert("metadata".to_owned(), Value::Object(pairs));
    }
    put(&mut object, "overrides", said.overrides.as_deref());
    object.insert("valid".to_owned(), json!(said.valid));
    Value::Object(object)
}

fn failure(error: &Tree) -> Value {
    let mut object = Map::new();
    put(&mut object, "error_code", text(error, "error_code"));
    put(&mut object, "error_message", text(error, "error_message").filter(|text| !text.is_empty()));
    if let Some(stack) = text(error, "stack_trace").filter(|text| !text.is_empty()) {
        let length = stack.chars().count();
        let shown = if length <= STACK {
            stack.to_owned()
        } else {
            // The end of a stack trace says what happened.
            let rest = STACK - STACK_CUT.chars().count();
            STACK_CUT.chars().chain(stack.chars().skip(length - rest)).collect()
        };
        object.insert("stack_trace".to_owned(), json!(shown));
    }
    Value::Object(object)
}
