//! Values as Python writes them, where MLflow's messages quote them so.

use serde_json::Value;

/// A text as `repr` shows it: in single quotes, or in double ones where it has single ones only.
pub(super) fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => {
                shown.push('\\');
                shown.push(c);
            }
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

/// JSON as `json.dumps` writes it: with spaces, and nothing but ASCII.
pub(super) fn json(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(json).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", ascii(key), json(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => ascii(text),
        other => other.to_string(),
    }
}

fn ascii(text: &str) -> String {
    let mut shown = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            c if c.is_ascii() => shown.push(c),
            c => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")))
            }
        }
    }
    shown
}

/// A float as `repr` shows it.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shown = format!("{value:?}");
    match shown.split_once('e') {
        None => shown,
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
    }
}

/// A path as `posixpath.normpath` simplifies it.
pub(super) fn normal_path(path: &str) -> String {
    let root = match path.bytes().take_while(|b| *b == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let up = part == "..";
        if !up || (root.is_empty() && parts.last().is_none_or(|last| *last == "..")) {
            parts.push(part);
        } else {
            parts.pop();
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".to_owned() } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_floats_are_shown_as_by_python() {
        assert_eq!(text("a/b"), "'a/b'");
        assert_eq!(text("it's"), "\"it's\"");
        assert_eq!(text("\"it's\""), "'\"it\\'s\"'");
        assert_eq!(text("a\tb\\"), "'a\\tb\\\\'");
        for (value, shown) in [(1.0, "1.0"), (0.5, "0.5"), (1e300, "1e+300"), (1e-7, "1e-07"), (-2.0, "-2.0")]
        {
            assert_eq!(float(value), shown);
        }
        assert_eq!((float(f64::NAN), float(f64::NEG_INFINITY)), ("nan".to_owned(), "-inf".to_owned()));
    }

    #[test]
    fn paths_are_simplified_as_by_python() {
        for (path, normal) in [
            ("a//b", "a/b"),
            ("/abs", "/abs"),
            ("a/./b", "a/b"),
            (".", "."),
            ("../up", "../up"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("/..", "/"),
            ("//a", "//a"),
            ("///a", "/a"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }
}
