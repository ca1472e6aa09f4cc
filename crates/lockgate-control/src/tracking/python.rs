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

/// A text of JSON in which all that is not ASCII is escaped, as Python writes JSON.
#[must_use]
pub fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            shown.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown
}

/// A text as Python's JSON quotes it.
pub(super) fn quoted(text: &str) -> String {
    ascii(&Value::from(text).to_string())
}

/// JSON as `json.dumps` writes it: with spaces, and nothing but ASCII.
pub(super) fn json(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(json).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", quoted(key), json(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// A float as `repr` shows it.
#[must_use]
pub fn float(value: f64) -> String {
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
    fn json_is_ascii_as_by_python() {
        assert_eq!(quoted("é\u{1f600}\"\n"), r#""\u00e9\ud83d\ude00\"\n""#);
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
