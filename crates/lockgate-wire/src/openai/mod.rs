//! OpenAI's API, as far as it must be read to pass it on: which model a request is for, and how a stream of events ends.

mod events;

pub use events::Events;

use crate::error::WireError;
use crate::json::{Limits, Scanner, write};
use bytes::Bytes;
use std::ops::Range;

/// A body may describe tools by schemas of their own, whose size is limited by the body's.
const LIMITS: Limits = Limits { max_elements: usize::MAX, max_depth: 128, max_names: usize::MAX };

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Where the name stands in the body, with its quotes.
    place: Range<usize>,
    messages: bool,
    prompt: bool,
    input: bool,
}

impl Asked {
    /// Reads a request's body.
    ///
    /// # Errors
    /// Where it is no object, or names no model, or more than one.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut s = Scanner::new(body, &LIMITS);
        let mut model = None;
        let (mut stream, mut messages, mut prompt, mut input) = (false, false, false, false);
        s.object("an object with `model`", |s, key| match &*key {
            "model" => {
                let _ = s.peek();
                let start = s.position();
                let name = s.string("the model's name").map_err(|e| e.at("model"))?.into_owned();
                // Whoever answers might take another one of two than we do.
                if model.replace((name, start..s.position())).is_some() {
                    return Err(WireError::bad("it is there twice").at("model"));
                }
                Ok(())
            }
            "stream" if !s.accept_word("null") => {
                stream = s.boolean().map_err(|e| e.at("stream"))?;
                Ok(())
            }
            "stream" => Ok(()),
            other => {
                messages |= other == "messages";
                prompt |= other == "prompt";
                input |= other == "input";
                s.skip()
            }
        })?;
        s.end()?;
        let (model, place) = model.ok_or_else(|| WireError::bad("the request names no `model`"))?;
        Ok(Self { model, stream, place, messages, prompt, input })
    }

    /// The path that a body of this form is sent to; none where nothing tells.
    #[must_use]
    pub fn endpoint(&self) -> Option<&'static str> {
        match (self.messages, self.prompt, self.input) {
            (true, ..) => Some("/v1/chat/completions"),
            (_, true, _) => Some("/v1/completions"),
            (_, _, true) => Some("/v1/embeddings"),
            _ => None,
        }
    }

    /// The same body for the model of another name. `body` is the one that was read.
    #[must_use]
    pub fn of_model(&self, body: &Bytes, name: &str) -> Bytes {
        if self.model == name {
            return body.clone();
        }
        let (before, rest) = body.split_at_checked(self.place.start).unwrap_or((body, &[]));
        let after = rest.get(self.place.len()..).unwrap_or_default();
        let mut out = Vec::with_capacity(body.len() + name.len());
        out.extend_from_slice(before);
        write::string(&mut out, name);
        out.extend_from_slice(after);
        out.into()
    }
}

/// OpenAI's error body.
#[must_use]
pub fn error(message: &str, kind: &str, code: &str) -> Vec<u8> {
    let mut body = b"{\"error\":{\"message\":".to_vec();
    write::string(&mut body, message);
    body.extend_from_slice(b",\"type\":");
    write::string(&mut body, kind);
    body.extend_from_slice(b",\"param\":null,\"code\":");
    write::string(&mut body, code);
    body.extend_from_slice(b"}}");
    body
}

/// One model, as `GET /v1/models/MODEL` describes it.
#[must_use]
pub fn model(name: &str) -> Vec<u8> {
    let mut body = b"{\"id\":".to_vec();
    write::string(&mut body, name);
    body.extend_from_slice(b",\"object\":\"model\",\"created\":0,\"owned_by\":\"lockgate\"}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_names_its_model_and_whether_it_streams() {
        let body =
            br#" {"messages": [{"content": "say \"model\": \"x\""}], "model" : "llm", "stream": true} "#;
        let asked = Asked::parse(body).unwrap();
        assert_eq!((asked.model.as_str(), asked.stream), ("llm", true));
        assert_eq!(asked.endpoint(), Some("/v1/chat/completions"));
        let other = asked.of_model(&Bytes::from_static(body), "a \"b\"");
        assert_eq!(Asked::parse(&other).unwrap().model, "a \"b\"");
        assert_eq!(other.len(), body.len() + r#"a \"b\""#.len() - "llm".len());
        let quiet = Asked::parse(br#"{"model":"m","stream":null,"input":[1,2]}"#).unwrap();
        assert_eq!((quiet.stream, quiet.endpoint()), (false, Some("/v1/embeddings")));
        assert_eq!(
            Asked::parse(br#"{"model":"m","prompt":""}"#).unwrap().endpoint(),
            Some("/v1/completions")
        );
        assert_eq!(Asked::parse(br#"{"model":"m"}"#).unwrap().endpoint(), None);
    }

    #[test]
    fn what_names_no_model_or_two_is_refused_with_the_field() {
        for (body, words) in [
            (&b"{}"[..], "no `model`"),
            (b"[]", "an object with `model`"),
            (br#"{"model": 3}"#, "model:"),
            (br#"{"model": "a", "model": "b"}"#, "twice"),
            (br#"{"model": "a", "stream": "yes"}"#, "stream:"),
            (br#"{"model": "a"} x"#, "end of the body"),
        ] {
            let error = Asked::parse(body).unwrap_err().text();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn errors_have_openai_s_form() {
        let body: serde_json::Value = serde_json::from_slice(&error("a \"b\"", "kind", "code")).unwrap();
        assert_eq!(body["error"]["message"], "a \"b\"");
        assert_eq!(
            (&body["error"]["type"], &body["error"]["param"]),
            (&"kind".into(), &serde_json::Value::Null)
        );
    }

    proptest! {
        #[test]
        fn only_the_name_changes_whatever_else_the_body_holds(name in ".*", before: bool, text in ".*") {
            let mut body = serde_json::json!({"user": text, "zz": [null, 1.5, {"model": "inner"}]});
            let key = serde_json::json!({"model": "first"});
            if before { body = key.clone() } else { body["model"] = "first".into() }
            let bytes = Bytes::from(body.to_string());
            let asked = Asked::parse(&bytes).unwrap();
            let mut wanted = body;
            wanted["model"] = name.clone().into();
            let got: serde_json::Value = serde_json::from_slice(&asked.of_model(&bytes, &name)).unwrap();
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(asked) = Asked::parse(&bytes) {
                let _ = asked.of_model(&Bytes::from(bytes), "x");
            }
        }
    }
}
