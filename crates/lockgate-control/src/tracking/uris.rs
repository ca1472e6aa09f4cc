//! URIs as Python's `urllib` takes them apart: MLflow's rules for sources are written in its terms.

use super::places::DECODINGS;
use percent_encoding::percent_decode_str;

/// A URI in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri<'a> {
    /// In small letters; empty where there is none.
    pub(super) scheme: String,
    /// What stands between `//` and the path.
    pub(super) authority: &'a str,
    /// The path, without query and fragment.
    pub(super) path: &'a str,
}

impl<'a> Uri<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ => (String::new(), text),
        };
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        Self { scheme, authority, path: rest.split(['?', '#']).next().unwrap_or_default() }
    }

    /// The host's name, in small letters.
    pub(super) fn host(&self) -> String {
        let host = self.authority.rsplit('@').next().unwrap_or_default();
        host.split(':').next().unwrap_or_default().to_ascii_lowercase()
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// The URI with its scheme in small letters, as this server's own are written.
pub(super) fn with_small_scheme(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => format!("{}:{rest}", scheme.to_ascii_lowercase()),
        _ => text.to_owned(),
    }
}

/// What a text means once nothing in it is encoded any more; none where there is no end of it.
fn decoded(text: &str) -> Option<String> {
    let mut seen = text.to_owned();
    for _ in 0..DECODINGS {
        let next = percent_decode_str(&seen.replace('+', " ")).decode_utf8_lossy().into_owned();
        if next == seen {
            return Some(seen);
        }
        seen = next;
    }
    None
}

fn leads_up(text: &str) -> bool {
    text.contains('\0') || text.split(['/', '\\']).any(|part| part == "..")
}

/// Whether a URI's path is absolute and in its simplest form, whatever is encoded in it.
pub(super) fn is_plain(text: &str) -> bool {
    let Some(text) = decoded(text) else { return false };
    let path = Uri::of(&text).path.trim_end_matches('/');
    path.starts_with('/')
        && !leads_up(path)
        && !text.split('/').any(|part| part == "..")
        && !path.split('/').any(|part| part == ".")
}

/// Whether a text or URI means a file of the machine it is read on.
pub(super) fn is_local(uri: &Uri<'_>) -> bool {
    matches!(uri.scheme.as_str(), "" | "file")
}

/// The parts of an absolute local path; none where it is not absolute or leads up.
fn local_parts(text: &str) -> Option<Vec<String>> {
    let uri = Uri::of(text);
    let path = if uri.scheme == "file" { uri.path } else { text };
    let path = percent_decode_str(path).decode_utf8().ok()?.into_owned();
    if !path.starts_with('/') || leads_up(&decoded(&path)?) {
        return None;
    }
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    Some(parts.map(str::to_owned).collect())
}

/// Whether a local path or file URI lies within a folder that is one, too.
pub(super) fn is_local_within(text: &str, folder: &str) -> bool {
    match (is_local(&Uri::of(folder)), local_parts(text), local_parts(folder)) {
        (true, Some(inner), Some(outer)) => !outer.is_empty() && inner.starts_with(&outer),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_fall_into_the_parts_that_python_sees() {
        let parts = |text| {
            let Uri { scheme, authority, path } = Uri::of(text);
            (scheme, authority, path)
        };
        assert_eq!(parts("S3://b/x?y#z"), ("s3".to_owned(), "b", "/x"));
        assert_eq!(parts("s3:"), ("s3".to_owned(), "", ""));
        assert_eq!(parts("mlflow-artifacts:/0/x"), ("mlflow-artifacts".to_owned(), "", "/0/x"));
        assert_eq!(parts("/a:b/c"), (String::new(), "", "/a:b/c"));
        assert_eq!(parts("a b:c"), (String::new(), "", "a b:c"));
        assert_eq!(Uri::of("ftp://me:pw@Host:21/x").host(), "host");
    }

    #[test]
    fn only_absolute_paths_in_their_simplest_form_are_plain() {
        for good in
            ["s3://b/x", "s3://b//x/", "s3:/b/x", "gs://b/x#y", "foo:/x", "s3://b/...../x", "s3://b/50%"]
        {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "s3:",
            "s3://b",
            "s3://b/",
            "foo:x",
            "s3://b/../x",
            "s3://b/./x",
            "s3://b/%2e%2e/x",
            "s3://b/%252e%252e/x",
            "s3://b/x%00",
            "s3://b/a\\..\\b",
            "s3://b/..",
            "mlflow-artifacts:",
            "s3://b/x?y=/../z",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn local_paths_lie_within_a_folder_or_not() {
        for inner in [
            "/art/r/artifacts",
            "file:///art/r/artifacts/model",
            "/art/r/artifacts/.",
            "/art//r/artifacts/a b",
        ] {
            assert!(is_local_within(inner, "file:///art/r/artifacts"), "{inner}");
        }
        for outer in [
            "/art/r",
            "/art/r/artifacts2",
            "file:///etc",
            "/art/r/artifacts/../../s",
            "/art/r/artifacts/%2e%2e/x",
            "/art/r/artifacts/%252e%252e/x",
            "art/r/artifacts/x",
            "/art/r/artifacts/x%00",
            "",
        ] {
            assert!(!is_local_within(outer, "file:///art/r/artifacts"), "{outer}");
        }
        assert!(!is_local_within("/x", "file:///"), "everything is in the root");
        assert!(!is_local_within("/0/r/artifacts/m", "mlflow-artifacts:/0/r/artifacts"));
    }
}
