//! What a server has, in the form that an import compares.

use crate::tracking::artifacts::is_seen;
use crate::tracking::exchange::{
    History, KnownFile, KnownRun, KnownTrace, RunDigests, SpanHistory, TraceDigests, TraceLinkRecord,
    TraceRecord, points, run_record,
};
use crate::tracking::{Tracking, TrackingError, may_read, places};
use lockgate_core::actor::Actor;
use lockgate_store::Conn;

/// How many points are read at a time.
const PAGE: i64 = 10_000;

async fn digests(conn: &mut Conn, id: &str) -> Result<Option<RunDigests>, TrackingError> {
    let Some(run) = conn.run(id).await? else { return Ok(None) };
    let mut history = History::default();
    let mut page = conn.run_points(id, None, PAGE).await?;
    while let Some(last) = page.last().cloned() {
        history.add(&points(&page));
        page = conn.run_points(id, Some(&last), PAGE).await?;
    }
    Ok(Some(RunDigests::of(&run_record(&run), history)))
}

/// How many spans are read at a time.
const SPANS: i64 = 50;

async fn trace(conn: &mut Conn, trace_id: String, whole: bool) -> Result<KnownTrace, TrackingError> {
    let unknown = |trace_id| KnownTrace { trace_id, digests: None, record: None, links: Vec::new() };
    let Some(found) = conn.trace(&trace_id).await? else { return Ok(unknown(trace_id)) };
    let record = TraceRecord::of(&found);
    let (mut history, mut after) = (SpanHistory::default(), String::new());
    // Spans of a trace whose spans are a file are not shown to anybody.
    if record.spans_here {
        loop {
            let page = conn.spans_after(&trace_id, &after, SPANS).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.span_id);
            page.iter().for_each(|span| history.add(&span.content));
        }
    }
    let digests = Some(TraceDigests::of(&record, history));
    if !whole {
        return Ok(KnownTrace { digests, ..unknown(trace_id) });
    }
    let link = |(link, target)| TraceLinkRecord { link, target, trace_id: trace_id.clone() };
    let links = conn.trace_links(&trace_id).await?.into_iter().map(link).collect();
    Ok(KnownTrace { digests, record: Some(Box::new(record)), links, trace_id })
}

impl Tracking {
    /// The digests of traces, from what the database holds; where `whole`, the traces and their links as well.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known_traces(
        &self,
        actor: &Actor,
        traces: Vec<String>,
        whole: bool,
    ) -> Result<Vec<KnownTrace>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::with_capacity(traces.len());
                for id in traces {
                    found.push(trace(conn, id, whole).await?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// The digests of runs, from what the database holds.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known_runs(&self, actor: &Actor, runs: Vec<String>) -> Result<Vec<KnownRun>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::with_capacity(runs.len());
                for run_id in runs {
                    let digests = digests(conn, &run_id).await?;
                    found.push(KnownRun { run_id, digests });
                }
                Ok(found)
            })
        })
        .await
    }

    /// All files below an artifact URI of this server, with their digests; none where the URI is another's.
    ///
    /// # Errors
    /// Where the path is not safe or the database fails.
    pub async fn known_files(&self, actor: &Actor, uri: &str) -> Result<Vec<KnownFile>, TrackingError> {
        may_read(actor)?;
        let Some(path) = places::root_of(uri) else { return Ok(Vec::new()) };
        let Some(place) = places::split(places::checked(path)?) else { return Ok(Vec::new()) };
        let prefix = place.prefix();
        let cut = prefix.len();
        let found = self
            .read(move |conn| {
                Box::pin(async move {
                    if !is_seen(conn, &place).await? {
                        return Ok(Vec::new());
                    }
                    Ok(conn.artifacts(&place.root, &prefix).await?)
                })
            })
            .await?;
        let one = |file: lockgate_store::tracking::Artifact| KnownFile {
            path: file.path[cut..].to_owned(),
            size: file.size,
            digest: file.digest,
        };
        Ok(found.into_iter().map(one).collect())
    }
}
