//! Spans as they arrive, and the rows that are made of them.

use super::super::{KeyValue, Span, TrackingError, checks};
use super::change::FIXED_TAGS;
use super::translate::translate;
use super::tree::Tree;
use super::usage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// The attributes that mean something here.
const REQUEST_ID: &str = "mlflow.traceRequestId";
pub(super) const KIND: &str = "mlflow.spanType";
pub(super) const INPUTS: &str = "mlflow.spanInputs";
pub(super) const OUTPUTS: &str = "mlflow.spanOutputs";
pub(super) const TOKEN_USE: &str = "mlflow.chat.tokenUsage";
pub(super) const COST: &str = "mlflow.llm.cost";
pub(super) const MODEL: &str = "mlflow.llm.model";
const SESSIONS: [&str; 2] = ["session.id", "gen_ai.conversation.id"];
const USER: &str = "user.id";
/// What follows is a tag of the trace.
const TRACE_TAG: &str = "mlflow.traceTag.";

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanStatus {
    /// Nobody said.
    Unset,
    /// Well.
    Ok,
    /// With an error.
    Error,
}

impl SpanStatus {
    /// MLflow's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "UNSET",
            Self::Ok => "OK",
            Self::Error => "ERROR",
        }
    }
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    /// Its name.
    pub name: String,
    /// When, in nanoseconds.
    pub at_ns: i64,
    /// More about it.
    pub attributes: Vec<(String, Tree)>,
}

/// Another span that a span has to do with.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanLink {
    /// Its trace: 32 hexadecimal digits.
    pub trace: String,
    /// Its id: 16 hexadecimal digits.
    pub span_id: String,
    /// More about it.
    pub attributes: Vec<(String, Tree)>,
}

/// A span as it arrives by OpenTelemetry's protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSpan {
    /// Its trace: 32 hexadecimal digits.
    pub trace: String,
    /// Its id: 16 hexadecimal digits.
    pub span_id: String,
    /// The span it is a part of.
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds.
    pub start_ns: i64,
    /// When it ended; 0 where it didn't.
    pub end_ns: i64,
    /// How it ended.
    pub status: SpanStatus,
    /// What the status says.
    pub message: String,
    /// What it did, and with what.
    pub attributes: Vec<(String, Tree)>,
    /// What happened during it.
    pub events: Vec<SpanEvent>,
    /// What it has to do with.
    pub links: Vec<SpanLink>,
}

/// Spans of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanGroup {
    /// What is known about the process.
    pub resource: Vec<(String, Tree)>,
    /// The spans.
    pub spans: Vec<NewSpan>,
}

/// A span's row, and what it says about its trace.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) row: Span,
    pub(super) inputs: Option<String>,
    pub(super) outputs: Option<String>,
    pub(super) session: Option<String>,
    pub(super) user: Option<String>,
    pub(super) tags: Vec<KeyValue>,
}

/// The id that MLflow gives the trace.
pub(super) fn trace_id(hex: &str) -> String {
    format!("tr-{hex}")
}

/// A text that may be JSON of a text.
pub(super) fn plain(value: &str) -> String {
    match Tree::parse(value) {
        Some(Tree::Text(text)) => text,
        _ => value.to_owned(),
    }
}

/// An attribute's value as JSON. Clients write JSON into texts; then it is that JSON.
pub(super) fn dumped(value: &Tree) -> String {
    if let Tree::Text(text) = value
        && matches!(Tree::parse(text), Some(Tree::Text(_) | Tree::List(_) | Tree::Map(_)))
    {
        return text.clone();
    }
    value.dump()
}

fn attributes(new: &NewSpan) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::with_capacity(new.attributes.len() + 1);
    let id = Tree::Text(trace_id(&new.trace)).dump();
    let all = new.attributes.iter().filter(|(key, _)| key != REQUEST_ID);
    let all = all.map(|(key, value)| (key.clone(), dumped(value)));
    let mut places: HashMap<String, usize> = HashMap::new();
    for (key, value) in std::iter::once((REQUEST_ID.to_owned(), id)).chain(all) {
        match places.get(&key) {
            Some(place) => found[*place].1 = value,
            None => {
                places.insert(key.clone(), found.len());
                found.push((key, value));
            }
        }
    }
    translate(&mut found, &new.events);
    found
}

fn base64(hex_id: &str) -> String {
    STANDARD.encode(hex::decode(hex_id).unwrap_or_default())
}

fn text(value: impl Into<String>) -> Tree {
    Tree::Text(value.into())
}

