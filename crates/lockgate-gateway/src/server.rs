//! Servers that a team brings, in the place of workers: which requests one takes, under which path, and what its answers say.
//!
//! A worker of ours says of its answer how many numbers are not finite, and a hash of it. For other servers the gateway looks.

use crate::answer::{self, header};
use crate::attempt::{Answer, Answered, Outbound};
use crate::log::{BodyForm, Protocol};
use crate::table::Side;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::http::uri::PathAndQuery;
use lockgate_core::server::{Server, ServerProtocol};
use lockgate_wire::Limits;
use lockgate_wire::json::nonfinite;
use lockgate_wire::oip::{InferResponse, ResponseHead, encode, write_response};
use lockgate_wire::openai::Asked;
use std::borrow::Cow;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Answers up to this size are looked at once they are unpacked.
const LOOKED_AT: usize = 4 << 20;

/// What only a worker of ours says.
const OF_WORKERS: [&str; 4] = [header::NONFINITE, header::ANSWER, header::ROWS, header::INFER_US];

/// The answer to a request that a side can't be asked, because what serves it doesn't speak its protocol. That refusal is the
/// side's: a candidate that leaves some clients alone is worse than a baseline that answers them.
pub(crate) fn refusal(side: &Arc<Side>, protocol: Protocol) -> Option<Answered> {
    let (speaks, own) = match (side.server.as_ref().map(|s| s.protocol), protocol) {
        (None, Protocol::Openai) => ("no OpenAI API", ""),
        (None, _)
        | (Some(ServerProtocol::Oip), Protocol::Oip)
        | (Some(ServerProtocol::Mlflow | ServerProtocol::Sagemaker), Protocol::Mlflow)
        | (Some(ServerProtocol::Tfs), Protocol::Tfs)
        | (Some(ServerProtocol::Openai), Protocol::Openai) => return None,
        (Some(own), _) => (own.title(), "only "),
    };
    let message = format!("what serves release {} of this model speaks {own}{speaks}", side.release.short());
    let reply = answer::json(StatusCode::NOT_FOUND, Bytes::new());
    let (parts, _) = reply.into_parts();
    let body = answer::error_body(StatusCode::NOT_FOUND, &message, protocol);
    Some(Answered { parts, body: Answer::Whole(body), side: Arc::clone(side), sent: None })
}

/// Whether an answer is a stream of events.
pub(crate) fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

/// The path under which a server knows what is asked.
pub(crate) fn path(server: &Server, out: &Outbound) -> PathAndQuery {
    let (prefix, ends): (&str, &[char]) = match out.protocol {
        Protocol::Oip => ("/v2/models/", &['/', '?']),
        Protocol::Tfs => ("/v1/models/", &['/', ':', '?']),
        Protocol::Mlflow | Protocol::Grpc | Protocol::Openai => return out.path.clone(),
    };
    let whole = out.path.as_str();
    let Some(rest) = whole.get(prefix.len()..) else { return out.path.clone() };
    let from = |text: &str| text.find(ends).unwrap_or(text.len());
    let mut tail = rest.get(from(rest)..).unwrap_or_default();
    for word in ["/versions/", "/labels/"] {
        if tail.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
            let behind = tail.get(word.len()..).unwrap_or_default();
            tail = behind.get(from(behind)..).unwrap_or_default();
        }
    }
    let version = server.version.as_ref().map_or_else(String::new, |v| format!("/versions/{}", encode(v)));
    let path = format!("{prefix}{}{version}{tail}", encode(&server.model));
    PathAndQuery::try_from(path).unwrap_or_else(|_| out.path.clone())
}

/// The body as a server gets it: OpenAI's names the model.
pub(crate) fn body<'b>(server: &Server, protocol: Protocol, bytes: &'b Bytes) -> Cow<'b, Bytes> {
    match (protocol, Asked::parse(bytes)) {
        (Protocol::Openai, Ok(asked)) if asked.model != server.model => {
            Cow::Owned(asked.of_model(bytes, &server.model))
        }
        _ => Cow::Borrowed(bytes),
    }
}

