//! Keeping spans.

use super::super::{KeyValue, Span, Trace, Tracking, TrackingError, experiments, may_track, places};
use super::info::TraceState;
use super::preview::preview;
use super::spans::{self, Prepared, SpanGroup};
use super::{
    COST, FINALIZED, LOCATION, SESSION, SPANS_LOCATION, TOKEN_USE, TRACKING_STORE, USER, pair, put, stays,
};
use lockgate_core::actor::Actor;
use lockgate_store::Tx;
use std::collections::BTreeMap;

const MILLI: i64 = 1_000_000;

/// The spans of one trace that came at once.
#[derive(Debug, Default)]
struct Arrived {
    spans: Vec<Prepared>,
    resource: Vec<KeyValue>,
}

impl Arrived {
    /// When it began and, where anything has ended, how long it took.
    fn times(&self) -> (i64, Option<i64>) {
        let rows = || self.spans.iter().map(|span| &span.row);
        let start = rows().map(|row| row.start_ns / MILLI).min().unwrap_or_default();
        let end = rows().map(|row| row.end_ns / MILLI).max().filter(|end| *end > 0);
        (start, end)
    }

    fn root(&self) -> Option<&Prepared> {
        self.spans.iter().find(|span| span.row.parent_id.is_none())
    }

    fn state(&self) -> Option<TraceState> {
        self.root().map(|root| match root.row.status.as_str() {
            "ERROR" => TraceState::Error,
            _ => TraceState::Ok,
        })
    }
}

/// The spans by their trace.
fn arrived(groups: &[SpanGroup]) -> Result<BTreeMap<String, Arrived>, TrackingError> {
    let mut traces: BTreeMap<String, Arrived> = BTreeMap::new();
    for group in groups {
        let resource = spans::resource_tags(&group.resource);
        for span in &group.spans {
            let prepared = spans::prepared(span)?;
            let trace = traces.entry(prepared.row.trace_id.clone()).or_default();
            if trace.resource.is_empty() {
                trace.resource.clone_from(&resource);
            }
            trace.spans.push(prepared);
        }
    }
    Ok(traces)
}

/// A trace of which nothing but spans is known.
async fn begun(tx: &mut Tx, id: &str, experiment: &str, new: &Arrived) -> Result<Trace, TrackingError> {
    let experiment = experiments::found(tx, experiment).await?;
    let (started, end) = new.times();
    let location = places::of_trace(&experiment.artifact_location, id);
    tx.set_trace_tags(id, &[pair(LOCATION, location)]).await?;
    Ok(Trace {
        trace_id: id.to_owned(),
        experiment_id: experiment.id,
        state: TraceState::InProgress.as_str().to_owned(),
        started,
        duration: end.map(|end| end - started),
        client_request_id: None,
        request_preview: None,
        response_preview: None,
        session_id: None,
        tags: Vec::new(),
        metadata: Vec::new(),
        assessments: Vec::new(),
    })
}

/// What the spans say about the trace's own row.
fn learn(trace: &mut Trace, new: &Arrived) {
    let finalized = trace.metadata(FINALIZED).is_some();
    let (start, end) = new.times();
    if !finalized {
        let until = trace.duration.map(|duration| trace.started + duration);
        trace.started = trace.started.min(start);
        trace.duration = until.max(end).map(|until| until - trace.started);
    }
    let open = matches!(trace.state.as_str(), "IN_PROGRESS" | "STATE_UNSPECIFIED");
    if let (true, Some(state)) = (open, new.state()) {
        state.as_str().clone_into(&mut trace.state);
    }
    if let Some(root) = new.root() {
        let of = |json: &Option<String>, role: &str| json.as_deref().map(|json| preview(json, role));
        trace.request_preview = trace.request_preview.take().or_else(|| of(&root.inputs, "user"));
        trace.response_preview = trace.response_preview.take().or_else(|| of(&root.outputs, "assistant"));
    }
    if trace.session_id.is_none() {
        trace.session_id = new.spans.iter().find_map(|span| span.session.clone());
    }
}

/// What the spans say that is metadata of the trace.
fn metadata(trace: &Trace, new: &Arrived, all: &[Span]) -> Vec<KeyValue> {
    let finalized = trace.metadata(FINALIZED).is_some();
    let open = |key: &str| !(finalized && trace.metadata(key).is_some());
    let (tokens, cost) = spans::sums(all);
    let mut found = Vec::new();
    if new.spans.iter().any(|span| span.row.token_use.is_some()) && open(TOKEN_USE) {
        found.extend(tokens.map(|tree| pair(TOKEN_USE, tree.dump_ascii())));
    }
    if new.spans.iter().any(|span| span.row.cost.is_some()) && open(COST) {
        found.extend(cost.map(|tree| pair(COST, tree.dump_ascii())));
    }
    if let (None, Some(session)) = (trace.metadata(SESSION), &trace.session_id) {
        found.push(pair(SESSION, session.clone()));
    }
    if trace.metadata(USER).is_none() {
        let user = new.spans.iter().find_map(|span| span.user.clone());
        found.extend(user.map(|user| pair(USER, user)));
    }
    found
}

/// The trace's tags by key: what the application says goes before what its process says.
fn tags(new: &Arrived) -> Vec<KeyValue> {
    let own = new.spans.iter().flat_map(|span| &span.tags);
    let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
    tags.insert(SPANS_LOCATION, TRACKING_STORE);
    tags.extend(new.resource.iter().chain(own).map(|tag| (tag.key.as_str(), tag.value.as_str())));
    tags.into_iter().map(|(key, value)| pair(key, value)).collect()
}

async fn keep(tx: &mut Tx, id: &str, experiment: &str, new: &Arrived) -> Result<(), TrackingError> {
    let mut trace = match tx.trace(id).await? {
        Some(trace) => {
            stays(&trace, experiment)?;
            trace
        }
        None => begun(tx, id, experiment, new).await?,
    };
    for span in &new.spans {
        tx.put_span(&span.row).await?;
    }
    // Sums are over all the trace's spans, and only where these say anything about it.
    let sums = new.spans.iter().any(|span| span.row.token_use.is_some() || span.row.cost.is_some());
    let all = if sums { tx.spans(&[id.to_owned()]).await? } else { Vec::new() };
    learn(&mut trace, new);
    put(tx, &trace).await?;
    tx.set_trace_metadata(id, &metadata(&trace, new, &all)).await?;
    Ok(tx.set_trace_tags(id, &tags(new)).await?)
}

impl Tracking {
    /// Keeps spans. Traces that are not known yet begin in this experiment; whole ones are linked to the run, where one
    /// is named. Spans that came before are replaced.
    ///
    /// # Errors
    /// Where a trace begins and there is no such experiment, a trace is of another one, or a span can't be kept; none is kept then.
    pub async fn log_spans(
        &self,
        actor: &Actor,
        experiment: &str,
        run: Option<String>,
        groups: Vec<SpanGroup>,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        // Large ones take a while, and other requests wait for this thread.
        let traces = tokio::task::spawn_blocking(move || arrived(&groups))
            .await
            .map_err(|error| TrackingError::State(format!("spans could not be read: {error}")))??;
        let experiment = experiment.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                for (id, new) in &traces {
                    keep(tx, id, &experiment, new).await?;
                    if let (Some(run), Some(_)) = (&run, new.root()) {
                        tx.link_trace("run", run, id).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }
}
