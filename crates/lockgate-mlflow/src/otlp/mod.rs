//! Spans in OpenTelemetry's protocol over HTTP: protobuf or JSON, compressed or not.
//!
//! | module | subject |
//! |---|---|
//! | `proto` | the messages, as far as they are used |
//! | `json` | the same from JSON |

mod json;
mod proto;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use lockgate_control::tracking::{NewSpan, SpanEvent, SpanGroup, SpanLink, SpanStatus, Tree};
use prost::Message as _;
use proto::any_value::Value;
use std::io::Read;

/// The largest request once it is decompressed.
const LIMIT: u64 = 64 << 20;

/// Why a request is refused: the status that MLflow's own server answers with, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

fn refusal<T>(status: u16, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, reason: reason.into() })
}

/// How the messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

impl Form {
    /// The form that a content type names.
    pub(crate) fn of(content_type: Option<&str>) -> Result<Self, Refusal> {
        match content_type.and_then(|kind| kind.split(';').next()).map(str::trim) {
            Some("application/x-protobuf") => Ok(Self::Protobuf),
            Some("application/json") => Ok(Self::Json),
            _ => refusal(
                400,
                format!(
                    "Invalid Content-Type: {}. Expected: application/x-protobuf or application/json",
                    content_type.unwrap_or("None")
                ),
            ),
        }
    }
}

fn inflated(reader: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LIMIT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LIMIT).then_some(bytes)
}

/// The body as it was before it was compressed.
pub(crate) fn decompressed(body: Vec<u8>, encoding: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let Some(encoding) = encoding.filter(|encoding| !encoding.is_empty()) else { return Ok(body) };
    let (name, bytes) = match encoding.to_ascii_lowercase().as_str() {
        "gzip" => ("gzip", inflated(MultiGzDecoder::new(body.as_slice()))),
        // Some senders leave zlib's frame out.
        "deflate" => (
            "deflate",
            inflated(ZlibDecoder::new(body.as_slice()))
                .or_else(|| inflated(DeflateDecoder::new(body.as_slice()))),
        ),
        other => return refusal(400, format!("Unsupported Content-Encoding: {other}")),
    };
    match bytes {
        Some(bytes) => Ok(bytes),
        None => refusal(400, format!("Failed to decompress {name} payload")),
    }
}

/// Reads a request.
pub(crate) fn groups(body: &[u8], form: Form) -> Result<Vec<SpanGroup>, Refusal> {
    let unreadable = || Refusal { status: 400, reason: "Invalid OpenTelemetry format".to_owned() };
    let request = match form {
        Form::Protobuf => proto::ExportRequest::decode(body).map_err(|_| unreadable())?,
        Form::Json => json::request(body).ok_or_else(unreadable)?,
    };
    if request.resource_spans.is_empty() {
        return refusal(400, "Invalid OpenTelemetry format - no spans found");
    }
    request.resource_spans.into_iter().map(group).collect()
}

fn group(found: proto::ResourceSpans) -> Result<SpanGroup, Refusal> {
    let resource = pairs(found.resource.unwrap_or_default().attributes);
    let spans = found.scope_spans.into_iter().flat_map(|scope| scope.spans);
    Ok(SpanGroup { resource, spans: spans.map(span).collect::<Result<_, _>>()? })
}

/// An id in hexadecimal digits, as long as it should be.
fn id(bytes: &[u8], length: usize) -> Option<String> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let short = digits.trim_start_matches('0');
    (!bytes.is_empty() && short.len() <= 2 * length).then(|| format!("{short:0>width$}", width = 2 * length))
}

fn time(nanos: u64) -> Option<i64> {
    i64::try_from(nanos).ok()
}

fn span(found: proto::Span) -> Result<NewSpan, Refusal> {
    converted(found).map_or_else(|| refusal(422, "Cannot convert OpenTelemetry span to MLflow span"), Ok)
}

fn converted(found: proto::Span) -> Option<NewSpan> {
    let status = found.status.unwrap_or_default();
    let event = |event: proto::Event| {
        let at_ns = time(event.time_unix_nano)?;
        Some(SpanEvent { name: event.name, at_ns, attributes: pairs(event.attributes) })
    };
    let link = |link: proto::Link| {
        let (trace, span_id) = (id(&link.trace_id, 16)?, id(&link.span_id, 8)?);
        Some(SpanLink { trace, span_id, attributes: pairs(link.attributes) })
    };
    Some(NewSpan {
        trace: id(&found.trace_id, 16)?,
        span_id: id(&found.span_id, 8)?,
        parent_id: match found.parent_span_id.as_slice() {
            // Some senders write zeros where there is none.
            bytes if bytes.iter().all(|byte| *byte == 0) => None,
            bytes => Some(id(bytes, 8)?),
        },
        name: found.name,
        start_ns: time(found.start_time_unix_nano)?,
        end_ns: time(found.end_time_unix_nano)?,
        status: match status.code {
            1 => SpanStatus::Ok,
            2 => SpanStatus::Error,
            _ => SpanStatus::Unset,
        },
        message: status.message,
        attributes: pairs(found.attributes),
        events: found.events.into_iter().map(event).collect::<Option<_>>()?,
        links: found.links.into_iter().map(link).collect::<Option<_>>()?,
    })
}

fn pairs(found: Vec<proto::KeyValue>) -> Vec<(String, Tree)> {
    found.into_iter().map(|pair| (pair.key, tree(pair.value))).collect()
}

fn tree(found: Option<proto::AnyValue>) -> Tree {
    match found.and_then(|any| any.value) {
        None => Tree::Null,
        Some(Value::Text(text)) => Tree::Text(text),
        Some(Value::Flag(flag)) => Tree::Bool(flag),
        Some(Value::Int(number)) => Tree::Int(number),
        Some(Value::Real(number)) => Tree::Real(number),
        Some(Value::List(list)) => Tree::List(list.values.into_iter().map(|one| tree(Some(one))).collect()),
        Some(Value::Map(map)) => Tree::Map(pairs(map.values)),
        Some(Value::Bytes(bytes)) => Tree::Text(STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests;
