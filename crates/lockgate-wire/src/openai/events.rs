//! A stream of server-sent events, watched as it passes: whether it came to its end, and whether it says that it failed.

/// How much of a line is looked at.
const LOOKED_AT: usize = 64;

/// What was seen of a stream so far.
#[derive(Debug, Clone, Default)]
pub struct Events {
    line: Vec<u8>,
    done: bool,
    failed: bool,
}

impl Events {
    /// Looks at the next bytes, however the stream is cut into pieces.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(at);
            self.keep(line);
            self.end_of_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    /// Whether the last event was there: `data: [DONE]`.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether an event says that the answer failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.line.len());
        self.line.extend(bytes.iter().take(room));
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
            self.done |= data == b"[DONE]";
            let inside = data.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
            self.failed |= inside.is_some_and(|i| i.starts_with(b"\"error\"") && !is_null(i));
        }
        let named = line.strip_prefix(b"event:").map(<[u8]>::trim_ascii);
        self.failed |= named == Some(b"error");
    }
}

/// Whether a member's value is `null`.
fn is_null(member: &[u8]) -> bool {
    let value = member.split(|b| *b == b':').nth(1).unwrap_or_default();
    value.trim_ascii_start().starts_with(b"null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(pieces: &[&[u8]]) -> (bool, bool) {
        let mut events = Events::default();
        pieces.iter().for_each(|piece| events.see(piece));
        (events.is_done(), events.has_failed())
    }

    #[test]
    fn an_end_and_a_failure_are_events_and_not_words_in_a_text() {
        let text = b"data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE] {\\\"error\\\"\"}}]}\n\n";
        assert_eq!(seen(&[text]), (false, false));
        assert_eq!(seen(&[text, b"data: [DONE]\n\n"]), (true, false));
        assert_eq!(seen(&[b"data:[DONE]\r\n\r\n"]), (true, false));
        assert_eq!(seen(&[b"data: {\"error\": {\"message\": \"x\"}}\n"]), (false, true));
        assert_eq!(seen(&[b"data: {\"error\": null, \"choices\": []}\n"]), (false, false));
        assert_eq!(seen(&[b"event: error\n"]), (false, true));
        // Cut off in the middle of its last line.
        assert_eq!(seen(&[b"data: [DON"]), (false, false));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_stream_is_cut(cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let whole: &[u8] = b": ping\n\ndata: {\"a\":1}\n\ndata: {\"error\":{}}\n\ndata: [DONE]\n\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(whole.len())).collect();
            cuts.sort_unstable();
            let mut events = Events::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([whole.len()]) {
                events.see(&whole[from..cut]);
                from = cut;
            }
            prop_assert!(events.is_done() && events.has_failed());
        }
    }
}
