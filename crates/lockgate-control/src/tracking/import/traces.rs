//! Traces, their spans, and what they are linked to.

use super::new;
use crate::tracking::exchange::{
    AssessmentRecord, Fate, Outcome, SpanHistory, SpansRecord, TraceDigests, TraceLinkRecord, TraceRecord,
    pairs_of, span_digest,
};
use crate::tracking::traces::{self as rules, LOCATION, SESSION, SOURCE_RUN, SPANS_LOCATION, TRACKING_STORE};
use crate::tracking::{Assessment, KeyValue, Trace, TraceState, TrackingError, Tree, checks, places};
use lockgate_store::Tx;
use std::collections::HashMap;

const KINDS: [&str; 3] = ["feedback", "expectation", "issue"];

fn open(state: &str) -> bool {
    state == TraceState::InProgress.as_str() || state == TraceState::Unspecified.as_str()
}

/// What differs between a trace here and one that is brought; spans come later and are not looked at.
fn differences(found: &Trace, record: &TraceRecord) -> Vec<&'static str> {
    let of = |record: &TraceRecord| TraceDigests::of(record, SpanHistory::default());
    let mut differ = of(&TraceRecord::of(found)).differences(&of(record));
    let moved = |given: &String| found.tag(LOCATION).is_some_and(|known| known != given);
    if record.artifact_uri.as_ref().is_some_and(moved) {
        differ.push("artifact location");
    }
    differ
}

/// Whether a trace that was in progress when it was taken has only gone on since.
fn has_gone_on(found: &Trace, record: &TraceRecord) -> bool {
    let ours = TraceRecord::of(found);
    open(&ours.state)
        && (ours.experiment_id, ours.spans_here) == (record.experiment_id, record.spans_here)
        && ours.tags.keys().all(|key| record.tags.contains_key(key))
        && ours.metadata.keys().all(|key| record.metadata.contains_key(key))
        && ours.assessments.iter().all(|one| record.assessments.iter().any(|other| other.id == one.id))
}

fn said(trace: &str, record: &AssessmentRecord) -> Result<Assessment, TrackingError> {
    let wrong = |what: &str| {
        TrackingError::invalid(format!("its assessment `{}` has {what}", record.id.escape_debug()))
    };
    if !KINDS.contains(&record.kind.as_str()) {
        return Err(wrong(&format!("the kind `{}`, which is none of MLflow's", record.kind.escape_debug())));
    }
    let value = Tree::parse(&record.value).ok_or_else(|| wrong("a value that is no JSON"))?;
    let metadata = match record.metadata.as_deref().map(Tree::parse) {
        None | Some(Some(Tree::Null)) => None,
        Some(Some(found @ Tree::Map(_))) => Some(found),
        _ => return Err(wrong("metadata that is no JSON object")),
    };
    let error = match record.error.as_deref().map(Tree::parse) {
        None | Some(Some(Tree::Null)) => None,
        Some(Some(error)) => Some(error.dump_ascii()),
        Some(None) => return Err(wrong("an error that is no JSON")),
    };
    let of = |key: &str| metadata.as_ref().and_then(|found| found.get(key));
    let run = of(rules::SAID_BY_RUN).and_then(Tree::as_text).map(str::to_owned);
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(Assessment {
        assessment_id: record.id.clone(),
        trace_id: trace.to_owned(),
        name: record.name.clone(),
        kind: record.kind.clone(),
        value: value.dump_ascii(),
        amount: value.as_number(),
        error,
        source_type: record.source_type.clone(),
        source_id: filled(&record.source_id),
        run_id: run.or_else(|| filled(&record.run_id)),
        span_id: filled(&record.span_id),
        rationale: filled(&record.rationale).filter(|_| record.kind != "expectation"),
        overrides: filled(&record.overrides),
        valid: record.valid,
        of_session: of(SESSION).is_some(),
        metadata: metadata.filter(|found| *found != Tree::Map(Vec::new())).map(|found| found.dump_ascii()),
        created: record.created,
        updated: record.updated,
    })
}

fn row(record: &TraceRecord) -> Result<Trace, TrackingError> {
    checks::trace_id(&record.trace_id)?;
    if matches!(record.trace_id.as_str(), "." | "..") || record.trace_id.contains('\\') {
        return Err(TrackingError::invalid("its id can't be a file's name"));
    }
    if !TraceState::ALL.iter().any(|known| known.as_str() == record.state) {
        let why = format!("`{}` is no state of a trace", record.state.escape_debug());
        return Err(TrackingError::invalid(why));
    }
    let session = record.metadata.get(SESSION).cloned();
    checks::trace_session(session.as_deref().unwrap_or_default())?;
    let (tags, metadata) = (pairs_of(&record.tags), pairs_of(&record.metadata));
    checks::trace_pairs(&tags)?;
    checks::trace_pairs(&metadata)?;
    Ok(Trace {
        trace_id: record.trace_id.clone(),
        experiment_id: record.experiment_id,
        state: record.state.clone(),
        started: record.started,
        duration: record.duration,
        client_request_id: record.client_request_id.clone(),
        request_preview: record.request_preview.clone(),
        response_preview: record.response_preview.clone(),
        session_id: session,
        tags,
        metadata,
        assessments: record
            .assessments
            .iter()
            .map(|one| said(&record.trace_id, one))
            .collect::<Result<_, _>>()?,
    })
}

