//! OpenTelemetry's messages in JSON: names in camel case, ids in hexadecimal digits, whole numbers also as texts.

use super::proto::{self, any_value::Value as Any};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Reads a request; none where it is none.
pub(super) fn request(body: &[u8]) -> Option<proto::ExportRequest> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.as_object()?;
    Some(proto::ExportRequest { resource_spans: list(&value, "resourceSpans", group)? })
}

/// The items of a list, which may be missing; none where one can't be read.
fn list<T>(value: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(read).collect(),
        Some(_) => None,
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    match value.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    }
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        // Whole numbers may be written as floats.
        Value::Number(number) => {
            let text = number.to_string();
            text.parse()
                .ok()
                .or_else(|| format!("{:.0}", number.as_f64().filter(|n| n.fract() == 0.0)?).parse().ok())
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn time(value: &Value, name: &str) -> Option<u64> {
    value.get(name).filter(|found| !found.is_null()).map_or(Some(0), number)
}

/// The bytes of an id.
fn id(value: &Value, name: &str) -> Option<Vec<u8>> {
    let digits = text(value, name)?;
    let byte = |i: usize| u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len() / 2).map(byte).collect()
}

fn group(value: &Value) -> Option<proto::ResourceSpans> {
    let resource = match value.get("resource") {
        Some(resource) if !resource.is_null() => {
            Some(proto::Resource { attributes: list(resource, "attributes", pair)? })
        }
        _ => None,
    };
    let scope = |value: &Value| Some(proto::ScopeSpans { spans: list(value, "spans", span)? });
    Some(proto::ResourceSpans { resource, scope_spans: list(value, "scopeSpans", scope)? })
}

fn span(value: &Value) -> Option<proto::Span> {
    let status = match value.get("status") {
        Some(status) if !status.is_null() => {
            Some(proto::Status { message: text(status, "message")?, code: code(status)? })
        }
        _ => None,
    };
    Some(proto::Span {
        trace_id: id(value, "traceId")?,
        span_id: id(value, "spanId")?,
        parent_span_id: id(value, "parentSpanId")?,
        name: text(value, "name")?,
        start_time_unix_nano: time(value, "startTimeUnixNano")?,
        end_time_unix_nano: time(value, "endTimeUnixNano")?,
        attributes: list(value, "attributes", pair)?,
        events: list(value, "events", event)?,
        links: list(value, "links", link)?,
        status,
    })
}

fn code(status: &Value) -> Option<i32> {
    match status.get("code") {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(name)) if name == "STATUS_CODE_OK" => Some(1),
        Some(Value::String(name)) if name == "STATUS_CODE_ERROR" => Some(2),
        Some(Value::String(name)) if name == "STATUS_CODE_UNSET" => Some(0),
        Some(value) => number(value),
    }
}

fn event(value: &Value) -> Option<proto::Event> {
    Some(proto::Event {
        time_unix_nano: time(value, "timeUnixNano")?,
        name: text(value, "name")?,
        attributes: list(value, "attributes", pair)?,
    })
}

fn link(value: &Value) -> Option<proto::Link> {
    Some(proto::Link {
        trace_id: id(value, "traceId")?,
        span_id: id(value, "spanId")?,
        attributes: list(value, "attributes", pair)?,
    })
}

fn pair(value: &Value) -> Option<proto::KeyValue> {
    Some(proto::KeyValue {
        key: text(value, "key")?,
        value: value.get("value").filter(|v| !v.is_null()).map_or(Some(None), |v| any(v).map(Some))?,
    })
}

fn any(value: &Value) -> Option<proto::AnyValue> {
    let fields = value.as_object()?;
    let Some((kind, inner)) = fields.iter().find(|(_, inner)| !inner.is_null()) else {
        return Some(proto::AnyValue::default());
    };
    let found = match kind.as_str() {
        "stringValue" => Any::Text(inner.as_str()?.to_owned()),
        "boolValue" => Any::Flag(inner.as_bool()?),
        "intValue" => Any::Int(number(inner)?),
        "doubleValue" => Any::Real(number(inner)?),
        "arrayValue" => Any::List(proto::ArrayValue { values: list(inner, "values", any)? }),
        "kvlistValue" => Any::Map(proto::KeyValueList { values: list(inner, "values", pair)? }),
        "bytesValue" => Any::Bytes(STANDARD.decode(inner.as_str()?).ok()?),
        _ => return Some(proto::AnyValue::default()),
    };
    Some(proto::AnyValue { value: Some(found) })
}
