//! Traces: what an application did for one request, and what was said about it.
//!
//! | module | subject |
//! |---|---|
//! | [`tree`], `lenient` | JSON that keeps its order, written and read as Python does |
//! | `spans` | spans as they arrive, and their rows |
//! | `conventions`, `translate` | what other conventions than MLflow's call the same things |
//! | `brought` | spans that other stores bring |
//! | `intake` | keeping spans, and what they say about their trace |
//! | `usage`, `preview` | sums of tokens and costs; the beginnings of requests and answers |
//! | `info`, `data` | whole traces, and finding them; their spans as files |
//! | `change` | tagging, linking and deleting them |
//! | `assessments` | feedback, expectations and issues |
//!
//! A trace arrives twice: as spans, one by one as they end, and as a whole at its end. Either may come first, and both
//! may come again. What the client says about the whole wins over what the spans say.

mod assessments;
mod brought;
mod change;
mod conventions;
mod data;
mod info;
mod intake;
mod lenient;
mod preview;
mod spans;
#[cfg(test)]
mod tests;
mod translate;
pub(super) mod tree;
mod usage;

pub(super) use assessments::SOURCE_RUN as SAID_BY_RUN;
pub use assessments::{AssessmentUpdate, NewAssessment};
pub(super) use brought::from_content;
pub(super) use change::FIXED_TAGS;
pub use data::TraceData;
pub(super) use info::has_spans_here;
pub use info::{NewTrace, TraceState};
pub use spans::{NewSpan, SpanEvent, SpanGroup, SpanLink, SpanStatus};

use super::{KeyValue, Trace, TrackingError, places};
use lockgate_store::{Conn, Tx};

/// Tags and metadata that mean something here.
pub(super) const LOCATION: &str = "mlflow.artifactLocation";
pub(super) const SPANS_LOCATION: &str = "mlflow.trace.spansLocation";
/// The spans are in the database.
pub(super) const TRACKING_STORE: &str = "TRACKING_STORE";
const FINALIZED: &str = "mlflow.trace.infoFinalized";
pub(super) const SESSION: &str = "mlflow.trace.session";
const USER: &str = "mlflow.trace.user";
const TOKEN_USE: &str = "mlflow.trace.tokenUsage";
const COST: &str = "mlflow.trace.cost";
const SIZES: &str = "mlflow.trace.sizeStats";
pub(super) const SOURCE_RUN: &str = "mlflow.sourceRun";

fn pair(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.into() }
}

fn missing(id: &str) -> TrackingError {
    TrackingError::missing(format!("Trace with ID '{id}' not found."))
}

/// The trace with this id.
pub(super) async fn found(conn: &mut Conn, id: &str) -> Result<Trace, TrackingError> {
    conn.trace(id).await?.ok_or_else(|| missing(id))
}

/// Keeps a trace's own row, unless its id is another workspace's.
async fn put(tx: &mut Tx, trace: &Trace) -> Result<(), TrackingError> {
    if tx.put_trace(trace).await? {
        return Ok(());
    }
    Err(TrackingError::invalid(format!("Trace ID '{}' is in use in another workspace", trace.trace_id)))
}

/// A trace stays in its experiment.
fn stays(trace: &Trace, experiment: &str) -> Result<(), TrackingError> {
    if trace.experiment_id.to_string() == experiment {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Trace with ID '{}' already exists in another experiment.",
        trace.trace_id
    )))
}

/// Where a trace's own files lie. Its tag tells clients so, and they can change it: it is not asked.
pub(super) async fn location(conn: &mut Conn, id: &str) -> Result<String, TrackingError> {
    let trace = found(conn, id).await?;
    own_location(conn, &trace).await
}

async fn own_location(conn: &mut Conn, trace: &Trace) -> Result<String, TrackingError> {
    let experiment =
        conn.experiment_row(trace.experiment_id).await?.ok_or_else(|| missing(&trace.trace_id))?;
    Ok(places::of_trace(&experiment.artifact_location, &trace.trace_id))
}
