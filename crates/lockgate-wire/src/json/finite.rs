//! Numbers that are none, found without reading the rest.

/// How many `NaN`, `Infinity` and `-Infinity` tokens stand in a JSON text, outside of its strings.
#[must_use]
pub fn nonfinite(text: &[u8]) -> u64 {
    let mut scan = Nonfinite::default();
    scan.see(text);
    scan.found()
}

/// The same for a text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Nonfinite {
    found: u64,
    is_text: bool,
    is_escaped: bool,
    /// What has to follow for the token that has begun.
    wanted: &'static [u8],
}

impl Nonfinite {
    /// Looks at the next bytes, however the text is cut.
    pub fn see(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.is_text, *byte) {
                (true, _) if self.is_escaped => self.is_escaped = false,
                (true, b'\\') => self.is_escaped = true,
                (_, b'"') => {
                    self.is_text = !self.is_text;
                    self.wanted = &[];
                }
                (true, _) => {}
                (false, byte) => self.token(byte),
            }
        }
    }

    /// How many there were so far.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    fn token(&mut self, byte: u8) {
        self.wanted = match (self.wanted.split_first(), byte) {
            (Some((next, rest)), _) if *next == byte => {
                self.found += u64::from(rest.is_empty());
                rest
            }
            (_, b'N') => b"aN",
            (_, b'I') => b"nfinity",
            _ => &[],
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &[u8] = br#"{"a": [NaN, 1.5, -Infinity, Infinity], "NaN": "NaN \" Infinity", "b": NNaN}"#;

    #[test]
    fn tokens_count_and_words_in_texts_do_not() {
        assert_eq!(nonfinite(TEXT), 4);
        assert_eq!(nonfinite(br#"{"a": [1, null, "\\", true]}"#), 0);
        assert_eq!(nonfinite(b"NaInfinit Na\"N\""), 0);
        assert_eq!(nonfinite(b""), 0);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_text_is_cut(cuts in proptest::collection::vec(0..TEXT.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut scan = Nonfinite::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([TEXT.len()]) {
                scan.see(&TEXT[from..cut]);
                from = cut;
            }
            prop_assert_eq!(scan.found(), 4);
        }
    }
}
