//! MLflow's limits and its rules for names. The messages are MLflow's own: its clients' tests know them.

use super::error::TrackingError;
use super::governed::RELEASE_TAG;
use super::locations;
use super::python;
use super::sources::PROMPT_TEXT;
use lockgate_store::tracking::{Dataset, DatasetInput, KeyValue, Metric};

type Checked = Result<(), TrackingError>;

/// Longest name of a metric, a param or a tag.
const KEY: usize = 250;
/// Longest value of a param; what is beyond it is cut off, as MLflow does.
const PARAM_VALUE: usize = 6000;
/// Longest value of a run's tag; what is beyond it is cut off, as MLflow does.
const TAG_VALUE: usize = 8000;
/// Longest id of a run.
const RUN_ID: usize = 256;
/// Longest name of a logged model's param: what PostgreSQL's index can hold.
const MODEL_PARAM: usize = 500;
/// Longest name of a logged model.
const LOGGED_MODEL_NAME: usize = 1000;
const EXPERIMENT_NAME: usize = 500;
const EXPERIMENT_TAG_VALUE: usize = 20_000;
const REGISTRY_TAG_VALUE: usize = 100_000;
const ALIAS: usize = 255;
/// How many metrics, and how many entities altogether, one batch may hold.
const BATCH: usize = 1000;
/// How many params and how many tags one batch may hold.
const BATCH_PAIRS: usize = 100;

fn refuse(message: impl Into<String>) -> Checked {
    Err(TrackingError::Invalid(message.into()))
}

fn at_most(what: &str, limit: usize, text: &str) -> Checked {
    match text.chars().count() {
        count if count > limit => {
            refuse(format!("'{what}' exceeds the maximum length of {limit} characters"))
        }
        _ => Ok(()),
    }
}

/// Why a name that is a path must be in its simplest form.
fn other_name(name: &str) -> String {
    format!(
        "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This \
         name would resolve to {}",
        python::text(&python::normal_path(name))
    )
}

