//! Whole traces, and finding them.

use super::super::{
    Assessment, KeyValue, Search, Span, Trace, Tracking, TrackingError, checks, experiments, may_read,
    may_track, places,
};
use super::assessments::{self, NewAssessment};
use super::change::FIXED_TAGS;
use super::tree::Tree;
use super::{
    COST, FINALIZED, LOCATION, SESSION, SIZES, SOURCE_RUN, SPANS_LOCATION, TOKEN_USE, TRACKING_STORE, found,
    pair, put, stays, usage,
};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::Tx;
use std::collections::HashMap;

/// How a trace goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceState {
    /// Nobody said.
    Unspecified,
    /// It ended well.
    Ok,
    /// It ended with an error.
    Error,
    /// It has not ended.
    InProgress,
}

impl TraceState {
    /// All, in MLflow's order.
    pub const ALL: [Self; 4] = [Self::Unspecified, Self::Ok, Self::Error, Self::InProgress];

    /// MLflow's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "STATE_UNSPECIFIED",
            Self::Ok => "OK",
            Self::Error => "ERROR",
            Self::InProgress => "IN_PROGRESS",
        }
    }
}

/// What a client says about a whole trace.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTrace {
    /// Its id, which the client chose.
    pub trace_id: String,
    /// Its experiment.
    pub experiment_id: String,
    /// How it went.
    pub state: TraceState,
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
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// Its metadata.
    pub metadata: Vec<KeyValue>,
    /// What was said about it already.
    pub assessments: Vec<NewAssessment>,
}

/// Metadata as it is kept: what has a form of its own is brought into it.
fn kept_metadata(new: &NewTrace, old: Option<&Trace>) -> Vec<KeyValue> {
    let known = |key: &str| old.and_then(|trace| trace.metadata(key));
    let keep = |given: &KeyValue| match given.key.as_str() {
        TOKEN_USE => usage::merged_tokens(known(TOKEN_USE), &given.value).map(|text| pair(TOKEN_USE, text)),
        COST => usage::merged_cost(known(COST), &given.value).map(|text| pair(COST, text)),
        _ => Some(given.clone()),
    };
    let own = new.metadata.iter().filter(|given| given.key != FINALIZED).filter_map(keep);
    own.chain([pair(FINALIZED, "true")]).collect()
}

fn row(new: &NewTrace, experiment: i64, old: Option<&Trace>) -> Trace {
    let session = new.metadata.iter().find(|given| given.key == SESSION).map(|given| given.value.clone());
    let or = |given: &Option<String>, old: Option<&Option<String>>| {
        given.clone().or_else(|| old.cloned().flatten())
    };
    Trace {
        trace_id: new.trace_id.clone(),
        experiment_id: experiment,
        state: new.state.as_str().to_owned(),
        started: new.started,
        duration: new.duration,
        client_request_id: new.client_request_id.clone(),
        request_preview: or(&new.request_preview, old.map(|old| &old.request_preview)),
        response_preview: or(&new.response_preview, old.map(|old| &old.response_preview)),
        session_id: or(&session, old.map(|old| &old.session_id)),
        tags: Vec::new(),
        metadata: Vec::new(),
        assessments: Vec::new(),
    }
}

async fn start(tx: &mut Tx, new: NewTrace, said: Vec<Assessment>) -> Result<Trace, TrackingError> {
    let experiment = experiments::active(tx, &new.experiment_id).await?;
    let old = tx.trace(&new.trace_id).await?;
    if let Some(old) = &old {
        stays(old, &experiment.id.to_string())?;
    }
    let id = &new.trace_id;
    put(tx, &row(&new, experiment.id, old.as_ref())).await?;
    let location = places::of_trace(&experiment.artifact_location, id);
    let own = |tag: &&KeyValue| !FIXED_TAGS.contains(&tag.key.as_str());
    let tags: Vec<KeyValue> = new.tags.iter().filter(own).cloned().collect();
    tx.set_trace_tags(id, &tags).await?;
    tx.set_trace_tags(id, &[pair(LOCATION, location)]).await?;
    tx.set_trace_metadata(id, &kept_metadata(&new, old.as_ref())).await?;
    if let Some(run) = new.metadata.iter().find(|given| given.key == SOURCE_RUN) {
        tx.link_trace("run", &run.value, id).await?;
    }
    for one in &said {
        tx.put_assessment(one).await?;
    }
    found(tx, id).await
}

/// How many spans a trace has, as its client counted them.
fn expected(trace: &Trace) -> i64 {
    let sizes = trace.metadata(SIZES).and_then(Tree::parse);
    sizes.and_then(|sizes| sizes.get("num_spans").and_then(Tree::as_count)).unwrap_or_default()
}

/// Whether a trace's spans are in this store.
pub(in super::super) fn has_spans_here(trace: &Trace) -> bool {
    trace.tag(SPANS_LOCATION) == Some(TRACKING_STORE)
}

