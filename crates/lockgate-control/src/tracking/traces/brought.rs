//! Spans that other stores bring as JSON, like in the clients' own files.

use super::super::{Span, TrackingError};
use super::spans::{COST, KIND, TOKEN_USE, plain};
use super::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How long ids of spans are at the most.
const ID: usize = 50;

fn wrong(what: &str) -> TrackingError {
    TrackingError::invalid(format!("one of its spans {what}"))
}

/// An id in hexadecimal digits.
fn id(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text).ok()?;
    let digits = hex::encode(bytes);
    (!digits.is_empty() && digits.len() <= ID).then_some(digits)
}

/// The row of a span that is written in this way.
pub(in super::super) fn from_content(trace: &str, content: &str) -> Result<Span, TrackingError> {
    let tree = Tree::parse(content).ok_or_else(|| wrong("is no JSON"))?;
    let text = |key: &str| tree.get(key).and_then(Tree::as_text);
    let span_id = text("span_id").and_then(id).ok_or_else(|| wrong("has no id"))?;
    let lacks = |what: &str| wrong(&format!("(`{span_id}`) {what}"));
    let parent_id = match text("parent_span_id").filter(|text| !text.is_empty()) {
        Some(text) => Some(id(text).ok_or_else(|| lacks("has a parent whose id is none"))?),
        None => None,
    };
    let attributes = match tree.get("attributes") {
        None | Some(Tree::Null) => &[][..],
        Some(Tree::Map(pairs)) => pairs.as_slice(),
        Some(_) => return Err(lacks("has attributes that are no map")),
    };
    let of = |name: &str| {
        let found = attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)?;
        Some(found.as_text().map_or_else(|| found.dump(), str::to_owned))
    };
    let object = |name: &str| of(name).filter(|text| matches!(Tree::parse(text), Some(Tree::Map(_))));
    let status = tree.get("status").and_then(|status| status.get("code")).and_then(Tree::as_text);
    let status = status.unwrap_or("UNSET").trim_start_matches("STATUS_CODE_").to_owned();
    let time = |key: &str| tree.get(key).and_then(Tree::as_count);
    Ok(Span {
        trace_id: trace.to_owned(),
        parent_id,
        name: text("name").unwrap_or_default().to_owned(),
        kind: of(KIND).map(|value| plain(&value)),
        status: if matches!(status.as_str(), "OK" | "ERROR") { status } else { "UNSET".to_owned() },
        start_ns: time("start_time_unix_nano").ok_or_else(|| lacks("has no time at which it began"))?,
        end_ns: time("end_time_unix_nano").unwrap_or_default(),
        token_use: object(TOKEN_USE),
        cost: object(COST),
        content: tree.dump(),
        span_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_made_of_what_the_json_says() {
        let content = r#"{"trace_id": "b9Qv63uZ/pWNSlrZTPVsGw==", "span_id": "mhoPR/DFvT4=", "parent_span_id": "CBxJhV94TY8=",
            "name": "f", "start_time_unix_nano": 5, "end_time_unix_nano": null, "status": {"code": "STATUS_CODE_ERROR"},
            "attributes": {"mlflow.spanType": "\"LLM\"", "k": NaN, "mlflow.chat.tokenUsage": "{\"input_tokens\": 3}"}}"#;
        let span = from_content("tr-1", content).unwrap();
        assert_eq!(
            (span.span_id.as_str(), span.parent_id.as_deref()),
            ("9a1a0f47f0c5bd3e", Some("081c49855f784d8f"))
        );
        assert_eq!((span.kind.as_deref(), span.status.as_str()), (Some("LLM"), "ERROR"));
        assert_eq!((span.start_ns, span.end_ns, span.cost), (5, 0, None));
        assert_eq!(span.token_use.as_deref(), Some(r#"{"input_tokens": 3}"#));
        assert!(span.content.contains(r#""name": "f""#) && span.content.contains(r#""k": NaN"#));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for (content, why) in [
            ("{", "no JSON"),
            ("[]", "no id"),
            (r#"{"span_id": "../x"}"#, "no id"),
            (r#"{"span_id": ""}"#, "no id"),
            (r#"{"span_id": "mhoPR/DFvT4="}"#, "no time"),
            (r#"{"span_id": "mhoPR/DFvT4=", "start_time_unix_nano": NaN}"#, "no time"),
            (r#"{"span_id": "mhoPR/DFvT4=", "start_time_unix_nano": 1, "parent_span_id": "?"}"#, "parent"),
            (r#"{"span_id": "mhoPR/DFvT4=", "start_time_unix_nano": 1, "attributes": 7}"#, "no map"),
        ] {
            let refused = from_content("t", content).unwrap_err().to_string();
            assert!(refused.contains(why), "{content}: {refused}");
        }
    }
}
