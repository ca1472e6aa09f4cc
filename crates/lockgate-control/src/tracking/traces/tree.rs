//! JSON values that keep the order of their keys, and their text as Python's `json.dumps` writes it.
//!
//! Clients search in the text of spans (`trace.text LIKE '%"city": "Bern"%'`), so it is written as MLflow's own server
//! writes it.

use super::super::python;
use super::lenient;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt::Write as _;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object, with its keys in order.
    Map(Vec<(String, Self)>),
}

impl Tree {
    /// Reads JSON; none where the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().or_else(|| lenient::parse(text))
    }

    /// The text form with all characters as they are.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, false);
        text
    }

    /// The text form in ASCII.
    #[must_use]
    pub fn dump_ascii(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, true);
        text
    }

    /// What an object has under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, where it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The whole number that it is, also where it is written as `3.0`.
    #[must_use]
    pub fn as_count(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            // Beyond 2^53 a float doesn't tell which whole number was meant.
            Self::Real(number) if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 => {
                Some(*number as i64)
            }
            _ => None,
        }
    }

    /// The finite number that it is.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Real(number) if number.is_finite() => Some(*number),
            _ => None,
        }
    }

    fn write(&self, text: &mut String, ascii: bool) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
            Self::Int(number) => {
                let _never_fails = write!(text, "{number}");
            }
            Self::Real(number) if number.is_nan() => text.push_str("NaN"),
            Self::Real(number) if number.is_infinite() => {
                text.push_str(if *number > 0.0 { "Infinity" } else { "-Infinity" });
            }
            Self::Real(number) => text.push_str(&python::float(*number)),
            Self::Text(inner) => quote(inner, text, ascii),
            Self::List(items) => {
                text.push('[');
                for (i, item) in items.iter().enumerate() {
                    text.push_str(if i > 0 { ", " } else { "" });
                    item.write(text, ascii);
                }
                text.push(']');
            }
            Self::Map(pairs) => {
                text.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    text.push_str(if i > 0 { ", " } else { "" });
                    quote(key, text, ascii);
                    text.push_str(": ");
                    value.write(text, ascii);
                }
                text.push('}');
            }
        }
    }
}

fn quote(inner: &str, text: &mut String, ascii: bool) {
    text.push('"');
    for c in inner.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            c if c < ' ' || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _never_fails = write!(text, "\\u{unit:04x}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(i64::try_from(number).map_or(Tree::Real(number as f64), Tree::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Tree::Map(pairs))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_by_python() {
        let tree =
            Tree::parse(r#"{"z": [1, 2.50, null, true], "a": "h\u00e4 \"\n\u0001\ud83d\ude00", "e": {}}"#);
        let tree = tree.unwrap();
        assert_eq!(tree.dump(), "{\"z\": [1, 2.5, null, true], \"a\": \"hä \\\"\\n\\u0001😀\", \"e\": {}}");
        assert!(tree.dump_ascii().contains(r#""h\u00e4 \"\n\u0001\ud83d\ude00""#));
        assert_eq!(Tree::Real(3.0).dump(), "3.0");
        assert_eq!(Tree::Real(1e300).dump(), "1e+300");
        assert_eq!(Tree::Real(f64::NAN).dump(), "NaN");
    }

    #[test]
    fn what_is_no_json_is_no_tree() {
        for bad in ["", "{", "abc", "[1,]", "1 2"] {
            assert_eq!(Tree::parse(bad), None, "{bad}");
        }
        assert_eq!(Tree::Real(3.0).as_count(), Some(3));
        assert_eq!(Tree::Real(3.5).as_count(), None);
        assert_eq!(Tree::Real(f64::INFINITY).as_number(), None);
    }
}
