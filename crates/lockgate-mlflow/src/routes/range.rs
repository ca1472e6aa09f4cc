//! `Range`: a piece of a file.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// What of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    All,
    /// One piece.
    Piece { from: u64, length: u64 },
    /// A piece that it doesn't have.
    Nothing,
}

/// Reads the header. What can't be understood, several pieces at once, and a piece of another file than this one
/// (`If-Range`) are answered with the whole file, as RFC 9110 allows.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(etag) {
        return Wanted::All;
    }
    let spec = text(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes="));
    spec.and_then(|spec| piece(spec.trim(), size)).unwrap_or(Wanted::All)
}

fn piece(spec: &str, size: u64) -> Option<Wanted> {
    let (first, last) = spec.split_once('-')?;
    let (from, end) = match (number(first)?, number(last)?) {
        (None, None) => return None,
        (None, Some(0)) => return Some(Wanted::Nothing),
        (None, Some(count)) => (size.saturating_sub(count), size),
        (Some(from), None) => (from, size),
        (Some(from), Some(last)) if last < from => return None,
        (Some(from), Some(last)) => (from, last.saturating_add(1).min(size)),
    };
    Some(if from >= size { Wanted::Nothing } else { Wanted::Piece { from, length: end - from } })
}

/// A number, or nothing where there is none; none where it is something else.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    // No sign: `parse` alone would take `+1`.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().unwrap_or(u64::MAX)).map(Some)
}

/// The header that says which piece an answer is.
pub(super) fn content_range(
    status: StatusCode,
    from: u64,
    length: u64,
    size: u64,
) -> Option<(HeaderName, HeaderValue)> {
    let text = match status {
        StatusCode::PARTIAL_CONTENT => format!("bytes {from}-{}/{size}", from + length.saturating_sub(1)),
        StatusCode::RANGE_NOT_SATISFIABLE => format!("bytes */{size}"),
        _ => return None,
    };
    HeaderValue::try_from(text).ok().map(|value| (header::CONTENT_RANGE, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &'static str) -> Wanted {
        wanted(&HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]), "\"e\"", 10)
    }

    #[test]
    fn one_piece_is_understood() {
        for (range, from, length) in [
            ("bytes=0-0", 0, 1),
            ("bytes=2-5", 2, 4),
            ("bytes=2-", 2, 8),
            ("bytes=-3", 7, 3),
            ("bytes=-30", 0, 10),
            ("bytes=9-99", 9, 1),
            ("bytes=9-99999999999999999999999", 9, 1),
        ] {
            assert_eq!(asked(range), Wanted::Piece { from, length }, "{range}");
        }
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(asked(range), Wanted::Nothing, "{range}");
        }
    }

    #[test]
    fn anything_else_means_the_whole_file() {
        for range in
            ["bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "bytes=+1-2", "bytes=a-b", "lines=1-2", ""]
        {
            assert_eq!(asked(range), Wanted::All, "{range}");
        }
        let of = |etag: &'static str| {
            let headers = [(header::RANGE, "bytes=2-5"), (header::IF_RANGE, etag)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
            wanted(&HeaderMap::from_iter(headers), "\"e\"", 10)
        };
        assert_eq!(of("\"e\""), Wanted::Piece { from: 2, length: 4 });
        assert_eq!(of("\"other\""), Wanted::All);
    }

    #[test]
    fn an_empty_file_has_no_pieces() {
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-"))]);
        assert_eq!(wanted(&headers, "\"e\"", 0), Wanted::Nothing);
    }
}
