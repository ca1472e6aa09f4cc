//! What comes from outside, read for fuzzing: filters, orders, bodies, spans. Nothing may panic.

use crate::filter::{Noun, clauses, orders};
use crate::message::Message;
use crate::otlp::{Form, decompressed, groups};
use lockgate_control::tracking::Tree;

/// Reads bytes as everything that clients send.
pub fn read_everything(bytes: &[u8]) {
    // Refused or not: both are answers.
    let _message = Message::from_body(bytes).map(|message| {
        let _fields = (message.text("name"), message.int("timestamp"), message.number("value"));
        let _lists = (message.messages("metrics"), message.texts("order_by"), message.map("tags"));
    });
    for form in [Form::Protobuf, Form::Json] {
        let _groups = groups(bytes, form);
    }
    for encoding in ["gzip", "deflate"] {
        let _unpacked = decompressed(bytes.to_vec(), Some(encoding));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for noun in Noun::ALL {
        let _clauses = clauses(noun, text);
        let _orders = orders(noun, &[text.to_owned()]);
    }
    if let Some(tree) = Tree::parse(text) {
        let _texts = (tree.dump(), tree.dump_ascii());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_everything(&bytes);
        }

        #[test]
        fn no_text_of_their_words_does(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "metrics", "params", "tags", "attributes", "span", ".", "`", "\"", "'", "=", "!=", "LIKE", "IN", "(", ")", ",", "AND",
                    " ", "1", "-1e400", "NaN", "Infinity", "{", "}", "[", "]", ":", "\\", "\\ud83d", "\\u", "ü", "DESC", "IS", "NULL",
                ]),
                0..30,
            )
        ) {
            read_everything(words.concat().as_bytes());
        }
    }
}
