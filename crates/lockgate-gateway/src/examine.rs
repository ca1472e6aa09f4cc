//! Looking at answers of servers that a team brings. A worker of ours says of its answer how many numbers are not finite, and a
//! hash of it; what another server claims is not believed. What can't be looked at proves nothing, and is told.

use crate::answer::header;
use crate::log::{BodyForm, Protocol};
use crate::meter::ErrorClass;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use lockgate_core::server::ServerProtocol;
use lockgate_wire::json::{Nonfinite, nonfinite};
use lockgate_wire::oip::{InferResponse, ResponseHead, write_response};
use lockgate_wire::openai::Events;
use lockgate_wire::{Encoding, Limits};
use xxhash_rust::xxh3::xxh3_64;

/// Answers up to this size are looked at once they are unpacked.
const LOOKED_AT: usize = 4 << 20;

/// What all headers of ours begin with.
const OURS: &str = "x-lockgate-";

/// Why an answer could not be looked at. It is no error, and no proof of a good answer either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unexamined {
    /// It is packed in a way that is not read here.
    Encoding,
    /// It is too large for its form.
    Size,
    /// It has no form that its protocol has.
    Form,
}

impl Unexamined {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Encoding, Self::Size, Self::Form];

    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Size => "size",
            Self::Form => "form",
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Encoding => "it is packed, and not with gzip or deflate",
            Self::Size => "it is too large",
            Self::Form => "it has no form that its protocol has",
        }
    }
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Found {
    nonfinite: u64,
    hash: Option<u64>,
    unexamined: Option<Unexamined>,
}

impl Found {
    fn not(why: Unexamined) -> Self {
        Self { unexamined: Some(why), ..Self::default() }
    }
}

/// Whether an answer is a stream of events.
#[must_use]
pub fn is_events(headers: &HeaderMap) -> bool {
    is_kind(headers, b"text/event-stream")
}

