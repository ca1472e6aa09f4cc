//! Tracking data and the model registry: experiments, runs, what they logged, and artifacts' places.
//!
//! | module | subject |
//! |---|---|
//! | [`types`] | the rows as values |
//! | `experiments`, `runs`, `logged` | experiments; runs; metrics, params and tags |
//! | `inputs` | the datasets and models that a run used or made |
//! | `models` | MLflow's logged models |
//! | `registry`, `registry_changes`, `stages` | registered models, versions, aliases, stages and their history |
//! | `webhooks` | webhooks and the outbox of their deliveries |
//! | `workspaces` | what belongs together, apart from the rest |
//! | `import` | rows of another store, with its ids and times |
//! | `artifacts` | which bytes lie under which path |
//! | [`gc`] | what was deleted, and taking it away for good |
//! | [`search`], `statement`, `entity`, `trace_search` | searches put together from conditions |
//! | [`trace_types`], `traces`, `spans`, `assessments` | traces, their steps, and what was said about them |
//!
//! Statements only: the rules (who may, what is valid, what is write-once) belong to `lockgate-control`.

mod artifacts;
mod assessments;
mod entity;
mod experiments;
pub mod gc;
mod import;
mod inputs;
mod leads;
mod logged;
mod models;
mod registry;
mod registry_changes;
mod runs;
pub mod search;
mod spans;
mod stages;
mod statement;
#[cfg(test)]
mod tests;
mod trace_search;
pub mod trace_types;
mod traces;
pub mod types;
mod webhooks;
mod workspaces;

pub use search::{Clause, Comparator, Field, MeasuredOn, Operand, Order, Page, Search};
pub use trace_types::{Assessment, Span, Trace};
pub use types::{
    AliasMove, Artifact, Dataset, DatasetInput, DatasetSummary, Delivery, DeliveryState, Experiment,
    KeyValue, Lifecycle, LoggedModel, Metric, ModelVersion, RegisteredModel, Run, RunUpdate, StageMove,
    Webhook, Workspace,
};

use crate::conn::{Conn, Query, Row, query_dynamic};
use crate::error::StoreError;

pub(crate) use experiments::DATE_FIRST;
pub(crate) use gc::DATE_DELETED;

/// How many values stand in one `IN` list or rows in one `INSERT`.
const CHUNK: usize = 100;

/// `($1, $2, …)` with `count` places after `before` others.
fn places(before: usize, count: usize) -> String {
    let list: Vec<String> = (before + 1..=before + count).map(|n| format!("${n}")).collect();
    format!("({})", list.join(", "))
}

/// `rows` tuples of `columns` places each, after `before` others, for one `INSERT`.
fn tuples(before: usize, rows: usize, columns: usize) -> String {
    let list: Vec<String> = (0..rows).map(|row| places(before + row * columns, columns)).collect();
    list.join(", ")
}

/// How many ids PostgreSQL gets at once where there are more than [`CHUNK`]: as one value, so that the text is the same for any
/// number of them and a thousand take one way there and back. It then plans for a hundred, which for few is the wrong plan.
const AT_ONCE: usize = 5000;

/// The rows of `head … IN (ids)`, some ids at a time.
async fn rows_of(conn: &mut Conn, head: &'static str, ids: &[String]) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::new();
    if conn.is_sqlite() || ids.len() <= CHUNK {
        for chunk in ids.chunks(CHUNK) {
            let text = conn.nameless(format!("{head} {}", places(0, chunk.len())));
            let statement: Query = query_dynamic(text);
            let statement = chunk.iter().fold(statement, |statement, id| statement.bind(id.clone()));
            found.extend(conn.fetch_all(statement).await?);
        }
    } else {
        let text = format!("{head} (SELECT json_array_elements_text(CAST($1 AS JSON)))");
        for chunk in ids.chunks(AT_ONCE) {
            let list = serde_json::Value::from(chunk).to_string();
            found.extend(conn.fetch_all(query_dynamic(text.clone()).bind(list)).await?);
        }
    }
    Ok(found)
}

/// Every statement, for the test that prepares them on both engines.
#[cfg(test)]
pub(crate) fn statements() -> Vec<(&'static str, &'static str)> {
    [
        artifacts::ALL,
        assessments::ALL,
        experiments::ALL,
        gc::ALL,
        import::ALL,
        inputs::ALL,
        logged::ALL,
        models::ALL,
        registry::ALL,
        registry_changes::ALL,
        runs::ALL,
        search::example::ALL,
        spans::ALL,
        stages::ALL,
        traces::ALL,
        webhooks::ALL,
        workspaces::ALL,
    ]
    .concat()
}
