//! What clients say of predictions afterwards: the bodies of `POST /feedback`.
//!
//! One, `{"prediction_id": "...", "outcome": 1}`, or several, as a list of these or as `{"feedback": [...]}`. Every other key is the
//! name of something that is said: a number, `true` or `false` (which are 1 and 0), or a short text.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// How many predictions one body may be about.
pub const ITEMS: usize = 1_000;

/// How many things may be said of one prediction at once.
pub const NAMES: usize = 32;

/// How long a name may be.
pub const NAME_LENGTH: usize = 64;

/// How long a text may be.
pub const TEXT_LENGTH: usize = 256;

/// One thing that is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A number; `true` is 1 and `false` 0.
    Number(f64),
    /// A text.
    Text(String),
}

/// What is said of one prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The prediction's id.
    pub prediction: String,
    /// What is said of it, by name; at least one thing.
    pub values: Vec<(String, Outcome)>,
}

/// What a body says.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// Whether it is written as several.
    pub many: bool,
    /// Each of them, or what is wrong with it.
    pub items: Vec<Result<Item, Wrong>>,
}

/// What is wrong with one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which prediction it is about, where that can be read.
    pub prediction: Option<String>,
    /// What is wrong, as a sentence.
    pub message: String,
}

/// Reads a body.
///
/// # Errors
/// A sentence, where it can't be read at all, or holds too much.
pub fn parse(body: &[u8]) -> Result<Feedback, String> {
    const FORM: &str = "write {\"prediction_id\": \"...\", \"outcome\": 1}, or a list of these";
    let value: Value =
        serde_json::from_slice(body).map_err(|e| format!("the body is not JSON ({e}); {FORM}"))?;
    let list = match value {
        Value::Object(mut one) if one.contains_key("feedback") => {
            if one.len() > 1 {
                return Err("beside `feedback` there may be no other key".to_owned());
            }
            one.remove("feedback").unwrap_or_default()
        }
        Value::Object(one) => return Ok(Feedback { many: false, items: vec![item(one)] }),
        other => other,
    };
    let Value::Array(list) = list else { return Err(format!("this is no feedback; {FORM}")) };
    if list.is_empty() {
        return Err(format!("the list is empty; {FORM}"));
    }
    if list.len() > ITEMS {
        return Err(format!("{} predictions at once are too many; send at most {ITEMS}", list.len()));
    }
    let mut seen = BTreeSet::new();
    let items = list.into_iter().map(|value| {
        let read = match value {
            Value::Object(one) => item(one)?,
            _ => return Err(Wrong { prediction: None, message: format!("this is no feedback; {FORM}") }),
        };
        for (name, _) in &read.values {
            if !seen.insert((read.prediction.clone(), name.clone())) {
                let message = format!("`{name}` of this prediction is there twice");
                return Err(Wrong { prediction: Some(read.prediction), message });
            }
        }
        Ok(read)
    });
    Ok(Feedback { many: true, items: items.collect() })
}

fn item(mut one: Map<String, Value>) -> Result<Item, Wrong> {
    let wrong = |prediction: Option<&str>, message: String| Wrong {
        prediction: prediction.map(str::to_owned),
        message,
    };
    let id = match one.remove("prediction_id") {
        Some(Value::String(id)) => id,
        Some(_) => return Err(wrong(None, "`prediction_id` is not a text".to_owned())),
        None => {
            let hint = "it is in the answer's x-lockgate-prediction-id header";
            return Err(wrong(None, format!("`prediction_id` is missing: {hint}")));
        }
    };
    if !is_id(&id) {
        return Err(wrong(
            None,
            "`prediction_id` is no prediction's id: it has 26 letters and digits".to_owned(),
        ));
    }
    if one.is_empty() {
        let message = "nothing is said of the prediction: add \"outcome\": 1, or a value of another name";
        return Err(wrong(Some(&id), message.to_owned()));
    }
    if one.len() > NAMES {
        return Err(wrong(Some(&id), format!("{} values at once are too many; at most {NAMES}", one.len())));
    }
    let values: Result<Vec<_>, String> = one.into_iter().map(|(name, v)| named(name, v)).collect();
    match values {
        Ok(values) => Ok(Item { prediction: id, values }),
        Err(message) => Err(wrong(Some(&id), message)),
    }
}

/// Whether a text has the form of a prediction's id (a ULID).
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