fn is_kind(headers: &HeaderMap, kind: &[u8]) -> bool {
    let said = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    said.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// How a body is packed; none where that is not read here.
fn packed(headers: &HeaderMap) -> Option<Option<Encoding>> {
    let mut said = headers.get_all(CONTENT_ENCODING).iter();
    match (said.next(), said.next()) {
        (None, _) => Some(None),
        (Some(one), None) => Encoding::parse(one.as_bytes()).ok(),
        (Some(_), Some(_)) => None,
    }
}

/// Takes away what only a worker of ours says.
pub(crate) fn disbelieve(headers: &mut HeaderMap) {
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

/// Notes of a whole answer what a worker of ours would have said of it; says why where it can't be looked at.
pub(crate) fn note(parts: &mut Parts, body: &Bytes, protocol: Protocol) -> Option<Unexamined> {
    let found = whole(parts.status, &parts.headers, body, protocol);
    if found.nonfinite > 0 {
        let count = HeaderValue::from(found.nonfinite);
        parts.headers.insert(HeaderName::from_static(header::NONFINITE), count);
    }
    let hash = found.hash.map(|hash| HeaderValue::from_str(&format!("{hash:016x}")));
    if let Some(Ok(hash)) = hash {
        parts.headers.insert(HeaderName::from_static(header::ANSWER), hash);
    }
    found.unexamined
}

fn whole(status: StatusCode, headers: &HeaderMap, body: &Bytes, protocol: Protocol) -> Found {
    // Texts are nobody's numbers.
    if !status.is_success() || protocol == Protocol::Openai {
        return Found::default();
    }
    if packed(headers).is_none() {
        return Found::not(Unexamined::Encoding);
    }
    let plain = match BodyForm::of(headers).answer(body, protocol, LOOKED_AT) {
        Ok(plain) => plain,
        Err(error) if error.status == 413 => return Found::not(Unexamined::Size),
        Err(_) => return Found::not(Unexamined::Form),
    };
    if is_kind(headers, b"text/csv") {
        return Found { nonfinite: in_csv(&plain), hash: Some(xxh3_64(&plain)), unexamined: None };
    }
    if !is_json(&plain) {
        return Found::not(Unexamined::Form);
    }
    let limits = Limits { max_elements: LOOKED_AT, ..Limits::default() };
    let hash = match protocol {
        // An answer has an id of its own.
        Protocol::Oip => InferResponse::parse(&plain, &limits)
            .map(|answer| xxh3_64(&write_response(&ResponseHead::default(), &answer.outputs)))
            .ok(),
        _ => Some(xxh3_64(&plain)),
    };
    Found { nonfinite: nonfinite(&plain), hash, unexamined: None }
}

/// Whether a text begins as JSON does.
fn is_json(text: &[u8]) -> bool {
    let start = text.trim_ascii_start().first();
    start.is_some_and(|b| b.is_ascii_digit() || b"{[\"-tfnNI".contains(b))
}

/// How many cells of a table are words for numbers that are none.
fn in_csv(text: &[u8]) -> u64 {
    let cells = text.split(|b| b",;\t\r\n ".contains(b)).map(|cell| cell.trim_ascii());
    let bare = cells.map(|cell| cell.strip_prefix(b"-").or(cell.strip_prefix(b"+")).unwrap_or(cell));
    let is_none =
        |cell: &&[u8]| ["nan", "inf", "infinity"].iter().any(|w| cell.eq_ignore_ascii_case(w.as_bytes()));
    bare.filter(is_none).count() as u64
}

/// What is wrong with an answer whose status is good, in words: for gates, which have all of it.
#[must_use]
pub fn fault(protocol: ServerProtocol, headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let protocol = match protocol {
        ServerProtocol::Oip => Protocol::Oip,
        ServerProtocol::Mlflow | ServerProtocol::Sagemaker => Protocol::Mlflow,
        ServerProtocol::Tfs => Protocol::Tfs,
        ServerProtocol::Openai => Protocol::Openai,
    };
    let unexamined = |why: Unexamined| Some(format!("it can't be examined: {}", why.words()));
    if is_events(headers) {
        let (mut look, why) = Look::ahead(headers, protocol, true);
        look.see(body);
        return match (look.failed(), why) {
            (Some(_), _) => Some("its stream says that it failed".to_owned()),
            (None, Some(why)) => unexamined(why),
            (None, None) if look.is_cut_short() => Some("its stream ended without `data: [DONE]`".to_owned()),
            (None, None) => None,
        };
    }
    match whole(StatusCode::OK, headers, body, protocol) {
        Found { nonfinite: 0, unexamined: why, .. } => why.and_then(unexamined),
        Found { nonfinite, .. } => Some(format!("{nonfinite} numbers of the answer are not finite")),
    }
}

/// Looks at an answer while it passes.
#[derive(Debug)]
pub(crate) enum Look {
    /// A stream of events, whose end is an event of its own.
    Chat(Events),
    /// A stream of events.
    Events(Events),
    /// JSON.
    Numbers(Nonfinite),
    /// There is nothing to see.
    Nothing,
}

impl Look {
    /// How the answer of a server that a team brings is looked at; and why, where it can't be.
    pub(crate) fn ahead(
        headers: &HeaderMap,
        protocol: Protocol,
        success: bool,
    ) -> (Self, Option<Unexamined>) {
        let events = is_events(headers);
        if !success || (protocol == Protocol::Openai && !events) {
            return (Self::Nothing, None);
        }
        let form = BodyForm::of(headers);
        match packed(headers) {
            None => (Self::Nothing, Some(Unexamined::Encoding)),
            // To unpack it on the way would hold up others.
            Some(Some(_)) => (Self::Nothing, Some(Unexamined::Size)),
            Some(None) if events && protocol == Protocol::Openai => (Self::Chat(Events::default()), None),
            Some(None) if events => (Self::Events(Events::default()), None),
            Some(None) if form.json.is_some() => (Self::Nothing, Some(Unexamined::Size)),
            Some(None) if is_kind(headers, b"application/json") => {
                (Self::Numbers(Nonfinite::default()), None)
            }
            Some(None) => (Self::Nothing, Some(Unexamined::Form)),
        }
    }

    pub(crate) fn see(&mut self, bytes: &[u8]) {
        match self {
            Self::Chat(events) | Self::Events(events) => events.see(bytes),
            Self::Numbers(numbers) => numbers.see(bytes),
            Self::Nothing => {}
        }
    }

    /// What it says of a failure.
    pub(crate) fn failed(&self) -> Option<ErrorClass> {
        match self {
            Self::Chat(events) | Self::Events(events) => events.has_failed().then_some(ErrorClass::Http5xx),
            Self::Numbers(numbers) => (numbers.found() > 0).then_some(ErrorClass::Nonfinite),
            Self::Nothing => None,
        }
    }

    /// Whether it has said itself that it is at its end.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Chat(events) if events.is_done())
    }

    /// Whether an end now would come too early: a server that dies over a connection without lengths looks as if it had said
    /// all.
    pub(crate) fn is_cut_short(&self) -> bool {
        matches!(self, Self::Chat(events) if !events.is_done())
    }
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