/// What remains of a text within a limit.
fn cut(text: String, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// The name of a metric, a param or a tag: `path` is where it stands in the request, `what` what it is called where it is
/// too long.
pub(super) fn key(path: &str, what: &str, name: &str) -> Checked {
    if name.is_empty() {
        return refuse(format!(
            "Missing value for required parameter '{path}'. A key name must be provided."
        ));
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | ' ' | ':');
    if !name.chars().all(fits) {
        return refuse(format!(
            "Invalid value {} for parameter '{path}' supplied: Names may only contain alphanumerics, underscores (_), \
             dashes (-), periods (.), spaces ( ), colon(:) and slashes (/).",
            python::quoted(name)
        ));
    }
    let normal = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !normal {
        return refuse(format!(
            "Invalid value {} for parameter '{path}' supplied: {}",
            python::quoted(name),
            other_name(name)
        ));
    }
    at_most(what, KEY, name)
}

/// Where something stands in a request: in a list, or alone.
fn place(list: &str, index: usize, alone: bool) -> String {
    if alone { String::new() } else { format!("{list}[{index}].") }
}

/// Metrics as they may be logged.
pub(super) fn metrics(metrics: &[Metric], alone: bool) -> Checked {
    if metrics.len() > BATCH {
        return refuse(too_many("metrics", metrics.len(), BATCH));
    }
    for (i, metric) in metrics.iter().enumerate() {
        let place = place("metrics", i, alone);
        key(&format!("{place}name"), "Metric name", &metric.key)?;
        if metric.logged_at < 0 {
            return refuse(format!(
                "Invalid value {} for parameter '{place}timestamp' supplied: metric '{}' (value={}). Timestamp must be a \
                 nonnegative long (64-bit integer) ",
                metric.logged_at,
                metric.key,
                python::float(metric.value)
            ));
        }
    }
    Ok(())
}

/// A run's id where things are logged to it.
pub(super) fn run_id(id: &str) -> Checked {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let fits = id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(word);
    if fits && id.chars().count() <= RUN_ID {
        return Ok(());
    }
    refuse(format!("Invalid value {} for parameter 'run_id' supplied.", python::quoted(id)))
}

/// Params of a logged model. MLflow's own server takes any name and any value that its database can hold.
pub(super) fn model_params(params: &[KeyValue]) -> Checked {
    batch(params.len())?;
    params.iter().try_for_each(|param| at_most("key", MODEL_PARAM, &param.key))
}

/// Tags of a new run or of a logged model, as they are stored. Here MLflow's own server takes any name that its database can
/// hold.
pub(super) fn free_tags(tags: Vec<KeyValue>) -> Result<Vec<KeyValue>, TrackingError> {
    batch(tags.len())?;
    tags.into_iter()
        .map(|tag| {
            at_most("key", KEY, &tag.key)?;
            Ok(KeyValue { key: tag.key, value: cut(tag.value, TAG_VALUE) })
        })
        .collect()
}

/// Params that are logged, as they are stored.
pub(super) fn logged_params(params: Vec<KeyValue>, alone: bool) -> Result<Vec<KeyValue>, TrackingError> {
    pairs("params", Some("Param key"), params, PARAM_VALUE, alone)
}

/// Tags that are logged, as they are stored.
pub(super) fn logged_tags(tags: Vec<KeyValue>, alone: bool) -> Result<Vec<KeyValue>, TrackingError> {
    pairs("tags", None, tags, TAG_VALUE, alone)
}

fn pairs(
    what: &str,
    called: Option<&str>,
    pairs: Vec<KeyValue>,
    limit: usize,
    alone: bool,
) -> Result<Vec<KeyValue>, TrackingError> {
    if pairs.len() > BATCH_PAIRS {
        return Err(TrackingError::Invalid(too_many(what, pairs.len(), BATCH_PAIRS)));
    }
    pairs
        .into_iter()
        .enumerate()
        .map(|(i, pair)| {
            let path = format!("{}key", place(what, i, alone));
            key(&path, called.unwrap_or(&path), &pair.key)?;
            Ok(KeyValue { key: pair.key, value: cut(pair.value, limit) })
        })
        .collect()
}

fn too_many(what: &str, count: usize, limit: usize) -> String {
    format!(
        "A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split up {what} across multiple requests and try again."
    )
}

/// The size of a whole batch.
pub(super) fn batch(count: usize) -> Checked {
    if count > BATCH { refuse(too_many("metrics, params, and tags", count, BATCH)) } else { Ok(()) }
}

/// A batch names no param twice.
pub(super) fn no_duplicates(params: &[KeyValue]) -> Checked {
    let mut keys: Vec<&str> = params.iter().map(|param| param.key.as_str()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => refuse(format!(
            "Duplicate parameter keys have been submitted: ['{}']. Please ensure the request contains only one param \
             value per param key.",
            pair[0]
        )),
        None => Ok(()),
    }
}

/// An experiment's name.
pub(super) fn experiment_name(name: &str) -> Checked {
    if name.is_empty() {
        return refuse(format!("Invalid experiment name: '{name}'"));
    }
    at_most("name", EXPERIMENT_NAME, name)
}

/// An experiment's tag.
pub(super) fn experiment_tag(tag: &KeyValue) -> Checked {
    key("key", "key", &tag.key)?;
    at_most("value", EXPERIMENT_TAG_VALUE, &tag.value)
}

/// An experiment's number.
pub(super) fn experiment_id(text: &str) -> Result<i64, TrackingError> {
    text.parse().map_err(|_| {
        TrackingError::Invalid(format!(
            "Invalid experiment ID '{text}'. Experiment ID must be a valid integer."
        ))
    })
}

/// Below which URI the artifacts of a workspace's experiments are to lie.
pub(super) fn artifact_root(text: &str) -> Checked {
    let last = text.rsplit('/').next().unwrap_or_default();
    if text.contains('#') || last.contains(';') {
        return refuse("'default_artifact_root' URL can't include fragments or params.");
    }
    locations::check(text)?;
    if !text.contains(':') && !text.starts_with('/') {
        return refuse(format!(
            "Invalid value for 'default_artifact_root'. Expected a URI (such as 's3://bucket/prefix') or an absolute path, \
             got '{text}'."
        ));
    }
    Ok(())
}

/// A tag in the registry.
pub(super) fn registry_tag(tag: &KeyValue) -> Checked {
    key("key", "key", &tag.key)?;
    at_most("value", REGISTRY_TAG_VALUE, &tag.value)
}

/// A tag of a registered version. Some say what this server knows, and are its own.
pub(super) fn version_tag(tag: &KeyValue) -> Checked {
    own_tag(&tag.key)?;
    if tag.key == PROMPT_TEXT && tag.value.chars().count() > REGISTRY_TAG_VALUE {
        return refuse(format!("Prompt text exceeds max length of {REGISTRY_TAG_VALUE} characters."));
    }
    registry_tag(tag)
}

/// Whether people may set or take away a version's tag.
pub(super) fn own_tag(key: &str) -> Checked {
    if key == RELEASE_TAG {
        return refuse(format!("Tag '{key}' is set by `lockgate release create` and can't be changed"));
    }
    Ok(())
}

/// The longest id and session of a trace.
const TRACE_TEXT: usize = 250;

/// A trace's id, which its client chooses.
pub(super) fn trace_id(id: &str) -> Checked {
    if id.is_empty() {
        return refuse("Missing value for required parameter 'trace.trace_info.trace_id'.");
    }
    if id.contains('/') || id.chars().any(char::is_control) {
        return refuse(format!("Invalid trace ID {}: it must not contain '/'", python::text(id)));
    }
    at_most("trace_id", TRACE_TEXT, id)
}

/// The conversation that a trace belongs to.
pub(super) fn trace_session(session: &str) -> Checked {
    at_most("Session ID", TRACE_TEXT, session)
}

/// A trace's tag, as it is stored.
pub(super) fn trace_tag(tag: KeyValue) -> Result<KeyValue, TrackingError> {
    key("key", "key", &tag.key)?;
    Ok(KeyValue { key: tag.key, value: cut(tag.value, TAG_VALUE) })
}

/// The tags or the metadata that come with a trace.
pub(super) fn trace_pairs(pairs: &[KeyValue]) -> Checked {
    pairs.iter().try_for_each(|pair| at_most("key", KEY, &pair.key))
}

/// A registered model's name.
pub(super) fn model_name(name: &str) -> Checked {
    if name.trim().is_empty() {
        return refuse("Missing value for required parameter 'name'.");
    }
    if name.contains(['/', ':']) || name.chars().any(char::is_control) {
        return refuse(format!("Invalid model name '{name}'. Names cannot contain '/' or ':'."));
    }
    if matches!(name, "." | "..") {
        return refuse(format!(
            "Invalid value \"{name}\" for parameter 'name' supplied: {}",
            other_name(name)
        ));
    }
    at_most("name", 256, name)
}

/// A logged model's name.
pub(super) fn logged_model_name(name: &str) -> Checked {
    if name.is_empty() || name.contains(['/', ':', '.', '%', '"', '\'']) {
        return refuse(format!(
            "Invalid model name ({}) provided. Model name must be a non-empty string and cannot contain the following \
             characters: ('/', ':', '.', '%', '\"', \"'\")",
            python::text(name)
        ));
    }
    at_most("name", LOGGED_MODEL_NAME, name)
}

/// An alias that is to be set: some are reserved.
pub(super) fn alias(alias: &str) -> Checked {
    alias_form(alias)?;
    if alias.eq_ignore_ascii_case("latest") {
        return refuse("'latest' alias name (case insensitive) is reserved.");
    }
    let number = alias.strip_prefix(['v', 'V']);
    if number.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit())) {
        return refuse(format!("Version alias name '{alias}' is reserved."));
    }
    Ok(())
}

