//! Descriptions as YAML that every reader takes the same way: names quoted, numbers bare.

use lockgate_control::tracking::Tree;

/// A value of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Nothing,
    Int(i64),
    Text(String),
    /// A map of texts.
    Map(Vec<(String, String)>),
    /// An empty list.
    Empty,
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Nothing, Self::Int)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }
}

/// A text in double quotes; only printable ASCII stands for itself.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// A value of any kind as a document: a line for each of its parts.
pub(super) fn tree(value: &Tree) -> String {
    match value {
        Tree::Map(pairs) => {
            pairs.iter().map(|(key, value)| format!("{}: {}\n", quoted(key), flow(value))).collect()
        }
        other => flow(other) + "\n",
    }
}

/// A value in one line. Python takes a number for one only if it has a point, and a sign before an exponent.
fn flow(value: &Tree) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Tree::Text(text) => quoted(text),
        Tree::List(items) => format!("[{}]", list(items.iter().map(flow).collect())),
        Tree::Map(pairs) => {
            let pair = |(key, value): &(String, Tree)| format!("{}: {}", quoted(key), flow(value));
            format!("{{{}}}", list(pairs.iter().map(pair).collect()))
        }
        Tree::Real(number) if number.is_nan() => ".nan".to_owned(),
        Tree::Real(number) if number.is_infinite() => if *number > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
        Tree::Real(_) => {
            let text = value.dump();
            match text.split_once('e') {
                Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
                _ => text,
            }
        }
        other => other.dump(),
    }
}

/// A description.
pub(super) fn description(fields: &[(&str, Value)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        match value {
            Value::Nothing => out.push_str(&format!("{name}: null\n")),
            Value::Int(number) => out.push_str(&format!("{name}: {number}\n")),
            Value::Text(text) => out.push_str(&format!("{name}: {}\n", quoted(text))),
            Value::Empty => out.push_str(&format!("{name}: []\n")),
            Value::Map(pairs) if pairs.is_empty() => out.push_str(&format!("{name}: {{}}\n")),
            Value::Map(pairs) => {
                out.push_str(&format!("{name}:\n"));
                for (key, value) in pairs {
                    out.push_str(&format!("  {}: {}\n", quoted(key), quoted(value)));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_text_is_read_as_it_was_written() {
        for text in [
            "",
            "a",
            "null",
            "1e3",
            "no",
            "ü 実 🙂",
            "a: b # c",
            "\"\\\n\t\u{7f}\u{85}\u{2028}\u{fffe}",
            " x ",
            "'",
        ] {
            let written = description(&[("name", text.into()), ("n", 3.into()), ("none", Value::Nothing)]);
            let read: BTreeMap<String, Option<String>> = serde_saphyr::from_str(&written).unwrap();
            assert_eq!(read["name"].as_deref(), Some(text), "{written}");
            assert_eq!((read["n"].as_deref(), read["none"].as_deref()), (Some("3"), None));
        }
    }

    #[test]
    fn maps_and_lists_are_read_as_such() {
        let map = Value::Map(vec![("a: b".to_owned(), "\n".to_owned())]);
        let written = description(&[("tags", map)]);
        let read: BTreeMap<String, BTreeMap<String, String>> = serde_saphyr::from_str(&written).unwrap();
        assert_eq!(read["tags"]["a: b"], "\n");
        assert_eq!(description(&[("tags", Value::Empty), ("m", Value::Map(vec![]))]), "tags: []\nm: {}\n");
    }
}
