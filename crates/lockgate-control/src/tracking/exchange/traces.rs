//! Traces as records, and their digests.
//!
//! JSON is compared by what it says: the order of keys doesn't count, and a whole number is the same with and without a
//! point, because protobuf's JSON has no other.

use super::{Pairs, map_of};
use crate::tracking::{Assessment, Trace, Tree};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Tags that say where a trace's spans and files are. Each store has its own.
const PLACES: [&str; 4] = [
    "mlflow.artifactLocation",
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
];

/// A trace without its spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// Its id.
    pub trace_id: String,
    /// Its experiment's number.
    pub experiment_id: i64,
    /// MLflow's name of its state.
    pub state: String,
    /// When it began.
    pub started: Millis,
    /// How long it took, in milliseconds.
    pub duration: Option<i64>,
    /// The application's own id of the request.
    pub client_request_id: Option<String>,
    /// The beginning of the request.
    pub request_preview: Option<String>,
    /// The beginning of the answer.
    pub response_preview: Option<String>,
    /// Its tags, without those that say where its parts are.
    pub tags: Pairs,
    /// Its metadata.
    pub metadata: Pairs,
    /// What was said about it, by id.
    pub assessments: Vec<AssessmentRecord>,
    /// Whether its spans are in the database; otherwise they are a file of it.
    pub spans_here: bool,
    /// Where its files lie; nothing means on this server.
    pub artifact_uri: Option<String>,
}

/// What was said about a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssessmentRecord {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `feedback`, `expectation` or `issue`.
    pub kind: String,
    /// Its value, as JSON.
    pub value: String,
    /// Why there is no value, as JSON.
    pub error: Option<String>,
    /// The kind of who said it.
    pub source_type: String,
    /// Who said it.
    pub source_id: Option<String>,
    /// The run during which it was said, where its metadata doesn't name it.
    pub run_id: Option<String>,
    /// The span it is about.
    pub span_id: Option<String>,
    /// The reasons.
    pub rationale: Option<String>,
    /// The assessment that it takes the place of.
    pub overrides: Option<String>,
    /// Whether none took its place.
    pub valid: bool,
    /// More about it, as a JSON object.
    pub metadata: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
}

/// Spans of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpansRecord {
    /// The trace.
    pub trace_id: String,
    /// The spans, each as JSON like in MLflow's own files.
    pub spans: Vec<String>,
}

/// That a trace belongs to a run, or used a version of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLinkRecord {
    /// `run` or `prompt`.
    pub link: String,
    /// The run's id, or the prompt's name and version (`name/version`).
    pub target: String,
    /// The trace.
    pub trace_id: String,
}

/// The digests of one trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDigests {
    /// Experiment, state, times, previews, and where its spans are.
    pub row: Digest,
    /// Its tags.
    pub tags: Digest,
    /// Its metadata.
    pub metadata: Digest,
    /// What was said about it.
    pub assessments: Digest,
    /// Its spans, where they are in the database.
    pub spans: Digest,
    /// How many spans are in the database.
    pub count: u64,
}

/// What a server has of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownTrace {
    /// The trace.
    pub trace_id: String,
    /// Its digests; nothing where there is no such trace.
    pub digests: Option<TraceDigests>,
    /// The trace itself, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<Box<TraceRecord>>,
    /// What it is linked to, where the trace was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub links: Vec<TraceLinkRecord>,
}

/// JSON in a form that is the same for the same content; the text itself where it is none.
fn canonical(text: &str) -> String {
    match Tree::parse(text) {
        Some(tree) => sorted(tree).dump(),
        None => text.to_owned(),
    }
}

fn sorted(tree: Tree) -> Tree {
    match tree {
        Tree::List(items) => Tree::List(items.into_iter().map(sorted).collect()),
        Tree::Map(pairs) => {
            let mut pairs: Vec<(String, Tree)> =
                pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Tree::Map(pairs)
        }
        other => other.as_count().map_or(other, Tree::Int),
    }
}

/// The digest of a span by its JSON.
#[must_use]
pub fn span_digest(content: &str) -> Digest {
    Digest::of(canonical(content).as_bytes())
}

/// The spans of one trace, in any order. Only their digests are kept.
#[derive(Debug, Default)]
pub struct SpanHistory(Vec<Digest>);

impl SpanHistory {
    /// Adds a span.
    pub fn add(&mut self, content: &str) {
        self.0.push(span_digest(content));
    }

    /// The digest, and how many spans there are.
    #[must_use]
    pub fn finish(mut self) -> (Digest, u64) {
        self.0.sort_unstable_by_key(|one| *one.as_bytes());
        let parts: Vec<&[u8]> = self.0.iter().map(|one| one.as_bytes().as_slice()).collect();
        (Digest::of_parts(&parts), self.0.len() as u64)
    }
}

fn of_text(value: &serde_json::Value) -> Digest {
    Digest::of(value.to_string().as_bytes())
}

impl TraceDigests {
    /// The digests of a trace with its spans.
    #[must_use]
    pub fn of(trace: &TraceRecord, spans: SpanHistory) -> Self {
        let row = json!([
            trace.experiment_id,
            trace.state,
            trace.started,
            trace.duration,
            trace.client_request_id,
            trace.request_preview,
            trace.response_preview,
            trace.spans_here,
        ]);
        let mut said: Vec<String> = trace.assessments.iter().map(AssessmentRecord::canonical).collect();
        said.sort_unstable();
        let (spans, count) = spans.finish();
        Self {
            row: of_text(&row),
            tags: of_text(&json!(trace.tags)),
            metadata: of_text(&json!(trace.metadata)),
            assessments: of_text(&json!(said)),
            spans,
            count,
        }
    }

