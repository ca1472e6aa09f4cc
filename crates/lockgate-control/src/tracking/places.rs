//! Where artifacts lie: MLflow's `mlflow-artifacts:/` URIs, and the roots and paths behind them.
//!
//! A *root* is the folder of one run (`0/RUN/artifacts`), one logged model (`0/models/MODEL/artifacts`), one
//! trace (`0/traces/TRACE/artifacts`) or one registered version (`versions/ID/artifacts`). Bytes never lie at a path: it is a key in a table, so that a path that
//! leads somewhere else leads nowhere here; it is refused all the same, because clients write it to their own disks.

use super::error::TrackingError;
use lockgate_core::release::is_safe_path;
use lockgate_store::DEFAULT_WORKSPACE;
use percent_encoding::percent_decode_str;

const SCHEME: &str = "mlflow-artifacts:/";
/// The path below which artifact URIs of the form `http://…` continue.
pub(super) const PROXY: &str = "/api/2.0/mlflow-artifacts/artifacts/";
/// The folder of registered versions' files.
const VERSIONS: &str = "versions";
/// The last part of every root.
const ARTIFACTS: &str = "artifacts";
/// How often an encoded path is decoded in search of what it hides.
pub(super) const DECODINGS: usize = 8;

/// Whose root it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A run's, by its id.
    Run(String),
    /// A logged model's, by its id.
    Model(String),
    /// A trace's, by its id.
    Trace(String),
    /// A registered version's.
    Version,
}

/// A path split into a root and what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) root: String,
    /// Empty for the root itself.
    pub(super) path: String,
}

impl Place {
    /// The beginning of all paths below this one.
    pub(super) fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}/", self.path) }
    }
}

/// The location of an experiment that names none, in a workspace whose artifacts lie at `root`, where it says so.
pub(super) fn of_experiment(workspace: &str, root: Option<&str>, id: i64) -> String {
    match root {
        Some(root) => below(root, &id.to_string()),
        None if workspace == DEFAULT_WORKSPACE => format!("{SCHEME}{id}"),
        None => format!("{SCHEME}workspaces/{workspace}/{id}"),
    }
}

/// A URI of something below another one; what the other asks for in its query stays at the end.
pub(super) fn below(uri: &str, path: &str) -> String {
    let (head, query) = match uri.find('?') {
        // A plain path has no query, and among our own files a question mark is a character like any other.
        Some(at) if uri[..at].contains(':') && root_of(uri).is_none() => uri.split_at(at),
        _ => (uri, ""),
    };
    let query = if query == "?" { "" } else { query };
    format!("{}/{path}{query}", head.trim_end_matches('/'))
}

/// A run's artifact URI.
pub(super) fn of_run(location: &str, run: &str) -> String {
    below(location, &format!("{run}/{ARTIFACTS}"))
}

/// A logged model's artifact URI.
pub(super) fn of_logged_model(location: &str, model: &str) -> String {
    below(location, &format!("models/{model}/{ARTIFACTS}"))
}

/// A trace's artifact URI.
pub(super) fn of_trace(location: &str, trace: &str) -> String {
    below(location, &format!("traces/{trace}/{ARTIFACTS}"))
}

/// The root of a registered version's files.
pub(super) fn version_root(id: &str) -> String {
    format!("{VERSIONS}/{id}/{ARTIFACTS}")
}

/// The URI of a root or of something below it.
pub(super) fn uri(path: &str) -> String {
    format!("{SCHEME}{path}")
}

/// The path behind an `mlflow-artifacts:` URI; none where the files lie elsewhere.
pub(super) fn root_of(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix(SCHEME)?;
    // `mlflow-artifacts://host/…` names another server; `:///…` means the same as `:/…`.
    match rest.strip_prefix('/') {
        None => Some(rest),
        Some(authority) => authority.strip_prefix('/'),
    }
}

/// Whether an experiment's artifacts may not lie there.
pub(super) fn is_reserved(location: &str) -> bool {
    root_of(location).is_some_and(|root| root.split('/').next() == Some(VERSIONS))
}

/// Whether this is a logged model's id.
pub(super) fn is_model_id(text: &str) -> bool {
    text.strip_prefix("m-").is_some_and(is_hex_id)
}