fn named(name: String, value: Value) -> Result<(String, Outcome), String> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !first || !rest || name.len() > NAME_LENGTH {
        let shown = crate::tensor::shown(&name);
        return Err(format!(
            "`{shown}` is no name: letters, digits and `_`, at most {NAME_LENGTH}, not beginning with a digit"
        ));
    }
    let value = match value {
        Value::Bool(said) => Outcome::Number(f64::from(u8::from(said))),
        Value::Number(number) => match number.as_f64().filter(|n| n.is_finite()) {
            // One zero: -0 would be another value than 0 where they are compared as text.
            Some(number) => Outcome::Number(number + 0.0),
            None => return Err(format!("`{name}` is too large a number")),
        },
        Value::String(text) if text.len() <= TEXT_LENGTH && !text.contains('\0') => Outcome::Text(text),
        Value::String(_) => {
            return Err(format!("`{name}` is a text of more than {TEXT_LENGTH} bytes, or holds a zero byte"));
        }
        _ => return Err(format!("`{name}` must be a number, true, false or a short text")),
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "01M8AY7JZFMHB6BY6FXZAJM001";

    fn one(text: &str) -> Result<Item, Wrong> {
        parse(text.as_bytes()).unwrap().items.remove(0)
    }

    #[test]
    fn one_and_several_are_read() {
        let found =
            one(&format!(r#"{{"prediction_id": "{ID}", "outcome": true, "minutes": 12.5, "label": "cat"}}"#));
        let mut values = found.unwrap().values;
        values.sort_by(|a, b| a.0.cmp(&b.0));
        let number = |name: &str, n| (name.to_owned(), Outcome::Number(n));
        let label = ("label".to_owned(), Outcome::Text("cat".to_owned()));
        assert_eq!(values, [label, number("minutes", 12.5), number("outcome", 1.0)]);
        for text in [
            format!(r#"[{{"prediction_id": "{ID}", "outcome": 0}}]"#),
            format!(r#"{{"feedback": [{{"prediction_id": "{ID}", "outcome": 0}}]}}"#),
        ] {
            let found = parse(text.as_bytes()).unwrap();
            assert!(found.many && found.items[0].as_ref().unwrap().values == [number("outcome", 0.0)]);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "not JSON"),
            ("3", "no feedback"),
            ("[]", "empty"),
            (r#"{"feedback": 1}"#, "no feedback"),
            (r#"{"feedback": [], "x": 1}"#, "no other key"),
        ] {
            assert!(parse(text.as_bytes()).unwrap_err().contains(words), "{text}");
        }
        let with = |rest: &str| format!(r#"{{"prediction_id": "{ID}"{rest}}}"#);
        for (text, words) in [
            ("{}".to_owned(), "x-lockgate-prediction-id"),
            (r#"{"prediction_id": 7}"#.to_owned(), "not a text"),
            (r#"{"prediction_id": "7", "outcome": 1}"#.to_owned(), "26 letters"),
            (with(""), "nothing is said"),
            (with(r#", "outcome": null"#), "must be a number"),
            (with(r#", "outcome": [1]"#), "must be a number"),
            (with(r#", "a b": 1"#), "no name"),
            (with(r#", "1a": 1"#), "no name"),
            (with(&format!(r#", "label": "{}""#, "x".repeat(300))), "more than 256"),
        ] {
            assert!(one(&text).unwrap_err().message.contains(words), "{text}");
        }
        let twice = format!("[{},{}]", with(r#", "outcome": 1"#), with(r#", "outcome": 1"#));
        let found = parse(twice.as_bytes()).unwrap().items;
        assert!(found[0].is_ok() && found[1].as_ref().unwrap_err().message.contains("twice"));
        let many = format!("[{}]", vec!["1"; ITEMS + 1].join(","));
        assert!(parse(many.as_bytes()).unwrap_err().contains("too many"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
        }

        #[test]
        fn names_and_numbers_come_through(name in "[A-Za-z_][A-Za-z0-9_]{0,20}", number in -1e9..1e9_f64) {
            prop_assume!(name != "prediction_id" && name != "feedback");
            let text = serde_json::json!({"prediction_id": ID, &name: number}).to_string();
            let found = one(&text).unwrap().values.remove(0);
            prop_assert_eq!(found.0, name);
            prop_assert!(matches!(found.1, Outcome::Number(n) if (n - number).abs() <= 1e-12 * number.abs()));
        }
    }
}