/// What any alias must look like.
pub(super) fn alias_form(alias: &str) -> Checked {
    if alias.is_empty() {
        return refuse("Registered model alias name cannot be empty.");
    }
    if !alias.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        return refuse(format!(
            "Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        ));
    }
    at_most("Registered model alias name", ALIAS, alias)
}

/// A dataset with its tags.
pub(super) fn dataset(input: &DatasetInput) -> Checked {
    let Dataset { name, digest, source_type: _, source, schema, profile } = &input.dataset;
    at_most("name", 500, name)?;
    at_most("digest", 36, digest)?;
    at_most("source", 65_535, source)?;
    at_most("schema", 1_048_575, schema.as_deref().unwrap_or_default())?;
    at_most("profile", 16_777_215, profile.as_deref().unwrap_or_default())?;
    for tag in &input.tags {
        at_most("key", 255, &tag.key)?;
        at_most("value", 500, &tag.value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_mlflows_rules() {
        for good in ["a", "mlflow.user", "a/b", "ünï:1 -_", ".hidden"] {
            assert!(key("name", "name", good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", "./a", "..", ".", "a\0", "a=b", "a\n"] {
            assert!(key("name", "name", bad).is_err(), "{bad}");
        }
        assert!(key("name", "name", &"x".repeat(251)).is_err());
    }

    #[test]
    fn a_new_runs_tags_may_have_any_name_that_can_be_kept() {
        let tag = |key: &str| KeyValue { key: key.to_owned(), value: "v".repeat(TAG_VALUE + 1) };
        let kept = free_tags(vec![tag("../up"), tag("semi;colon")]).unwrap();
        assert_eq!(kept.iter().map(|t| t.value.len()).collect::<Vec<_>>(), [TAG_VALUE, TAG_VALUE]);
        assert!(free_tags(vec![tag(&"k".repeat(KEY + 1))]).is_err());
        assert!(free_tags((0..=BATCH).map(|i| tag(&i.to_string())).collect()).is_err());
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let long = "ü".repeat(PARAM_VALUE + 1);
        let kept = logged_params(vec![KeyValue { key: "k".to_owned(), value: long }], true).unwrap();
        assert_eq!(kept[0].value.chars().count(), PARAM_VALUE);
    }

    #[test]
    fn ids_of_runs_are_words() {
        for good in ["a", "0", "a_b-c", "aé", &"a".repeat(RUN_ID)] {
            assert!(run_id(good).is_ok(), "{good}");
        }
        for bad in ["", "*****", "a/b", "..", "é", "-5", "a b", "../x", "a.b", &"a".repeat(RUN_ID + 1)] {
            assert!(run_id(bad).is_err(), "{bad}");
        }
        let error = run_id("é*").unwrap_err().to_string();
        assert_eq!(error, r#"Invalid value "\u00e9*" for parameter 'run_id' supplied."#);
    }

    #[test]
    fn params_of_logged_models_may_have_any_name_that_can_be_kept() {
        let param = |key: &str| KeyValue { key: key.to_owned(), value: "v".repeat(7000) };
        assert!(model_params(&["", ".", "a;b", "../x"].map(param)).is_ok());
        assert!(model_params(&[param(&"k".repeat(MODEL_PARAM + 1))]).is_err());
    }

    #[test]
    fn a_workspace_s_artifacts_lie_below_a_uri_without_fragments() {
        for good in ["s3://b/x", "s3://b/x?q=1", "mlflow-artifacts:/team", "/srv/x"] {
            assert!(artifact_root(good).is_ok(), "{good}");
        }
        for bad in ["s3://b/x#f", "s3://b/x;p", "s3://b/../x", "relative", "s3://b/x?.."] {
            assert!(artifact_root(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aliases_that_mean_versions_are_reserved() {
        for good in ["champion", "v1a", "v", "a-b_c"] {
            assert!(alias(good).is_ok(), "{good}");
        }
        for bad in ["", "latest", "LATEST", "v1", "V22", "a b", "a/b", "a.b"] {
            assert!(alias(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn models_names_hold_no_separators() {
        assert!(model_name("Parcel prices").is_ok());
        for bad in ["", " ", "a/b", "a:b", "..", "a\n"] {
            assert!(model_name(bad).is_err(), "{bad}");
        }
        assert!(logged_model_name("model").is_ok());
        assert!(logged_model_name("a.b").is_err());
    }
}
