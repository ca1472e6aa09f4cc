//! The `benchmark` gate: load at a fixed rate on a real worker in this environment.
//!
//! Open loop: requests are sent when they are due, not when the last one was answered, and latency counts from when a
//! request was due. So a slow worker can't hide by slowing its clients down.

use super::parity::Golden;
use super::{Checked, Context, RowForm};
use crate::AgentError;
use crate::caller::Caller;
use bytes::Bytes;
use lockgate_core::gate::{Input, Outcome};
use lockgate_stats::histogram::Histogram;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that share the load.
const CONNECTIONS: usize = 8;

/// Share of the asked rate that must really be answered.
const SUSTAINED: f64 = 0.98;

pub(super) async fn run(
    context: &Context<'_>,
    rps: f64,
    p99_ms: Option<f64>,
    duration_ms: u64,
) -> Result<Checked, AgentError> {
    let path = crate::releases::golden_path(&context.release).ok_or_else(|| {
        AgentError::Gate("the release has no golden set whose rows could be asked".to_owned())
    })?;
    let bytes = tokio::fs::read(&path).await.map_err(|e| AgentError::io("read", &path, e))?;
    let golden = Golden::parse(&bytes, &context.release.manifest).map_err(AgentError::Gate)?;
    let worker = context.fleet.borrow(&context.release, context.plan).await?;
    let server = context.release.manifest.runtime.server();
    let mut caller = Caller::open(&worker.address(), server).await?.patient();
    let form = RowForm::of(&mut caller, &context.release.manifest).await?;
    let one = |row: &Vec<_>| form.request(&golden.columns, std::slice::from_ref(row));
    let bodies: Vec<Bytes> = golden.rows.iter().map(one).collect::<Result<_, _>>()?;
    let asked: Arc<(String, Vec<Bytes>)> = Arc::new((form.path().to_owned(), bodies));
    let interval = Duration::from_secs_f64(CONNECTIONS as f64 / rps);
    let begun = Instant::now();
    let until = begun + Duration::from_millis(duration_ms);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..CONNECTIONS {
        let caller = Caller::open(&worker.address(), server).await?;
        let first = begun + interval.mul_f64(i as f64 / CONNECTIONS as f64);
        tasks.spawn(load(caller, Arc::clone(&asked), i, first, interval, until));
    }
    let mut latency = Histogram::new();
    let (mut sent, mut bad) = (0_u64, 0_u64);
    while let Some(ended) = tasks.join_next().await {
        let part = ended.map_err(|e| AgentError::Gate(e.to_string()))??;
        latency.merge(&part.latency);
        sent += part.sent;
        bad += part.bad;
    }
    let seconds = begun.elapsed().as_secs_f64();
    worker.give_back().await;
    let achieved = sent as f64 / seconds;
    let ms = |q: f64| latency.quantile(q).map(|us| us as f64 / 1000.0);
    let (Some(p50), Some(p99)) = (ms(0.5), ms(0.99)) else {
        return Err(AgentError::Gate("no request was answered, so nothing is proven".to_owned()));
    };
    let fast = p99_ms.is_none_or(|limit| p99 <= limit);
    let fine = bad == 0 && fast && achieved >= rps * SUSTAINED;
    let bound = p99_ms.map_or_else(String::new, |limit| format!(", allowed {limit} ms"));
    let summary = format!(
        "{achieved:.0} of {rps:.0} requests/s for {seconds:.1} s: p50 {p50:.2} ms, p99 {p99:.2} ms{bound}; {bad} of {sent} answered badly"
    );
    let measured = BTreeMap::from([
        ("rps".to_owned(), achieved),
        ("p50_ms".to_owned(), p50),
        ("p99_ms".to_owned(), p99),
        ("requests".to_owned(), sent as f64),
        ("bad".to_owned(), bad as f64),
    ]);
    let inputs = vec![Input { name: "golden".to_owned(), digest: lockgate_core::digest::Digest::of(&bytes) }];
    let outcome = if fine { Outcome::Pass } else { Outcome::Fail };
    let log = format!("{summary}\n").into_bytes();
    Ok(Checked { outcome, summary, measured, inputs, log })
}

struct Part {
    latency: Histogram,
    sent: u64,
    bad: u64,
}

async fn load(
    mut caller: Caller,
    asked: Arc<(String, Vec<Bytes>)>,
    offset: usize,
    first: Instant,
    interval: Duration,
    until: Instant,
) -> Result<Part, AgentError> {
    let mut part = Part { latency: Histogram::new(), sent: 0, bad: 0 };
    let mut due = first;
    let mut next = offset;
    while due < until {
        tokio::time::sleep_until(due.into()).await;
        let (path, bodies) = &*asked;
        let reply = caller.post(path, bodies[next % bodies.len()].clone()).await?;
        part.latency.record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        part.sent += 1;
        part.bad += u64::from(reply.wrong().is_some());
        next += 1;
        due += interval;
    }
    Ok(part)
}