fn map<const N: usize>(pairs: [(&str, Tree); N]) -> Tree {
    Tree::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The whole span as MLflow's clients write spans into files.
fn content(new: &NewSpan, attributes: &[(String, String)]) -> String {
    let event = |event: &SpanEvent| {
        map([
            ("name", text(event.name.clone())),
            ("time_unix_nano", Tree::Int(event.at_ns)),
            ("attributes", Tree::Map(event.attributes.clone())),
        ])
    };
    let link = |link: &SpanLink| {
        let attributes = match link.attributes.as_slice() {
            [] => Tree::Null,
            some => Tree::Map(some.to_vec()),
        };
        map([
            ("trace_id", text(trace_id(&link.trace))),
            ("span_id", text(link.span_id.clone())),
            ("attributes", attributes),
        ])
    };
    let status = map([
        ("code", text(format!("STATUS_CODE_{}", new.status.as_str()))),
        ("message", text(new.message.clone())),
    ]);
    let attributes = attributes.iter().map(|(key, value)| (key.clone(), text(value.clone()))).collect();
    map([
        ("trace_id", text(base64(&new.trace))),
        ("span_id", text(base64(&new.span_id))),
        ("parent_span_id", new.parent_id.as_deref().map_or(Tree::Null, |id| text(base64(id)))),
        ("name", text(new.name.clone())),
        ("start_time_unix_nano", Tree::Int(new.start_ns)),
        ("end_time_unix_nano", Tree::Int(new.end_ns)),
        ("events", Tree::List(new.events.iter().map(event).collect())),
        ("status", status),
        ("attributes", Tree::Map(attributes)),
        ("links", Tree::List(new.links.iter().map(link).collect())),
    ])
    .dump()
}

/// Makes a row of a span.
pub(super) fn prepared(new: &NewSpan) -> Result<Prepared, TrackingError> {
    let attributes = attributes(new);
    let of = |name: &str| attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let object = |name: &str| of(name).filter(|text| matches!(Tree::parse(text), Some(Tree::Map(_))));
    let session = SESSIONS.iter().find_map(|name| of(name)).map(|value| plain(&value));
    let session = session.filter(|session| !session.is_empty());
    checks::trace_session(session.as_deref().unwrap_or_default())?;
    let root = new.parent_id.is_none();
    let mut tags = Vec::new();
    for (key, value) in attributes.iter().filter(|_| root) {
        let Some(key) = key.strip_prefix(TRACE_TAG).filter(|key| !FIXED_TAGS.contains(key)) else { continue };
        // One that can't be a tag is left out: the span is worth more than the tag.
        tags.extend(checks::trace_tag(KeyValue { key: key.to_owned(), value: plain(value) }).ok());
    }
    let row = Span {
        trace_id: trace_id(&new.trace),
        span_id: new.span_id.clone(),
        parent_id: new.parent_id.clone(),
        name: new.name.clone(),
        kind: of(KIND).map(|value| plain(&value)),
        status: new.status.as_str().to_owned(),
        start_ns: new.start_ns,
        end_ns: new.end_ns,
        token_use: object(TOKEN_USE),
        cost: object(COST),
        content: content(new, &attributes),
    };
    let user = of(USER).map(|value| plain(&value)).filter(|user| !user.is_empty());
    Ok(Prepared {
        row,
        inputs: of(INPUTS).filter(|_| root),
        outputs: of(OUTPUTS).filter(|_| root),
        session,
        user,
        tags,
    })
}

/// What is known about a process, as tags of its traces.
pub(super) fn resource_tags(resource: &[(String, Tree)]) -> Vec<KeyValue> {
    let own = |key: &str| key.starts_with("telemetry.sdk.") || key.starts_with("mlflow.");
    let tag = |(key, value): &(String, Tree)| {
        let value = value.as_text().map_or_else(|| value.dump_ascii(), str::to_owned);
        checks::trace_tag(KeyValue { key: key.clone(), value }).ok()
    };
    resource.iter().filter(|(key, _)| !own(key)).filter_map(tag).collect()
}

/// Tokens and cost over spans.
pub(super) fn sums(spans: &[Span]) -> (Option<Tree>, Option<Tree>) {
    let nodes = |data: fn(&Span) -> Option<&str>| -> Vec<usage::Node<'_>> {
        let node = |span| usage::Node::of(span, data(span));
        spans.iter().map(node).collect()
    };
    let (tokens, costs) = (nodes(|span| span.token_use.as_deref()), nodes(|span| span.cost.as_deref()));
    (usage::tokens(&tokens), usage::cost(&costs))
}
