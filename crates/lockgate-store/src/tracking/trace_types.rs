//! The rows of traces as values.

use super::types::KeyValue;
use lockgate_core::clock::Millis;

/// What an application did for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Its id.
    pub trace_id: String,
    /// Its experiment.
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
    /// The conversation it belongs to.
    pub session_id: Option<String>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// Its metadata, which clients don't change later.
    pub metadata: Vec<KeyValue>,
    /// What was said about it.
    pub assessments: Vec<Assessment>,
}

impl Trace {
    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        value_of(&self.tags, key)
    }

    /// The value of a piece of metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        value_of(&self.metadata, key)
    }
}

fn value_of<'a>(pairs: &'a [KeyValue], key: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str())
}

/// One step of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace_id: String,
    /// Its id, in hexadecimal digits.
    pub span_id: String,
    /// The step it is a part of.
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// MLflow's type of it.
    pub kind: Option<String>,
    /// `OK`, `ERROR` or `UNSET`.
    pub status: String,
    /// When it began, in nanoseconds.
    pub start_ns: i64,
    /// When it ended; 0 where it didn't.
    pub end_ns: i64,
    /// The tokens that a language model used, as JSON.
    pub token_use: Option<String>,
    /// What that cost, as JSON.
    pub cost: Option<String>,
    /// All of it, as JSON.
    pub content: String,
}

/// What somebody or something said about a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// Its id.
    pub assessment_id: String,
    /// Its trace.
    pub trace_id: String,
    /// Its name.
    pub name: String,
    /// `feedback`, `expectation` or `issue`.
    pub kind: String,
    /// Its value, as JSON.
    pub value: String,
    /// Its value where that is a finite number. Not read back.
    pub amount: Option<f64>,
    /// Why there is no value, as JSON.
    pub error: Option<String>,
    /// Who said it: MLflow's name of the kind.
    pub source_type: String,
    /// Who said it.
    pub source_id: Option<String>,
    /// The run during which it was said.
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
    /// Whether it is about the whole conversation.
    pub of_session: bool,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
}
