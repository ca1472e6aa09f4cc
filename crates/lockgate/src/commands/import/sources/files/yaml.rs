//! YAML whose values may be anything, read as Python reads what it wrote: `1e3` and `0o17` are texts, `yes` is true.

use anyhow::{Context as _, bail};
use granit_parser::{Event, Parser, ScalarStyle};
use lockgate_control::tracking::Tree;

/// How deep it may go.
const DEPTH: usize = 100;

/// A list or a map that is not at its end.
enum Open {
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>, Option<String>),
}

/// Reads one document.
pub(super) fn parse(text: &str) -> anyhow::Result<Tree> {
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(text) {
        let done = match next?.0 {
            Event::StreamStart | Event::DocumentStart(..) => continue,
            Event::Scalar(text, ScalarStyle::Plain, _, None) => resolved(&text),
            Event::Scalar(text, _, _, None) => Tree::Text(text.into_owned()),
            Event::SequenceStart(_, _, None) if open.len() < DEPTH => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(_, _, None) if open.len() < DEPTH => {
                open.push(Open::Map(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Tree::List(items),
                Some(Open::Map(pairs, _)) => Tree::Map(pairs),
                None => bail!("it ends before it begins"),
            },
            Event::StreamEnd | Event::DocumentEnd => break,
            _ => bail!("it has something that MLflow doesn't write, or is nested too deeply"),
        };
        match open.last_mut() {
            None => return Ok(done),
            Some(Open::List(items)) => items.push(done),
            Some(Open::Map(pairs, key)) => match key.take() {
                Some(key) => pairs.push((key, done)),
                None => *key = Some(name(done)?),
            },
        }
    }
    bail!("it is empty or broken off")
}

/// A key of a map.
fn name(key: Tree) -> anyhow::Result<String> {
    match key {
        Tree::Text(text) => Ok(text),
        Tree::List(_) | Tree::Map(_) => bail!("it has a key that is no text"),
        other => Ok(other.dump()),
    }
}

/// What a text without quotes means to Python.
fn resolved(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Tree::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Tree::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Tree::Real(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Tree::Real(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Tree::Real(f64::NEG_INFINITY),
        _ => {}
    }
    number(text).unwrap_or_else(|| Tree::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Tree> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !bare.is_empty() && digits(bare) && (bare == "0" || !bare.starts_with('0')) {
        return Some(text.parse().map_or_else(|_| Tree::Real(text.parse().unwrap_or(f64::NAN)), Tree::Int));
    }
    let (begin, rest) = bare.split_once('.')?;
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        // Without a sign it is a text.
        Some((fraction, exponent)) => (fraction, exponent.strip_prefix(['-', '+'])?),
        None => (rest, "0"),
    };
    let is =
        !begin.is_empty() && digits(begin) && digits(fraction) && !exponent.is_empty() && digits(exponent);
    is.then(|| text.parse().ok().map(Tree::Real)).flatten()
}

/// Reads a file.
pub(super) fn read(path: &std::path::Path) -> anyhow::Result<Tree> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    parse(&text).with_context(|| format!("{} is no description of MLflow's", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_that_python_wrote() {
        for (yaml, json) in [
            (
                "a: 1e3\nb: 0o17\nc: 1.0e+300\nd: -3\ne: 2.50",
                r#"{"a": "1e3", "b": "0o17", "c": 1e+300, "d": -3, "e": 2.5}"#,
            ),
            (
                "a: 'true'\nb: true\nc: null\nd: 'null'\ne: ''\nf:",
                r#"{"a": "true", "b": true, "c": null, "d": "null", "e": "", "f": null}"#,
            ),
            ("value:\n  a:\n  - 1.0\n  - x\n  - []\n  - {}", r#"{"value": {"a": [1.0, "x", [], {}]}}"#),
            ("a: 'because\n\n  lines'\nb: \"\\u00FC\\n\"", r#"{"a": "because\nlines", "b": "ü\n"}"#),
            (
                "a: .nan\nb: -.inf\nc: 007\nd: 1_000\ne: 2026-11-26",
                r#"{"a": NaN, "b": -Infinity, "c": "007", "d": "1_000", "e": "2026-11-26"}"#,
            ),
            ("1: x", r#"{"1": "x"}"#),
            ("- a", r#"["a"]"#),
        ] {
            assert_eq!(parse(yaml).unwrap().dump(), json, "{yaml}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let deep = "[".repeat(100_000);
        let nested = format!("{}1{}", "[".repeat(101), "]".repeat(101));
        for bad in [
            "",
            "a: [",
            "a: b: c",
            "a: &x [1]\nb: *x",
            "!!python/object:os.system {}",
            "? [a]\n: b",
            &deep,
            &nested,
            "\u{0}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