    /// The names of what differs.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("description", self.row == other.row),
            ("tags", self.tags == other.tags),
            ("metadata", self.metadata == other.metadata),
            ("assessments", self.assessments == other.assessments),
            ("spans", self.spans == other.spans),
        ];
        pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// One digest over all of them.
    #[must_use]
    pub fn whole(&self) -> Digest {
        let parts = [&self.row, &self.tags, &self.metadata, &self.assessments, &self.spans];
        Digest::of_parts(&parts.map(|part| part.as_bytes().as_slice()))
    }
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

impl AssessmentRecord {
    /// An assessment as a record.
    #[must_use]
    pub fn of(said: &Assessment) -> Self {
        Self {
            id: said.assessment_id.clone(),
            name: said.name.clone(),
            kind: said.kind.clone(),
            value: said.value.clone(),
            error: said.error.clone(),
            source_type: said.source_type.clone(),
            source_id: said.source_id.clone(),
            run_id: said.run_id.clone(),
            span_id: said.span_id.clone(),
            rationale: said.rationale.clone(),
            overrides: said.overrides.clone(),
            valid: said.valid,
            metadata: said.metadata.clone(),
            created: said.created,
            updated: said.updated,
        }
    }

    /// What counts of it, in one text. MLflow keeps no reasons for expectations, and tells no run beside the metadata.
    fn canonical(&self) -> String {
        let rationale = filled(self.rationale.as_ref()).filter(|_| self.kind != "expectation");
        // What has no value is written as nothing by some and as `null` by others.
        let error = filled(self.error.as_ref()).map(|error| match Tree::parse(error) {
            Some(Tree::Map(pairs)) => {
                let empty = |value: &Tree| matches!(value, Tree::Null) || value.as_text() == Some("");
                sorted(Tree::Map(pairs.into_iter().filter(|(_, value)| !empty(value)).collect())).dump()
            }
            _ => error.to_owned(),
        });
        let metadata = filled(self.metadata.as_ref())
            .map(canonical)
            .filter(|text| !matches!(text.as_str(), "{}" | "null"));
        json!([
            self.id,
            self.name,
            self.kind,
            canonical(&self.value),
            error,
            self.source_type,
            filled(self.source_id.as_ref()),
            filled(self.span_id.as_ref()),
            rationale,
            filled(self.overrides.as_ref()),
            self.valid,
            metadata,
            self.created,
            self.updated,
        ])
        .to_string()
    }
}

impl TraceRecord {
    /// A trace as a record; its files' place is left out.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut tags = map_of(&trace.tags);
        tags.retain(|key, _| !PLACES.contains(&key.as_str()));
        Self {
            trace_id: trace.trace_id.clone(),
            experiment_id: trace.experiment_id,
            state: trace.state.clone(),
            started: trace.started,
            duration: trace.duration,
            client_request_id: trace.client_request_id.clone(),
            request_preview: trace.request_preview.clone(),
            response_preview: trace.response_preview.clone(),
            tags,
            metadata: map_of(&trace.metadata),
            assessments: trace.assessments.iter().map(AssessmentRecord::of).collect(),
            spans_here: crate::tracking::traces::has_spans_here(trace),
            artifact_uri: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(spans: &[&str]) -> (Digest, u64) {
        let mut history = SpanHistory::default();
        spans.iter().for_each(|span| history.add(span));
        history.finish()
    }

    #[test]
    fn spans_are_the_same_in_any_order_and_writing() {
        let one = digest(&[r#"{"a": 1, "b": {"c": NaN}}"#, r#"{"a": 2}"#]);
        assert_eq!(one, digest(&[r#"{"a":2.0}"#, r#"{"b":{"c":NaN},"a":1}"#]));
        assert_eq!(one.1, 2);
        for other in [&[r#"{"a": 1, "b": {"c": 0}}"#, r#"{"a": 2}"#][..], &[r#"{"a": 2}"#], &[]] {
            assert_ne!(one.0, digest(other).0, "{other:?}");
        }
        assert_ne!(digest(&["no JSON"]).0, digest(&["no  JSON"]).0);
    }

    #[test]
    fn what_was_said_is_compared_by_what_counts() {
        let said = AssessmentRecord {
            id: "a".to_owned(),
            name: "n".to_owned(),
            kind: "feedback".to_owned(),
            value: "3".to_owned(),
            error: Some(r#"{"error_code": "E", "error_message": null}"#.to_owned()),
            source_type: "HUMAN".to_owned(),
            source_id: None,
            run_id: None,
            span_id: None,
            rationale: Some("because".to_owned()),
            overrides: Some(String::new()),
            valid: true,
            metadata: Some("{}".to_owned()),
            created: 1,
            updated: 2,
        };
        let mut other = said.clone();
        other.value = "3.0".to_owned();
        other.error = Some(r#"{"error_code":"E"}"#.to_owned());
        (other.overrides, other.metadata, other.source_id) = (None, None, Some(String::new()));
        assert_eq!(said.canonical(), other.canonical());
        other.valid = false;
        assert_ne!(said.canonical(), other.canonical());
        let (mut a, mut b) = (said.clone(), said);
        b.rationale = None;
        assert_ne!(a.canonical(), b.canonical());
        (a.kind, b.kind) = ("expectation".to_owned(), "expectation".to_owned());
        assert_eq!(a.canonical(), b.canonical());
    }
}