/// A client would ask again if this were the server's fault.
fn with_spans_here(trace: &Trace) -> Result<(), TrackingError> {
    if has_spans_here(trace) {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Trace data not stored in tracking store: the spans of trace '{}' are not here (yet)",
        trace.trace_id
    )))
}

impl Tracking {
    /// Notes what a client says about a whole trace. Saying it again changes nothing.
    ///
    /// # Errors
    /// Where the experiment is not in use or something is too long.
    pub async fn start_trace(&self, actor: &Actor, mut new: NewTrace) -> Result<Trace, TrackingError> {
        may_track(actor)?;
        checks::trace_id(&new.trace_id)?;
        for given in new.metadata.iter().filter(|given| given.key == SESSION) {
            checks::trace_session(&given.value)?;
        }
        checks::trace_pairs(&new.tags)?;
        checks::trace_pairs(&new.metadata)?;
        let now = self.clock.now_ms();
        let said = std::mem::take(&mut new.assessments);
        let said = said.into_iter().map(|one| assessments::row(&new.trace_id, one, self.new_id(), now));
        let said = said.collect::<Result<Vec<_>, _>>()?;
        self.write(move |tx| Box::pin(start(tx, new, said))).await
    }

    /// A trace without its spans.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn trace(&self, actor: &Actor, id: &str) -> Result<Trace, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &id).await })).await
    }

    /// A trace with its spans, as many as have arrived where `partly` says so.
    ///
    /// # Errors
    /// Where there is none, its spans are kept elsewhere, or some are still to come.
    pub async fn whole_trace(
        &self,
        actor: &Actor,
        id: &str,
        partly: bool,
    ) -> Result<(Trace, Vec<Span>), TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| {
            Box::pin(async move {
                let trace = conn.trace(&id).await?;
                let trace = trace
                    .ok_or_else(|| TrackingError::missing(format!("Trace with ID {id} is not found.")))?;
                with_spans_here(&trace)?;
                let spans = conn.spans(std::slice::from_ref(&id)).await?;
                if partly || (!spans.is_empty() && spans.len() as i64 >= expected(&trace)) {
                    return Ok((trace, spans));
                }
                Err(TrackingError::missing(format!(
                    "Trace with ID {id} is not fully exported yet, please try again later."
                )))
            })
        })
        .await
    }

    /// Those of the traces that exist, within these experiments where any are named.
    ///
    /// # Errors
    /// Where an experiment's id is no number.
    pub async fn traces(
        &self,
        actor: &Actor,
        ids: Vec<String>,
        experiments: Option<Vec<String>>,
    ) -> Result<Vec<Trace>, TrackingError> {
        may_read(actor)?;
        let within = experiments
            .map(|list| list.iter().map(|id| checks::experiment_id(id)).collect::<Result<Vec<i64>, _>>())
            .transpose()?;
        let mut traces = self.read(move |conn| Box::pin(async move { Ok(conn.traces(&ids).await?) })).await?;
        traces.retain(|trace| within.as_ref().is_none_or(|ids| ids.contains(&trace.experiment_id)));
        Ok(traces)
    }

    /// The same with their spans; those of which spans are still to come are left out.
    ///
    /// # Errors
    /// Where an experiment's id is no number, or a trace's spans are kept elsewhere.
    pub async fn whole_traces(
        &self,
        actor: &Actor,
        ids: Vec<String>,
        experiments: Option<Vec<String>>,
    ) -> Result<Vec<(Trace, Vec<Span>)>, TrackingError> {
        let traces = self.traces(actor, ids, experiments).await?;
        traces.iter().try_for_each(with_spans_here)?;
        let ids: Vec<String> = traces.iter().map(|trace| trace.trace_id.clone()).collect();
        let spans = self.read(move |conn| Box::pin(async move { Ok(conn.spans(&ids).await?) })).await?;
        let mut of: HashMap<String, Vec<Span>> = HashMap::new();
        for span in spans {
            of.entry(span.trace_id.clone()).or_default().push(span);
        }
        let whole = traces.into_iter().map(|trace| {
            let spans = of.remove(&trace.trace_id).unwrap_or_default();
            (trace, spans)
        });
        Ok(whole
            .filter(|(trace, spans)| !spans.is_empty() && spans.len() as i64 >= expected(trace))
            .collect())
    }

    /// Searches the traces of experiments.
    ///
    /// # Errors
    /// Where a condition is not about traces.
    pub async fn search_traces(
        &self,
        actor: &Actor,
        experiments: &[String],
        mut search: Search,
    ) -> Result<Vec<Trace>, TrackingError> {
        may_read(actor)?;
        search.clauses.push(experiments::among(experiments)?);
        self.read(move |conn| Box::pin(async move { Ok(conn.search_traces(&search).await?) })).await
    }
}
