use super::*;
use hyper::Response;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

fn noted(
    text: &[u8],
    protocol: Protocol,
    more: &[(&'static str, &'static str)],
) -> (Option<String>, Option<String>, Option<Unexamined>) {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.headers = headers(more);
    let unexamined = note(&mut parts, &Bytes::copy_from_slice(text), protocol);
    let text = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    (text(header::NONFINITE), text(header::ANSWER), unexamined)
}

fn oip(id: &str, value: &str) -> String {
    let output = format!(r#"{{"name":"y","shape":[1],"datatype":"FP32","data":[{value}]}}"#);
    format!(r#"{{"model_name":"m","id":"{id}","outputs":[{output}]}}"#)
}

#[test]
fn answers_are_looked_at_in_every_form_that_can_be_read() {
    let of = |text: &str| noted(text.as_bytes(), Protocol::Oip, &[]);
    assert_eq!(of(&oip("a", "1.5")), of(&oip("b", "1.5")));
    assert_ne!(of(&oip("a", "1.5")).1, of(&oip("a", "2.5")).1);
    assert_eq!(of(&oip("a", "NaN")).0.as_deref(), Some("1"));
    assert_eq!((of(&oip("a", "1.5")).0, of(&oip("a", "1.5")).2), (None, None));
    assert!(noted(br#"{"predictions":[1]}"#, Protocol::Mlflow, &[]).1.is_some());
    let packed = Encoding::Gzip.pack(oip("a", "NaN").as_bytes()).unwrap();
    let gzip = [("content-encoding", "gzip")];
    assert_eq!(noted(&packed, Protocol::Oip, &gzip).0.as_deref(), Some("1"));
    let csv = [("content-type", "text/csv; charset=utf-8")];
    let found = noted(b"0.5,nan\n-inf, 2\nnancy,1", Protocol::Mlflow, &csv);
    assert_eq!((found.0.as_deref(), found.2), (Some("2"), None));
}

#[test]
fn what_can_t_be_read_is_told_and_never_taken_for_good() {
    let br = [("content-encoding", "br")];
    let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
    let packed = Encoding::Gzip.pack(&vec![b'1'; LOOKED_AT + 1]).unwrap();
    for (text, headers, why) in [
        (&b"{}"[..], &br[..], Unexamined::Encoding),
        (b"{}", &twice, Unexamined::Encoding),
        (b"{}", &[("content-encoding", "gzip")], Unexamined::Form),
        (&packed, &[("content-encoding", "gzip")], Unexamined::Size),
        (b"<html>", &[], Unexamined::Form),
        (b"", &[], Unexamined::Form),
        (b"\x93NUMPY", &[], Unexamined::Form),
        (b"{}", &[("inference-header-content-length", "9")], Unexamined::Form),
    ] {
        let found = noted(text, Protocol::Oip, headers);
        assert_eq!(found, (None, None, Some(why)), "{headers:?}");
    }
    // Texts are not looked at, and refusals are no answers.
    assert_eq!(noted(b"x", Protocol::Openai, &br).2, None);
    let (mut parts, ()) = Response::builder().status(404).body(()).unwrap().into_parts();
    assert_eq!(note(&mut parts, &Bytes::from_static(b"<html>"), Protocol::Oip), None);
}

#[test]
fn what_another_server_claims_is_taken_away() {
    let mut all = headers(&[("x-lockgate-nonfinite", "5"), ("x-lockgate-answer", "1"), ("x-other", "2")]);
    disbelieve(&mut all);
    assert_eq!(all, headers(&[("x-other", "2")]));
}

#[test]
fn events_are_told_by_their_content_type() {
    let is = |kind: &'static str| is_events(&headers(&[("content-type", kind)]));
    assert!(is("text/event-stream") && is("Text/Event-Stream; charset=utf-8"));
    assert!(!is("application/json") && !is("text/event") && !is_events(&HeaderMap::new()));
}

#[test]
fn an_answer_is_looked_at_while_it_passes_where_its_form_allows_it() {
    let json = ("content-type", "application/json");
    let ahead = |pairs: &[_], protocol| Look::ahead(&headers(pairs), protocol, true);
    let (mut look, why) = ahead(&[json], Protocol::Oip);
    look.see(b"[1, Na");
    assert_eq!((look.failed(), why), (None, None));
    look.see(b"N]");
    assert_eq!(look.failed(), Some(ErrorClass::Nonfinite));
    for (pairs, why) in [
        (&[json, ("content-encoding", "zstd")][..], Unexamined::Encoding),
        (&[json, ("content-encoding", "gzip")], Unexamined::Size),
        (&[json, ("inference-header-content-length", "9")], Unexamined::Size),
        (&[], Unexamined::Form),
    ] {
        assert_eq!(ahead(pairs, Protocol::Oip).1, Some(why), "{pairs:?}");
    }
    assert_eq!(ahead(&[json], Protocol::Openai).1, None);
    assert_eq!(Look::ahead(&HeaderMap::new(), Protocol::Oip, false).1, None);
    let events = ("content-type", "text/event-stream");
    let (mut look, why) = ahead(&[events], Protocol::Openai);
    look.see(b"data: {}\n\n");
    assert!(look.is_cut_short() && why.is_none());
    look.see(b"data: [DONE]\n\n");
    assert!(look.is_done() && !look.is_cut_short());
    assert_eq!(ahead(&[events, ("content-encoding", "br")], Protocol::Openai).1, Some(Unexamined::Encoding));
}

#[test]
fn gates_are_told_what_is_wrong_with_an_answer() {
    let of = |protocol, pairs: &[_], body: &'static [u8]| {
        fault(protocol, &headers(pairs), &Bytes::from_static(body))
    };
    let json = ("content-type", "application/json");
    let events = ("content-type", "text/event-stream");
    assert_eq!(of(ServerProtocol::Mlflow, &[json], b"{\"predictions\":[1]}"), None);
    for (protocol, pairs, body, words) in [
        (ServerProtocol::Mlflow, &[json][..], &b"[NaN]"[..], "1 numbers"),
        (ServerProtocol::Oip, &[json, ("content-encoding", "br")], b"{}", "can't be examined"),
        (ServerProtocol::Openai, &[events], b"data: {}\n\n", "[DONE]"),
        (
            ServerProtocol::Openai,
            &[events],
            b"data: {\"error\":{}}\n\ndata: [DONE]\n\n",
            "says that it failed",
        ),
        (ServerProtocol::Openai, &[events, ("content-encoding", "br")], b"x", "can't be examined"),
    ] {
        let told = of(protocol, pairs, body);
        assert!(told.as_ref().is_some_and(|told| told.contains(words)), "{told:?}");
    }
    assert_eq!(of(ServerProtocol::Openai, &[events], b"data: {}\n\ndata: [DONE]\n\n"), None);
    assert_eq!(of(ServerProtocol::Openai, &[json], b"{\"choices\":[]}"), None);
}
