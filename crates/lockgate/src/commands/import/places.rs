//! Places as MLflow writes them: local paths, `file:` URIs, and the run or logged model whose folder a path is in.

use lockgate_control::tracking::exchange::OwnedPath;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::path::PathBuf;

/// The path behind a bare path or a `file:` URI.
pub(super) fn local(uri: &str) -> Option<PathBuf> {
    if let Some(rest) = uri.strip_prefix("file:") {
        let path = match rest.strip_prefix("//") {
            // `file://host/path`: only this machine has no name.
            Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
            None => rest,
        };
        let usable = path.starts_with('/') || !rest.starts_with("//");
        return (usable && !path.is_empty()).then(|| PathBuf::from(decoded(path)));
    }
    let is_uri = uri.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    (!is_uri && !uri.is_empty()).then(|| PathBuf::from(uri))
}

/// The path behind an `mlflow-artifacts:` URI, whatever server it names.
pub(super) fn proxied(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.split_once('/').map_or("", |(_, path)| path),
        None => rest.trim_start_matches('/'),
    };
    Some(path.trim_matches('/').to_owned())
}

/// Percent-decodes; what is no UTF-8 then stays as it was.
pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// Percent-encodes the parts of a path.
pub(super) fn encoded(path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(crate::commands::encode).collect();
    parts.join("/")
}

/// Whether a name is a run's, a logged model's or a trace's id.
pub(super) fn is_id(part: &str) -> bool {
    let id = part.strip_prefix("m-").or_else(|| part.strip_prefix("tr-")).unwrap_or(part);
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whose folder a local or proxied URI lies in, and where in it.
pub(super) fn owner(uri: &str) -> Option<OwnedPath> {
    let path = match proxied(uri) {
        Some(path) => path,
        None => local(uri)?.to_str()?.to_owned(),
    };
    parts_of(&path)
}

/// Whose folder a path lies in, and where in it.
pub(super) fn parts_of(path: &str) -> Option<OwnedPath> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let end = (1..parts.len()).find(|i| parts[*i] == "artifacts" && is_id(parts[i - 1]))?;
    Some(OwnedPath { owner: parts[end - 1].to_owned(), path: parts[end + 1..].join("/") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn local_places_are_told_from_others() {
        let path = |uri: &str| local(uri).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(path("file:///a/b%20c"), Some("/a/b c".to_owned()));
        assert_eq!(path("file:/a"), Some("/a".to_owned()));
        assert_eq!(path("file://localhost/a"), Some("/a".to_owned()));
        assert_eq!(path("/a/b%20c"), Some("/a/b%20c".to_owned()));
        assert_eq!(path("./mlruns/0"), Some("./mlruns/0".to_owned()));
        for other in ["s3://b/x", "dbfs:/x", "mlflow-artifacts:/0", "file://host/a", ""] {
            assert_eq!(path(other), None, "{other}");
        }
    }

    #[test]
    fn proxied_places_are_paths() {
        assert_eq!(proxied("mlflow-artifacts:/0/x/artifacts").as_deref(), Some("0/x/artifacts"));
        assert_eq!(proxied("mlflow-artifacts://host:5000/0/x").as_deref(), Some("0/x"));
        assert_eq!(proxied("mlflow-artifacts:///0/x").as_deref(), Some("0/x"));
        assert_eq!(proxied("s3://b"), None);
    }

    #[test]
    fn files_belong_to_the_run_or_model_whose_folder_they_are_in() {
        let of = |uri: &str| owner(uri).map(|found| (found.owner, found.path));
        let model = format!("m-{RUN}");
        assert_eq!(of(&format!("file:///x/0/{RUN}/artifacts/a/b")), Some((RUN.to_owned(), "a/b".to_owned())));
        assert_eq!(
            of(&format!("mlflow-artifacts:/0/models/{model}/artifacts")),
            Some((model, String::new()))
        );
        assert_eq!(of(&format!("s3://b/0/{RUN}/artifacts/a")), None);
        assert_eq!(of("/models/mine"), None);
    }
}
