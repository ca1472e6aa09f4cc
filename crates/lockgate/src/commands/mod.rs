//! One file for each group of verbs.

pub(crate) mod agent;
pub(crate) mod db;
pub(crate) mod demo;
pub(crate) mod drill;
pub(crate) mod import;
pub(crate) mod look;
pub(crate) mod predict;
pub(crate) mod preview;
pub(crate) mod project;
pub(crate) mod promotion;
pub(crate) mod reference;
pub(crate) mod release;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod up;
pub(crate) mod worker;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Percent-encodes one part of a URL.
pub(crate) fn encode(text: &str) -> String {
    const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, PART).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn parts_of_a_url_are_encoded() {
        assert_eq!(super::encode("a b/ü@1"), "a%20b%2F%C3%BC%401");
    }
}
