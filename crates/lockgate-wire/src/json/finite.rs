//! Numbers that are none, found without reading the rest.

/// How many `NaN`, `Infinity` and `-Infinity` tokens stand in a JSON text, outside of its strings.
#[must_use]
pub fn nonfinite(text: &[u8]) -> u64 {
    let (mut found, mut is_text, mut is_escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match (is_text, *byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => is_text = !is_text,
            (false, b'N' | b'I') => {
                let rest = text.get(at..).unwrap_or_default();
                found += u64::from(rest.starts_with(b"NaN") || rest.starts_with(b"Infinity"));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_and_words_in_texts_do_not() {
        assert_eq!(nonfinite(br#"{"a": [NaN, 1.5, -Infinity, Infinity], "NaN": "NaN \" Infinity"}"#), 3);
        assert_eq!(nonfinite(br#"{"a": [1, null, "\\", true]}"#), 0);
        assert_eq!(nonfinite(b""), 0);
    }
}
