//! Traces and what was said about them, as MLflow's REST API and its file store write them: in the same fields.

use super::FoundTrace;
use anyhow::{Context as _, bail};
use lockgate_control::tracking::exchange::{AssessmentRecord, Pairs, TraceRecord};
use lockgate_control::tracking::{Experiment, Tree};
use lockgate_core::clock::Millis;

const LOCATION: &str = "mlflow.artifactLocation";
const SPANS: &str = "mlflow.trace.spansLocation";

fn text(of: &Tree, key: &str) -> Option<String> {
    of.get(key).and_then(Tree::as_text).map(str::to_owned)
}

/// A whole number; releases write some of them as texts.
fn whole(of: &Tree, key: &str) -> Option<i64> {
    let found = of.get(key)?;
    found.as_count().or_else(|| found.as_text()?.parse().ok())
}

fn time(of: &Tree, key: &str) -> anyhow::Result<Option<Millis>> {
    let Some(text) = text(of, key) else { return Ok(None) };
    let stamp: jiff::Timestamp = text.parse().with_context(|| format!("`{text}` is no time"))?;
    Ok(Some(stamp.as_millisecond()))
}

/// Seconds as protobuf writes them (`0.088s`), in milliseconds.
fn duration(text: &str) -> anyhow::Result<i64> {
    let seconds: Option<f64> = text.strip_suffix('s').and_then(|number| number.parse().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite() && seconds.abs() < 1e12);
    Ok((seconds.with_context(|| format!("`{text}` is no duration"))? * 1000.0).round() as i64)
}

/// Tags or metadata: a map, or a list of keys and values.
pub(super) fn pairs(of: &Tree, key: &str) -> Pairs {
    let value = |value: &Tree| value.as_text().map_or_else(|| value.dump(), str::to_owned);
    match of.get(key) {
        Some(Tree::Map(found)) => found.iter().map(|(key, found)| (key.clone(), value(found))).collect(),
        Some(Tree::List(found)) => found
            .iter()
            .filter_map(|pair| Some((text(pair, "key")?, pair.get("value").map(value).unwrap_or_default())))
            .collect(),
        _ => Pairs::new(),
    }
}

/// A trace; where it is no part of this, tags and the like are added by whoever reads it.
pub(super) fn trace(of: &Tree, experiment: &Experiment) -> anyhow::Result<FoundTrace> {
    let id = text(of, "trace_id").or_else(|| text(of, "request_id")).context("a trace has no id")?;
    let state = text(of, "state").or_else(|| text(of, "status")).unwrap_or_default();
    let started = match time(of, "request_time")? {
        Some(time) => time,
        None => whole(of, "timestamp_ms").with_context(|| format!("trace {id} has no time"))?,
    };
    let took = match text(of, "execution_duration") {
        Some(text) => Some(duration(&text)?),
        None => whole(of, "execution_duration_ms").or_else(|| whole(of, "execution_time_ms")),
    };
    let mut metadata = pairs(of, "trace_metadata");
    metadata.extend(pairs(of, "request_metadata"));
    let said = of.get("assessments").and_then(Tree::as_list).unwrap_or_default();
    let record = TraceRecord {
        experiment_id: experiment.id,
        state,
        started,
        duration: took,
        client_request_id: text(of, "client_request_id"),
        request_preview: text(of, "request_preview"),
        response_preview: text(of, "response_preview"),
        tags: pairs(of, "tags"),
        metadata,
        assessments: said.iter().map(assessment).collect::<Result<_, _>>()?,
        spans_here: false,
        artifact_uri: None,
        trace_id: id,
    };
    Ok(found(record, experiment))
}

/// A trace whose tags say where its parts are.
pub(super) fn found(mut record: TraceRecord, experiment: &Experiment) -> FoundTrace {
    // Names of releases before 3.
    if matches!(record.state.as_str(), "" | "TRACE_STATUS_UNSPECIFIED") {
        "STATE_UNSPECIFIED".clone_into(&mut record.state);
    }
    let place = record.tags.remove(LOCATION);
    let place = place.unwrap_or_else(|| {
        let location = experiment.artifact_location.trim_end_matches('/');
        format!("{location}/traces/{}/artifacts", record.trace_id)
    });
    record.spans_here |= record.tags.remove(SPANS).as_deref() == Some("TRACKING_STORE");
    record.tags.retain(|key, _| {
        !matches!(key.as_str(), "mlflow.trace.archiveLocation" | "mlflow.trace.archivalFailure")
    });
    FoundTrace { record, uri: place }
}