pub(super) async fn take(tx: &mut Tx, record: &TraceRecord) -> Result<Outcome, TrackingError> {
    let trace = row(record)?;
    if let Some(found) = tx.trace(&record.trace_id).await? {
        let differ = differences(&found, record);
        if !differ.is_empty() && has_gone_on(&found, record) {
            return put(tx, &trace, record).await;
        }
        return Ok(Outcome::compared("a trace of this id", &differ));
    }
    if tx.trace_is_elsewhere(&record.trace_id).await? {
        return Ok(Outcome::conflict("a trace of another workspace has this id"));
    }
    if tx.experiment_row(record.experiment_id).await?.is_none() {
        return Ok(Outcome::conflict(format!("there is no experiment {} here", record.experiment_id)));
    }
    put(tx, &trace, record).await
}

async fn put(tx: &mut Tx, trace: &Trace, record: &TraceRecord) -> Result<Outcome, TrackingError> {
    let id = &trace.trace_id;
    tx.put_trace(trace).await?;
    let here = || places::of_trace(&places::of_experiment(tx.workspace(), None, trace.experiment_id), id);
    let location = record.artifact_uri.clone().unwrap_or_else(here);
    let mut own = vec![KeyValue { key: LOCATION.to_owned(), value: location }];
    if record.spans_here {
        own.push(KeyValue { key: SPANS_LOCATION.to_owned(), value: TRACKING_STORE.to_owned() });
    }
    let free = |tag: &&KeyValue| !rules::FIXED_TAGS.contains(&tag.key.as_str());
    let tags: Vec<KeyValue> = trace.tags.iter().filter(free).cloned().collect();
    tx.set_trace_tags(id, &tags).await?;
    tx.set_trace_tags(id, &own).await?;
    tx.set_trace_metadata(id, &trace.metadata).await?;
    if let Some(run) = record.metadata.get(SOURCE_RUN) {
        tx.link_trace("run", run, id).await?;
    }
    for one in &trace.assessments {
        tx.put_assessment(one).await?;
    }
    Ok(new())
}

/// Takes spans; one that had not ended when it was taken is replaced by itself at its end.
pub(super) async fn take_spans(tx: &mut Tx, record: &SpansRecord) -> Result<Outcome, TrackingError> {
    if tx.trace(&record.trace_id).await?.is_none() {
        return Ok(Outcome::conflict("there is no such trace here"));
    }
    let mut spans = Vec::with_capacity(record.spans.len());
    for content in &record.spans {
        spans.push(rules::from_content(&record.trace_id, content)?);
    }
    let ids: Vec<String> = spans.iter().map(|span| span.span_id.clone()).collect();
    let known = tx.spans_named(&record.trace_id, &ids).await?;
    let mut known: HashMap<String, (i64, lockgate_core::digest::Digest)> = known
        .into_iter()
        .map(|span| (span.span_id.clone(), (span.end_ns, span_digest(&span.content))))
        .collect();
    // Looked at before anything is written: of what is refused no part is taken.
    let mut fresh = Vec::new();
    for span in spans {
        let digest = span_digest(&span.content);
        match known.insert(span.span_id.clone(), (span.end_ns, digest)) {
            Some((_, there)) if there == digest => {}
            Some((end, _)) if end != 0 => {
                let why = format!("a span `{}` is there already with other content", span.span_id);
                return Ok(Outcome::conflict(why));
            }
            _ => fresh.push(span),
        }
    }
    for span in &fresh {
        tx.put_span(span).await?;
    }
    let fate = if fresh.is_empty() { Fate::Same } else { Fate::New };
    Ok(Outcome { count: Some(fresh.len() as u64), ..Outcome::new(fate) })
}

pub(super) async fn take_link(tx: &mut Tx, record: &TraceLinkRecord) -> Result<Outcome, TrackingError> {
    let kind = match record.link.as_str() {
        "run" => "run",
        "prompt" => "prompt",
        other => {
            let why = format!("traces have no links of the kind `{}`", other.escape_debug());
            return Ok(Outcome::conflict(why));
        }
    };
    if tx.trace(&record.trace_id).await?.is_none() {
        return Ok(Outcome::conflict("there is no such trace here"));
    }
    let fresh = tx.link_trace(kind, &record.target, &record.trace_id).await?;
    Ok(Outcome::new(if fresh { Fate::New } else { Fate::Same }))
}
