//! JSON as Python writes and reads it beyond the standard: NaN, infinities, numbers that are too large, half surrogates.

use super::tree::Tree;

/// Begins a text that stands for a number: a character for private use.
const MARK: char = '\u{f8ff}';
const NUMBERS: [(&str, f64); 3] =
    [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];

/// Reads what the standard refuses; none where that is no JSON to Python either.
pub(super) fn parse(text: &str) -> Option<Tree> {
    let mut tree = serde_json::from_str(&standard(text)).ok()?;
    restore(&mut tree);
    Some(tree)
}

/// The text in the standard's words.
fn standard(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let taken = if quoted { in_text(rest, &mut out) } else { outside(rest, &mut out) };
        // A quote that is taken by itself begins or ends a text.
        if c == '"' {
            quoted = !quoted;
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

/// Takes the next piece of a text; says how long it was.
fn in_text(rest: &str, out: &mut String) -> usize {
    let Some(escaped) = rest.strip_prefix('\\') else {
        let end = rest.find(['\\', '"']).unwrap_or(rest.len()).max(1);
        let end = if rest.starts_with('"') { 1 } else { end };
        out.push_str(&rest[..end]);
        return end;
    };
    if let Some(unit) = surrogate(rest) {
        let whole = (0xd800..0xdc00).contains(&unit)
            && rest.get(6..).and_then(surrogate).is_some_and(|next| next >= 0xdc00);
        out.push_str(if whole { &rest[..12] } else { "\\ufffd" });
        return if whole { 12 } else { 6 };
    }
    let length = 1 + escaped.chars().next().map_or(0, char::len_utf8);
    out.push_str(&rest[..length]);
    length
}

/// The half of a pair that an escape at the beginning stands for.
fn surrogate(rest: &str) -> Option<u32> {
    let unit = u32::from_str_radix(rest.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

/// Takes the next piece between texts; says how long it was.
fn outside(rest: &str, out: &mut String) -> usize {
    if let Some((name, _)) = NUMBERS.iter().find(|(name, _)| rest.starts_with(name)) {
        marked(name, out);
        return name.len();
    }
    let digits =
        rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
    let begins = rest.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if begins && digits > 0 {
        match rest[..digits].parse::<f64>() {
            Ok(number) if number.is_infinite() => {
                marked(if number > 0.0 { "Infinity" } else { "-Infinity" }, out);
            }
            _ => out.push_str(&rest[..digits]),
        }
        return digits;
    }
    let length = rest.chars().next().map_or(0, char::len_utf8);
    out.push_str(&rest[..length]);
    length
}

fn marked(name: &str, out: &mut String) {
    out.push('"');
    out.push(MARK);
    out.push_str(name);
    out.push('"');
}

fn restore(tree: &mut Tree) {
    match tree {
        Tree::Text(text) => {
            let name = text.strip_prefix(MARK);
            if let Some((_, number)) = NUMBERS.iter().find(|(known, _)| Some(*known) == name) {
                *tree = Tree::Real(*number);
            }
        }
        Tree::List(items) => items.iter_mut().for_each(restore),
        Tree::Map(pairs) => pairs.iter_mut().for_each(|(_, value)| restore(value)),
        Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Real(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (given, written) in [
            (
                r#"{"loss": NaN, "a": [Infinity, -Infinity, 1e400, -1e999, 1.5]}"#,
                r#"{"loss": NaN, "a": [Infinity, -Infinity, Infinity, -Infinity, 1.5]}"#,
            ),
            ("NaN", "NaN"),
            (
                r#""half \ud83d and \"NaN\" and \ud83d\ude00""#,
                "\"half \u{fffd} and \\\"NaN\\\" and \u{1f600}\"",
            ),
            (r#"["\\", NaN]"#, r#"["\\", NaN]"#),
        ] {
            assert_eq!(parse(given).map(|tree| tree.dump()), Some(written.to_owned()), "{given}");
        }
        for bad in ["", "{", "NaNs", "nan", "[NaN,]", r#""\"#, r#"{"a": -}"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