/// An assessment.
pub(super) fn assessment(of: &Tree) -> anyhow::Result<AssessmentRecord> {
    let id = text(of, "assessment_id").context("an assessment has no id")?;
    let lacks = |what: &str| format!("assessment {id} has no {what}");
    let (mut error, mut kind) = (None, "feedback");
    let value = if let Some(feedback) = of.get("feedback") {
        error = feedback.get("error").filter(|error| **error != Tree::Null).map(Tree::dump_ascii);
        feedback.get("value").cloned().unwrap_or(Tree::Null).dump_ascii()
    } else if let Some(expectation) = of.get("expectation") {
        kind = "expectation";
        match expectation.get("serialized_value") {
            Some(written) => text(written, "value").with_context(|| lacks("value"))?,
            None => expectation.get("value").with_context(|| lacks("value"))?.dump_ascii(),
        }
    } else {
        kind = "issue";
        of.get("issue").with_context(|| lacks("value"))?.dump_ascii()
    };
    let source = of.get("source").cloned().unwrap_or(Tree::Null);
    let created = time(of, "create_time")?.with_context(|| lacks("time"))?;
    let metadata = of.get("metadata").filter(|found| matches!(found, Tree::Map(_)));
    Ok(AssessmentRecord {
        name: text(of, "assessment_name").unwrap_or_default(),
        kind: kind.to_owned(),
        value,
        error,
        source_type: text(&source, "source_type").unwrap_or_else(|| "SOURCE_TYPE_UNSPECIFIED".to_owned()),
        source_id: text(&source, "source_id"),
        run_id: text(of, "run_id"),
        span_id: text(of, "span_id"),
        rationale: text(of, "rationale"),
        overrides: text(of, "overrides"),
        valid: of.get("valid") != Some(&Tree::Bool(false)),
        metadata: metadata.map(Tree::dump_ascii),
        created,
        updated: time(of, "last_update_time")?.unwrap_or(created),
        id,
    })
}

/// The spans in a file of the clients' own form, each as JSON.
pub(in crate::commands::import) fn spans(text: &str) -> anyhow::Result<Vec<String>> {
    let Some(Tree::Map(pairs)) = Tree::parse(text) else { bail!("they are no JSON object") };
    match pairs.into_iter().find(|(key, _)| key == "spans") {
        Some((_, Tree::List(spans))) => Ok(spans.iter().map(Tree::dump).collect()),
        _ => bail!("there is no list of them"),
    }
}

fn shown(time: Millis) -> String {
    let stamp = jiff::Timestamp::from_millisecond(time).unwrap_or_default();
    format!("{stamp:.3}")
}

