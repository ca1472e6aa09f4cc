//! Limits and page tokens. A token is base64 of `{"offset": N}`, with a digest of the query where it must not change.

use crate::error::MlflowError;
use crate::message::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockgate_control::tracking::Page;
use serde_json::{Value, json};

/// How many results there may be in a page, and how MLflow's own server says that it is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    most: i64,
    words: Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// As its handlers: the value is of the wrong kind.
    Asked,
    /// As its store.
    Stored,
    /// As its store of model versions.
    Versions,
}

impl Limit {
    /// A limit that its handlers check.
    pub(crate) const fn asked(most: i64) -> Self {
        Self { most, words: Words::Asked }
    }

    /// A limit that its store checks.
    pub(crate) const fn stored(most: i64) -> Self {
        Self { most, words: Words::Stored }
    }

    /// The limit of a search for model versions.
    pub(crate) const fn of_versions() -> Self {
        Self { most: 200_000, words: Words::Versions }
    }

    fn check(self, message: &Message, limit: i64) -> Result<(), MlflowError> {
        const NAME: &str = "max_results";
        let wrong = |why: String| {
            Err(MlflowError::invalid(format!("Invalid value {limit} for parameter '{NAME}' supplied. {why}")))
        };
        if limit < 1 {
            return match self.words {
                Words::Versions => Err(MlflowError::invalid(format!(
                    "Invalid value for {NAME}. It must be a positive integer, but got {limit}"
                ))),
                Words::Asked | Words::Stored => wrong("It must be a positive integer".to_owned()),
            };
        }
        match self.words {
            _ if limit <= self.most => Ok(()),
            Words::Stored => wrong(format!("It must be at most {}", self.most)),
            Words::Asked | Words::Versions => Err(message.wrong(NAME)),
        }
    }
}

/// A part of a result that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    limit: i64,
    offset: i64,
    /// What the token is bound to.
    query: Option<String>,
}

impl Part {
    /// Reads `max_results` and `page_token`.
    pub(crate) fn read(message: &Message, default: i64, limit: Limit) -> Result<Self, MlflowError> {
        Self::bound(message, default, limit, None)
    }

    /// The same for a token that is good for one query only.
    pub(crate) fn bound(
        message: &Message,
        default: i64,
        limit: Limit,
        query: Option<String>,
    ) -> Result<Self, MlflowError> {
        let count = message.int("max_results")?.unwrap_or(default);
        limit.check(message, count)?;
        let offset = match message.text("page_token")?.filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => offset(&token, query.as_deref())?,
        };
        Ok(Self { limit: count, offset, query })
    }

    /// What to search for: one more than asked for, which tells whether there is another page.
    pub(crate) fn page(&self) -> Page {
        Page { limit: self.limit + 1, offset: self.offset }
    }

    /// Cuts the one off that was too much; gives the next page's token where there is one.
    pub(crate) fn cut<T>(&self, found: &mut Vec<T>) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if found.len() <= limit {
            return None;
        }
        found.truncate(limit);
        let mut token = json!({"offset": self.offset + self.limit});
        if let Some(query) = &self.query {
            token["query"] = Value::String(query.clone());
        }
        Some(STANDARD.encode(token.to_string()))
    }
}

fn offset(token: &str, query: Option<&str>) -> Result<i64, MlflowError> {
    let bytes = STANDARD
        .decode(token)
        .map_err(|_| MlflowError::invalid("Invalid page token, could not base64-decode"))?;
    let wrong =
        || MlflowError::invalid("Invalid page token: use the one of the page before, as it was given");
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|_| MlflowError::invalid(format!("Invalid page token, decoded value={}", quoted(&bytes))))?;
    if value.get("query").and_then(Value::as_str) != query {
        return Err(MlflowError::invalid("Invalid page token: the query differs from the page before"));
    }
    value.get("offset").and_then(Value::as_i64).filter(|offset| *offset > 0).ok_or_else(wrong)
}

/// Bytes as Python shows them, which is how MLflow's own server quotes a token.
fn quoted(bytes: &[u8]) -> String {
    let shown: String = bytes
        .iter()
        .map(|byte| match byte {
            b'\\' | b'\'' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        })
        .collect();
    format!("b'{shown}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: Option<&str>, limit: i64) -> Message {
        let mut body = json!({"max_results": limit});
        if let Some(token) = token {
            body["page_token"] = json!(token);
        }
        Message::from_body(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_token_leads_to_the_next_page() {
        let part = Part::read(&message(None, 2), 100, Limit::stored(100)).unwrap();
        let mut found = vec![1, 2, 3];
        let token = part.cut(&mut found).unwrap();
        assert_eq!(found, [1, 2]);
        let next = Part::read(&message(Some(&token), 2), 100, Limit::stored(100)).unwrap();
        assert_eq!(next.page(), Page { limit: 3, offset: 2 });
        assert_eq!(next.cut(&mut vec![3]), None);
    }

    #[test]
    fn a_token_of_another_query_is_refused() {
        let first = Part::bound(&message(None, 1), 10, Limit::stored(10), Some("a".to_owned())).unwrap();
        let token = first.cut(&mut vec![1, 2]).unwrap();
        assert!(Part::bound(&message(Some(&token), 1), 10, Limit::stored(10), Some("b".to_owned())).is_err());
        assert!(Part::bound(&message(Some(&token), 1), 10, Limit::stored(10), Some("a".to_owned())).is_ok());
        let odd = Part::read(&message(Some("blah"), 1), 10, Limit::stored(10)).unwrap_err();
        assert!(odd.to_string().ends_with("Invalid page token, decoded value=b'nV\\xa1'"), "{odd}");
        for bad in ["?", "e30=", "bnVsbA=="] {
            assert!(Part::read(&message(Some(bad), 1), 10, Limit::stored(10)).is_err(), "{bad}");
        }
        assert!(Part::read(&message(None, 0), 10, Limit::stored(10)).is_err());
        assert!(Part::read(&message(None, 11), 10, Limit::stored(10)).is_err());
    }
}
