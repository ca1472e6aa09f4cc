//! Limits and page tokens. A token is base64 of `{"offset": N}`, with the query where it must not change.

use crate::error::MlflowError;
use crate::message::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockgate_control::tracking::Page;
use serde_json::{Map, Value};

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
    /// As its store of registered models, which answers a page of nothing with nothing.
    Models,
    /// As its handler of metrics' histories.
    History,
    /// As its store of logged models, which gives some where none are asked for, and is not bothered by too many.
    Logged,
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

    /// The limit of a search for registered models.
    pub(crate) const fn of_models() -> Self {
        Self { most: 1000, words: Words::Models }
    }

    /// The limit of a search for logged models.
    pub(crate) const fn of_logged_models() -> Self {
        Self { most: 50_000, words: Words::Logged }
    }

    /// The limit of a metric's history.
    pub(crate) const fn of_history() -> Self {
        Self { most: i32::MAX as i64, words: Words::History }
    }

    /// The number of results that is meant.
    fn read(self, message: &Message, default: i64) -> Result<i64, MlflowError> {
        const LOGGED: i64 = 100;
        let count = message.int("max_results")?.unwrap_or(default);
        let count = match self.words {
            Words::Logged if count == 0 => LOGGED,
            Words::Logged => count.min(self.most),
            Words::Models => count.max(0),
            _ => count,
        };
        self.check(message, count)?;
        Ok(count)
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
                Words::Models => Ok(()),
                Words::History => wrong("It must be a positive integer.".to_owned()),
                Words::Asked | Words::Stored | Words::Logged => {
                    wrong("It must be a positive integer".to_owned())
                }
            };
        }
        match self.words {
            _ if limit <= self.most => Ok(()),
            Words::Stored | Words::History | Words::Logged => {
                wrong(format!("It must be at most {}", self.most))
            }
            Words::Asked | Words::Versions | Words::Models => Err(message.wrong(NAME)),
        }
    }
}

/// A part of a result that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    limit: i64,
    offset: i64,
    /// What the token is bound to, by name.
    query: Bound,
}

/// What a token is bound to: what the request says, by the name that the token has for it.
pub(crate) type Bound = Vec<(Named, Value)>;

/// A part of a query: its name in the token, and in words.
pub(crate) type Named = (&'static str, &'static str);

impl Part {
    /// Reads `max_results` and `page_token`.
    pub(crate) fn read(message: &Message, default: i64, limit: Limit) -> Result<Self, MlflowError> {
        Self::bound(message, default, limit, Vec::new())
    }

    /// The same for a token that is good for one query only.
    pub(crate) fn bound(
        message: &Message,
        default: i64,
        limit: Limit,
        query: Bound,
    ) -> Result<Self, MlflowError> {
        let count = limit.read(message, default)?;
        let offset = match message.text("page_token")?.filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => offset(&token, &query)?,
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
        if limit == 0 {
            return None;
        }
        let mut token: Map<String, Value> =
            self.query.iter().map(|((name, _), value)| ((*name).to_owned(), value.clone())).collect();
        token.insert("offset".to_owned(), Value::from(self.offset + self.limit));
        Some(STANDARD.encode(Value::Object(token).to_string()))
    }
}

fn offset(token: &str, query: &Bound) -> Result<i64, MlflowError> {
    let bytes = STANDARD
        .decode(token)
        .map_err(|_| MlflowError::invalid("Invalid page token, could not base64-decode"))?;
    let wrong =
        || MlflowError::invalid("Invalid page token: use the one of the page before, as it was given");
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|_| MlflowError::invalid(format!("Invalid page token, decoded value={}", quoted(&bytes))))?;
    let Value::Object(token) = value else { return Err(wrong()) };
    for ((name, words), asked) in query {
        let found = token.get(*name).unwrap_or(&Value::Null);
        if found != asked {
            let verb = if words.ends_with('s') { "do" } else { "does" };
            return Err(MlflowError::invalid(format!(
                "{words} in the page token {verb} not match what is requested. Expected: {asked}. Found: {found}"
            )));
        }
    }
    token.get("offset").and_then(Value::as_i64).filter(|offset| *offset > 0).ok_or_else(wrong)
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
    use serde_json::json;

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
        let read = |token: Option<&str>, filter: &str| {
            let query = vec![(("filter_string", "Filter string"), json!(filter))];
            Part::bound(&message(token, 1), 10, Limit::stored(10), query)
        };
        let token = read(None, "a").unwrap().cut(&mut vec![1, 2]).unwrap();
        assert!(read(Some(&token), "a").is_ok());
        let error = read(Some(&token), "b").unwrap_err().to_string();
        assert!(error.contains("Filter string in the page token does not match"), "{error}");
        assert!(read(Some("eyJvZmZzZXQiOiAxfQ=="), "a").is_err());
        let odd = Part::read(&message(Some("blah"), 1), 10, Limit::stored(10)).unwrap_err();
        assert!(odd.to_string().ends_with("Invalid page token, decoded value=b'nV\\xa1'"), "{odd}");
        for bad in ["?", "e30=", "bnVsbA=="] {
            assert!(Part::read(&message(Some(bad), 1), 10, Limit::stored(10)).is_err(), "{bad}");
        }
        assert!(Part::read(&message(None, 0), 10, Limit::stored(10)).is_err());
        assert!(Part::read(&message(None, 11), 10, Limit::stored(10)).is_err());
    }

    #[test]
    fn logged_models_are_given_as_many_as_there_may_be() {
        let page = |count| Part::read(&message(None, count), 50, Limit::of_logged_models());
        assert_eq!(page(0).unwrap().page().limit, 101);
        assert_eq!(page(1_000_000).unwrap().page().limit, 50_001);
        assert!(page(-1).is_err());
    }

    #[test]
    fn a_page_of_nothing_leads_nowhere() {
        for count in [0, -5] {
            let part = Part::read(&message(None, count), 10, Limit::of_models()).unwrap();
            let mut found = vec![1];
            assert_eq!((part.page().limit, part.cut(&mut found)), (1, None));
            assert!(found.is_empty());
        }
    }
}