fn map(pairs: Vec<(&str, Tree)>) -> Tree {
    Tree::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn words(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

/// A trace's description in a file store.
pub(in crate::commands::import) fn described(record: &TraceRecord) -> Tree {
    let experiment = map(vec![("experiment_id", words(&record.experiment_id.to_string()))]);
    let place = map(vec![("mlflow_experiment", experiment), ("type", words("MLFLOW_EXPERIMENT"))]);
    let mut fields = vec![
        ("request_time", words(&shown(record.started))),
        ("state", words(&record.state)),
        ("trace_id", words(&record.trace_id)),
        ("trace_location", place),
    ];
    let texts = [
        ("client_request_id", &record.client_request_id),
        ("request_preview", &record.request_preview),
        ("response_preview", &record.response_preview),
    ];
    fields.extend(texts.into_iter().filter_map(|(key, text)| Some((key, words(text.as_ref()?)))));
    fields.extend(record.duration.map(|took| ("execution_duration_ms", Tree::Int(took))));
    map(fields)
}

/// An assessment in a file store.
pub(in crate::commands::import) fn written(trace: &str, record: &AssessmentRecord) -> Tree {
    let value = Tree::parse(&record.value).unwrap_or(Tree::Null);
    let (kind, said) = match record.kind.as_str() {
        "expectation" if matches!(value, Tree::List(_) | Tree::Map(_)) => {
            let inner = vec![("serialization_format", words("JSON_FORMAT")), ("value", words(&record.value))];
            ("expectation", map(vec![("serialized_value", map(inner))]))
        }
        "expectation" => ("expectation", map(vec![("value", value)])),
        "issue" => ("issue", value),
        _ => {
            let mut feedback = vec![("value", value)];
            feedback.extend(record.error.as_deref().and_then(Tree::parse).map(|error| ("error", error)));
            ("feedback", map(feedback))
        }
    };
    let mut source = vec![("source_type", words(&record.source_type))];
    source.extend(record.source_id.as_ref().map(|id| ("source_id", words(id))));
    let mut fields = vec![
        ("assessment_id", words(&record.id)),
        ("assessment_name", words(&record.name)),
        ("create_time", words(&shown(record.created))),
        ("last_update_time", words(&shown(record.updated))),
        ("source", map(source)),
        ("trace_id", words(trace)),
        ("valid", Tree::Bool(record.valid)),
        (kind, said),
    ];
    let texts =
        [("span_id", &record.span_id), ("rationale", &record.rationale), ("overrides", &record.overrides)];
    fields.extend(texts.into_iter().filter_map(|(key, text)| Some((key, words(text.as_ref()?)))));
    // What issues have beside it, others have in their metadata.
    fields.extend(record.run_id.as_ref().filter(|_| kind == "issue").map(|run| ("run_id", words(run))));
    fields.extend(record.metadata.as_deref().and_then(Tree::parse).map(|found| ("metadata", found)));
    map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_control::tracking::Lifecycle;

    fn experiment() -> Experiment {
        Experiment {
            id: 3,
            name: "e".to_owned(),
            artifact_location: "/x/3".to_owned(),
            lifecycle: Lifecycle::Active,
            created: 0,
            updated: 0,
            tags: Vec::new(),
        }
    }

    fn read(json: &str) -> anyhow::Result<FoundTrace> {
        trace(&Tree::parse(json).unwrap(), &experiment())
    }

    #[test]
    fn traces_of_all_releases_are_read() {
        let new = read(
            r#"{"trace_id": "t", "request_time": "2026-11-26T21:26:52.098Z", "execution_duration": "1.5s", "state": "OK",
                "tags": {"k": "v", "mlflow.artifactLocation": "s3://b/x", "mlflow.trace.spansLocation": "TRACKING_STORE"},
                "trace_metadata": {"m": "n"}}"#,
        )
        .unwrap();
        assert_eq!(
            (new.uri.as_str(), new.record.spans_here, new.record.duration),
            ("s3://b/x", true, Some(1500))
        );
        assert_eq!((new.record.started, new.record.tags.len()), (1_795_728_412_098, 1));
        let old = read(
            r#"{"request_id": "t", "timestamp_ms": "7", "execution_time_ms": 8, "status": "TRACE_STATUS_UNSPECIFIED",
                "tags": [{"key": "k", "value": "v"}], "request_metadata": [{"key": "m", "value": "n"}]}"#,
        )
        .unwrap();
        assert_eq!((old.record.started, old.record.duration), (7, Some(8)));
        assert_eq!((old.record.tags, old.record.metadata), (new.record.tags, new.record.metadata));
        assert_eq!(
            (old.record.state.as_str(), old.uri.as_str()),
            ("STATE_UNSPECIFIED", "/x/3/traces/t/artifacts")
        );
        for bad in [r#"{"trace_id": "t"}"#, "{}", "3", r#"{"trace_id": "t", "request_time": "yesterday"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn assessments_are_written_as_they_are_read() {
        for said in [
            r#""feedback": {"value": {"a": [1, 2.5, null]}, "error": {"error_code": "E"}}, "rationale": "1e3""#,
            r#""expectation": {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": "[1]"}}"#,
            r#""expectation": {"value": 7}, "metadata": {"k": "1"}, "overrides": "a-2", "valid": false"#,
            r#""issue": {"issue_name": "i"}, "run_id": "r", "span_id": "s""#,
        ] {
            let json = format!(
                r#"{{"assessment_id": "a", "assessment_name": "n", "create_time": "2026-11-26T21:26:52.098Z",
                    "source": {{"source_type": "HUMAN", "source_id": "x"}}, {said}}}"#
            );
            let one = assessment(&Tree::parse(&json).unwrap()).unwrap();
            assert_eq!(assessment(&written("t", &one)).unwrap(), one, "{said}");
        }
        assert!(assessment(&Tree::parse(r#"{"assessment_id": "a", "feedback": {}}"#).unwrap()).is_err());
    }
}
