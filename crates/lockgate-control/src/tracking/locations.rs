//! Where experiments say that their artifacts are to lie. The rules are those of MLflow's own server.

use super::error::TrackingError;
use super::places;
use percent_encoding::percent_decode_str;

/// Longest location.
const LOCATION: usize = 2048;
/// Schemes whose URIs name a host that whoever reads the artifacts connects to; `mlflow-artifacts` where it names one.
const HOST_SCHEMES: [&str; 10] =
    ["ftp", "sftp", "hdfs", "viewfs", "http", "https", "r2", "b2", "abfss", "mlflow-artifacts"];

/// A URI's scheme in small letters; empty where it is a path.
fn scheme(uri: &str) -> String {
    let is_scheme = |text: &&str| {
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(rest)
    };
    uri.split_once(':').map(|(scheme, _)| scheme).filter(is_scheme).unwrap_or_default().to_ascii_lowercase()
}

/// Whether the last part of a URI's path has parameters, in the schemes that know such.
fn has_params(path: &str, scheme: &str) -> bool {
    let known = matches!(scheme, "" | "ftp" | "http" | "https" | "sftp");
    known && path.rsplit('/').next().is_some_and(|last| last.contains(';'))
}

/// A text decoded until nothing is hidden in it any more; none where that takes too long.
fn decoded(text: &str) -> Option<String> {
    let mut seen = text.to_owned();
    for _ in 0..10 {
        let next = percent_decode_str(&seen).decode_utf8_lossy().into_owned();
        if next == seen {
            return Some(seen);
        }
        seen = next;
    }
    None
}

/// Where an experiment's artifacts are to lie.
pub(super) fn check(text: &str) -> Result<(), TrackingError> {
    let refuse = |why: String| Err(TrackingError::Invalid(why));
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let scheme = scheme(path);
    if text.contains('#') || has_params(path, &scheme) {
        return refuse("'artifact_location' URL can't include fragments or params.".to_owned());
    }
    match decoded(query) {
        Some(query) if !query.contains("..") => {}
        _ => return refuse("Invalid query string".to_owned()),
    }
    let is_own = places::root_of(path).is_some();
    if HOST_SCHEMES.contains(&scheme.as_str()) && !is_own {
        return refuse(format!(
            "'artifact_location' cannot use the '{scheme}' scheme: the location names a host of its own. Use a store that \
             clients reach by themselves (s3://, gs://, wasbs://, dbfs:/ …), or leave it out to keep the files on this server."
        ));
    }
    if scheme == "runs" {
        return refuse(format!("Artifact location cannot be a runs:/ URI. Given: '{text}'"));
    }
    if text.chars().count() > LOCATION {
        return refuse(format!(
            "Invalid artifact path length. The length of the artifact path cannot be greater than {LOCATION} characters."
        ));
    }
    // Below our own files a question mark is a character like any other.
    let own_query = is_own && path != text;
    if own_query
        || places::is_reserved(text)
        || text.chars().any(char::is_control)
        || path.split('/').any(|part| part == "..")
    {
        return refuse(format!("Invalid artifact location: '{}'", text.escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_follow_mlflows_rules() {
        for good in [
            "s3://b/x?y=1",
            "s3://b/x;y",
            "mysql://user:password@host:port/dbname?driver=mydriver",
            "gs://b/p?x",
            "file:///a?b=c",
            "dbfs:/x?y",
            "/a/b?c=d",
            "rel/x",
            "mlflow-artifacts:/x",
            "mlflow-artifacts:///x",
            "wasbs://c@a.blob.core.windows.net/p",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = format!("s3://b/{}", "x".repeat(2048));
        for (bad, why) in [
            ("s3://b/x#f", "can't include fragments or params"),
            ("x#y", "can't include fragments or params"),
            ("http://host/;..%2F..%2Fetc", "can't include fragments or params"),
            ("/a/b;c", "can't include fragments or params"),
            ("s3://b/x?..", "Invalid query string"),
            ("s3://b/x?%252e%252e/", "Invalid query string"),
            ("ftp://h/x", "'artifact_location' cannot use the 'ftp' scheme"),
            ("HDFS:/x", "'artifact_location' cannot use the 'hdfs' scheme"),
            ("https://h/x", "'artifact_location' cannot use the 'https' scheme"),
            ("mlflow-artifacts://h/x", "'artifact_location' cannot use the 'mlflow-artifacts' scheme"),
            ("runs:/x", "Artifact location cannot be a runs:/ URI"),
            (&long, "Invalid artifact path length"),
            ("s3://b/../x", "Invalid artifact location"),
            ("s3://b/x\n", "Invalid artifact location"),
            ("mlflow-artifacts:/x?y", "Invalid artifact location"),
            ("mlflow-artifacts:/versions/x", "Invalid artifact location"),
        ] {
            let said = check(bad).unwrap_err().to_string();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