/// A logged model's id as a run's links name it: any text, as with MLflow's own server, that is no way to another folder
/// where it becomes a file's name.
pub(super) fn linked_model(id: &str) -> Result<(), TrackingError> {
    let leads_elsewhere = id.contains(['/', '\\', '\0']) || id == "." || id == "..";
    match leads_elsewhere {
        true => Err(TrackingError::invalid(format!("Invalid logged model ID: '{}'", id.escape_debug()))),
        false => Ok(()),
    }
}

/// Whether this is a run's id.
pub(super) fn is_run_id(text: &str) -> bool {
    is_hex_id(text)
}

/// Whether this is an id that MLflow's clients give to traces.
fn is_trace_id(text: &str) -> bool {
    text.strip_prefix("tr-").is_some_and(is_hex_id)
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The same path without what means nothing in it: empty parts and `.`; an error where it is not safe.
pub(super) fn normal(path: &str) -> Result<String, TrackingError> {
    without(path, |part| part.is_empty() || part == ".")
}

/// The same path without empty parts; an error where it is not safe.
pub(super) fn compact(path: &str) -> Result<String, TrackingError> {
    without(path, str::is_empty)
}

fn without(path: &str, idle: impl Fn(&str) -> bool) -> Result<String, TrackingError> {
    if path.starts_with('/') {
        return Err(TrackingError::invalid("Invalid path"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !idle(part)).collect();
    checked(&parts.join("/")).map(str::to_owned)
}

/// A safe path, or an error; the empty one is safe. What a client decodes once more must not lead elsewhere either; apart from
/// that a percent sign means nothing here: MLflow 2's own names of images hold some.
pub(super) fn checked(path: &str) -> Result<&str, TrackingError> {
    let refused = || TrackingError::invalid("Invalid path");
    let path = path.trim_end_matches('/');
    if !path.is_empty() && (!is_safe_path(path) || path.contains('#')) {
        return Err(refused());
    }
    let mut seen = path.to_owned();
    for _ in 0..DECODINGS {
        if leads_elsewhere(&seen) {
            return Err(refused());
        }
        let next = percent_decode_str(&seen).decode_utf8_lossy().into_owned();
        if next == seen {
            return Ok(path);
        }
        seen = next;
    }
    Err(refused())
}

fn leads_elsewhere(path: &str) -> bool {
    let mut parts = path.split(['/', '\\']);
    path.starts_with(['/', '\\'])
        || path.contains(['\0', '#'])
        || has_drive(path)
        || path.get(..6).is_some_and(|head| head.eq_ignore_ascii_case("file:/"))
        || parts.any(|part| part == "." || part == "..")
}

/// `C:` at the beginning means a drive to Windows clients.
fn has_drive(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':'
}

/// Splits a safe path where the first root in it ends.
pub(super) fn split(path: &str) -> Option<Place> {
    let parts: Vec<&str> = path.split('/').collect();
    let owns = |id: &str| is_hex_id(id) || is_model_id(id) || is_trace_id(id);
    let end = (1..parts.len()).find(|i| parts[*i] == ARTIFACTS && owns(parts[i - 1]))?;
    let id = parts[end - 1].to_owned();
    let owner = match id {
        _ if end == 2 && parts[0] == VERSIONS => Owner::Version,
        id if is_model_id(&id) => Owner::Model(id),
        id if is_trace_id(&id) => Owner::Trace(id),
        id => Owner::Run(id),
    };
    Some(Place { owner, root: parts[..=end].join("/"), path: parts[end + 1..].join("/") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn paths_are_split_at_their_root() {
        let place = split(&format!("7/{RUN}/artifacts/plots/a.png")).unwrap();
        assert_eq!(place.owner, Owner::Run(RUN.to_owned()));
        assert_eq!((place.root, place.path.as_str()), (format!("7/{RUN}/artifacts"), "plots/a.png"));
        let place = split(&format!("deep/er/models/m-{RUN}/artifacts")).unwrap();
        assert_eq!(place.owner, Owner::Model(format!("m-{RUN}")));
        assert_eq!(place.prefix(), "");
        let place = split(&format!("0/traces/tr-{RUN}/artifacts/traces.json")).unwrap();
        assert_eq!((place.owner, place.path.as_str()), (Owner::Trace(format!("tr-{RUN}")), "traces.json"));
        assert_eq!(split(&version_root(RUN)).unwrap().owner, Owner::Version);
        for none in ["", "artifacts", "0/artifacts/x", "0/short/artifacts/x"] {
            assert!(split(none).is_none(), "{none}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in [
            "../x",
            "a/../../b",
            "/etc/passwd",
            "a//b",
            "a\\b",
            "a/%2e%2e/b",
            "a/%252e%252e/b",
            "%2fetc",
            "a#b",
            "C:/x",
            "a\0b",
            "a/%5c..",
            "a%5c..%5cb",
            "%5cb",
            "./a",
            "a%00",
            "a%2523",
            "file:///etc/passwd",
            "FILE:/etc/passwd",
            "file%3A/x",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        for good in [
            "",
            "a",
            "a/b c.txt",
            "ü/100%.csv",
            "a/b/",
            "..a/b..",
            "ab:c",
            "dog%step%1%timestamp%1795699828407%a3.png",
            "%ff",
            "a%5cb",
        ] {
            assert!(checked(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn parts_that_mean_nothing_are_left_out() {
        for (path, normal_one) in [
            (".", ""),
            ("./", ""),
            ("", ""),
            ("./a", "a"),
            ("d/.", "d"),
            ("d//e/./f", "d/e/f"),
            ("a/", "a"),
            ("..a/.b", "..a/.b"),
        ] {
            assert_eq!(normal(path).unwrap(), normal_one, "{path}");
        }
        assert_eq!(compact("x//y/").unwrap(), "x/y");
        assert!(compact("./a").is_err() && compact("a/.").is_err());
        for bad in [
            "/",
            "//",
            "/a",
            "./..",
            "a/./../..",
            ".//..",
            "./%2e%2e/a",
            "a/%2e/b",
            "./C:/x",
            ".\\a",
            "./a#b",
            "file:///etc/passwd",
            "./file:/etc/passwd",
        ] {
            assert!(normal(bad).is_err() && compact(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_location_asks_for_stays_at_the_end() {
        for (location, run) in [
            ("s3://b/x", "s3://b/x/R/artifacts"),
            ("s3://b/x/?y=1", "s3://b/x/R/artifacts?y=1"),
            ("s3://b?y=1", "s3://b/R/artifacts?y=1"),
            ("gs://b/p?", "gs://b/p/R/artifacts"),
            ("file:///a?b=c", "file:///a/R/artifacts?b=c"),
            ("mysql://u:p@h:port/db?driver=d", "mysql://u:p@h:port/db/R/artifacts?driver=d"),
            ("/a/b?c=d", "/a/b?c=d/R/artifacts"),
            ("mlflow-artifacts:/0", "mlflow-artifacts:/0/R/artifacts"),
        ] {
            assert_eq!(of_run(location, "R"), run);
        }
        assert_eq!(below("mlflow-artifacts:/0/a?b", "c"), "mlflow-artifacts:/0/a?b/c");
        assert_eq!(of_experiment("w", Some("s3://b/x?y"), 7), "s3://b/x/7?y");
    }

    #[test]
    fn models_of_runs_have_any_id_but_one_that_leads_elsewhere() {
        for good in ["", "m-1", "m-x y", "..a", "ü"] {
            assert!(linked_model(good).is_ok(), "{good}");
        }
        for bad in ["../../x", "a/b", "/etc", "..", ".", "a\\b", "a\0"] {
            assert!(linked_model(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uris_of_other_servers_have_no_root_here() {
        assert_eq!(root_of("mlflow-artifacts:/0/x"), Some("0/x"));
        assert_eq!(root_of("mlflow-artifacts:///0/x"), Some("0/x"));
        assert_eq!(root_of("mlflow-artifacts://host/0/x"), None);
        assert_eq!(root_of("s3://bucket/0"), None);
        assert!(is_reserved("mlflow-artifacts:/versions/x"));
        assert!(!is_reserved("mlflow-artifacts:/versions2"));
    }
}