/// Notes of a whole answer what a worker of ours would have said of it.
pub(crate) fn examine(parts: &mut Parts, body: &Bytes, protocol: Protocol) {
    for name in OF_WORKERS {
        parts.headers.remove(name);
    }
    if !parts.status.is_success() || protocol == Protocol::Openai {
        return;
    }
    let Ok(plain) = BodyForm::of(&parts.headers).answer(body, protocol, LOOKED_AT) else { return };
    let count = nonfinite(&plain);
    if count > 0 {
        parts.headers.insert(HeaderName::from_static(header::NONFINITE), HeaderValue::from(count));
    }
    let limits = Limits { max_elements: LOOKED_AT, ..Limits::default() };
    let hash = match protocol {
        // An answer has an id of its own.
        Protocol::Oip => InferResponse::parse(&plain, &limits)
            .map(|answer| xxh3_64(&write_response(&ResponseHead::default(), &answer.outputs)))
            .ok(),
        _ => Some(xxh3_64(&plain)),
    };
    if let Some(Ok(hash)) = hash.map(|hash| HeaderValue::from_str(&format!("{hash:016x}"))) {
        parts.headers.insert(HeaderName::from_static(header::ANSWER), hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Payload;
    use hyper::{Method, Response};

    fn server(protocol: ServerProtocol, version: Option<&str>) -> Server {
        let version = version.map(str::to_owned);
        Server { protocol, model: "in side".to_owned(), version, health: None, stream_ms: 1000 }
    }

    fn asked(protocol: Protocol, path: &'static str, server: &Server) -> String {
        let path = PathAndQuery::from_static(path);
        let payload = Payload::Whole(Bytes::new());
        let out = Outbound { method: Method::POST, path, headers: HeaderMap::new(), payload, protocol };
        super::path(server, &out).as_str().to_owned()
    }

    #[test]
    fn a_server_is_asked_by_its_own_name_and_version_of_the_model() {
        let (oip, tfs) = (server(ServerProtocol::Oip, None), server(ServerProtocol::Tfs, Some("7")));
        let pinned = server(ServerProtocol::Oip, Some("7"));
        for (protocol, path, server, wanted) in [
            (Protocol::Oip, "/v2/models/m/infer", &oip, "/v2/models/in%20side/infer"),
            (Protocol::Oip, "/v2/models/m/versions/3/infer?x=1", &oip, "/v2/models/in%20side/infer?x=1"),
            (Protocol::Oip, "/v2/models/m", &pinned, "/v2/models/in%20side/versions/7"),
            (Protocol::Oip, "/v2/models/m/versions/3", &pinned, "/v2/models/in%20side/versions/7"),
            (Protocol::Tfs, "/v1/models/m:predict", &tfs, "/v1/models/in%20side/versions/7:predict"),
            (
                Protocol::Tfs,
                "/V1/models/m/versions/3:predict",
                &tfs,
                "/v1/models/in%20side/versions/7:predict",
            ),
            (Protocol::Tfs, "/v1/models/m/metadata", &tfs, "/v1/models/in%20side/versions/7/metadata"),
            (Protocol::Mlflow, "/invocations", &oip, "/invocations"),
        ] {
            assert_eq!(asked(protocol, path, server), wanted, "{path}");
        }
        let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
        let openai = server(ServerProtocol::Openai, None);
        assert_eq!(&**super::body(&openai, Protocol::Openai, &body), br#"{"model":"in side","messages":[]}"#);
        assert_eq!(&**super::body(&openai, Protocol::Mlflow, &body), &*body);
    }

    #[test]
    fn answers_of_other_servers_are_looked_at_and_what_they_claim_is_not_believed() {
        let examined = |text: &str, protocol| {
            let (mut parts, ()) = Response::new(()).into_parts();
            parts.headers.insert(header::NONFINITE, HeaderValue::from(5));
            examine(&mut parts, &Bytes::copy_from_slice(text.as_bytes()), protocol);
            let text = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            (text(header::NONFINITE), text(header::ANSWER))
        };
        let oip = |id: &str, value: &str| {
            let output = format!(r#"{{"name":"y","shape":[1],"datatype":"FP32","data":[{value}]}}"#);
            examined(&format!(r#"{{"model_name":"m","id":"{id}","outputs":[{output}]}}"#), Protocol::Oip)
        };
        assert_eq!(oip("a", "1.5"), oip("b", "1.5"));
        assert_ne!(oip("a", "1.5").1, oip("a", "2.5").1);
        assert_eq!(oip("a", "NaN").0.as_deref(), Some("1"));
        assert_eq!(oip("a", "1.5").0, None);
        assert!(examined(r#"{"predictions":[1]}"#, Protocol::Mlflow).1.is_some());
        assert_eq!(examined("no json", Protocol::Oip), (None, None));
    }

    #[test]
    fn events_are_told_by_their_content_type() {
        let is = |kind: &'static str| {
            is_events(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(is("text/event-stream") && is("Text/Event-Stream; charset=utf-8"));
        assert!(!is("application/json") && !is("text/event") && !is_events(&HeaderMap::new()));
    }
}
