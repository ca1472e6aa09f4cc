//! Servers that a team brings, in the place of workers: which requests one takes, under which path, and in which form.

use crate::answer;
use crate::attempt::{Answer, Answered, Outbound};
use crate::log::Protocol;
use crate::table::Side;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use lockgate_core::server::{Server, ServerProtocol};
use lockgate_wire::Encoding;
use lockgate_wire::oip::encode;
use lockgate_wire::openai::Asked;
use std::borrow::Cow;
use std::sync::Arc;

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
    let answer = Answer::Whole(body);
    Some(Answered { parts, body: answer, unexamined: None, side: Arc::clone(side), sent: None })
}

/// Lets a server pack its answers only in a way that can be read here, and streams of events not at all.
pub(crate) fn accept(headers: &mut HeaderMap, protocol: Protocol) {
    let wanted = headers.get(ACCEPT_ENCODING).filter(|_| protocol != Protocol::Openai);
    let ours = wanted.and_then(|value| Encoding::accepted(value.as_bytes()));
    let said = HeaderValue::from_static(ours.map_or("identity", Encoding::as_str));
    headers.insert(ACCEPT_ENCODING, said);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Payload;
    use hyper::Method;

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
    fn a_server_is_asked_to_pack_its_answers_as_they_can_be_read_here() {
        let asked = |wanted: Option<&'static str>, protocol| {
            let mut headers = HeaderMap::new();
            wanted.map(|text| headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text)));
            accept(&mut headers, protocol);
            headers[ACCEPT_ENCODING].to_str().unwrap().to_owned()
        };
        for (wanted, said) in [
            (None, "identity"),
            (Some("br, zstd"), "identity"),
            (Some("br;q=1.0, gzip;q=0.5, *;q=0.1"), "gzip"),
            (Some("deflate"), "deflate"),
            (Some("gzip;q=0"), "identity"),
        ] {
            assert_eq!(asked(wanted, Protocol::Oip), said, "{wanted:?}");
        }
        assert_eq!(asked(Some("gzip"), Protocol::Openai), "identity");
    }
}
