//! The `replay` gate: requests that were recorded in this environment must all be answered, with finite numbers.

use super::{Checked, Context};
use crate::AgentError;
use crate::caller::Caller;
use bytes::Bytes;
use lockgate_core::digest::Digest;
use lockgate_core::gate::{Input, Outcome};
use std::collections::BTreeMap;

/// How many bad answers are put into the log.
const SHOWN: usize = 20;

pub(super) async fn run(
    context: &Context<'_>,
    data: Option<&str>,
    limit: u64,
) -> Result<Checked, AgentError> {
    let (bodies, input) = match data {
        Some(name) => from_file(context, name).await?,
        None => recorded(context).await?,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bodies = &bodies[..bodies.len().min(limit)];
    if bodies.is_empty() {
        return Err(AgentError::Gate(
            "there are no recorded requests to replay, so nothing is proven".to_owned(),
        ));
    }
    let worker = context.fleet.borrow(&context.release, context.plan).await?;
    let mut caller = Caller::open(&worker.address()).await?;
    let path = format!("/v2/models/{}/infer", context.plan.model);
    let mut log = String::new();
    let mut bad = 0_usize;
    for (i, body) in bodies.iter().enumerate() {
        let reply = caller.post(&path, body.clone()).await?;
        let words = match (reply.status, reply.nonfinite) {
            (200, 0) => continue,
            (200, n) => format!("request {i}: {n} numbers of the answer are not finite\n"),
            (status, _) => format!("request {i}: {status} {}\n", reply.words()),
        };
        bad += 1;
        if bad <= SHOWN {
            log.push_str(&words);
        }
    }
    worker.give_back().await;
    let summary = format!("{} recorded requests replayed, {bad} answered badly", bodies.len());
    log.push_str(&summary);
    log.push('\n');
    let outcome = if bad == 0 { Outcome::Pass } else { Outcome::Fail };
    let measured =
        BTreeMap::from([("requests".to_owned(), bodies.len() as f64), ("bad".to_owned(), bad as f64)]);
    Ok(Checked { outcome, summary, measured, inputs: vec![input], log: log.into_bytes() })
}

/// One Open Inference body a line.
async fn from_file(context: &Context<'_>, name: &str) -> Result<(Vec<Bytes>, Input), AgentError> {
    let path = super::dataset::path(context, name)?;
    let bytes =
        tokio::fs::read(&path).await.map_err(|e| AgentError::io("read the recorded requests", &path, e))?;
    let input = Input { name: format!("data:{name}"), digest: Digest::of(&bytes) };
    let bytes = Bytes::from(bytes);
    let lines = bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| bytes.slice_ref(line))
        .collect();
    Ok((lines, input))
}

/// What this environment's own prediction log holds.
async fn recorded(context: &Context<'_>) -> Result<(Vec<Bytes>, Input), AgentError> {
    let (folder, model) = (context.predictions.to_owned(), context.plan.model.clone());
    let bodies = tokio::task::spawn_blocking(move || crate::predictions::requests(&folder, &model))
        .await
        .map_err(|e| AgentError::Gate(e.to_string()))??;
    let parts: Vec<&[u8]> = bodies.iter().map(AsRef::as_ref).collect();
    Ok((bodies.clone(), Input { name: "recorded".to_owned(), digest: Digest::of_parts(&parts) }))
}
