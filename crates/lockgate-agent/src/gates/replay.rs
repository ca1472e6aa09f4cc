//! The `replay` gate: requests that were recorded in this environment must all be answered well: with finite numbers, and
//! streams to their ends.

use super::{Checked, Context, model_path};
use crate::AgentError;
use crate::caller::Caller;
use bytes::Bytes;
use lockgate_core::digest::Digest;
use lockgate_core::gate::{Input, Outcome};
use lockgate_core::id::ModelName;
use lockgate_core::server::{Server, ServerProtocol};
use lockgate_wire::oip::encode;
use lockgate_wire::openai;
use std::collections::BTreeMap;

/// How many bad answers are put into the log.
const SHOWN: usize = 20;

/// After so many requests in a row without an answer there is nobody to ask.
const LOST: usize = 3;

pub(super) async fn run(
    context: &Context<'_>,
    data: Option<&str>,
    limit: u64,
) -> Result<Checked, AgentError> {
    let server = context.release.manifest.runtime.server();
    let (bodies, input) = match (data, server.map_or(ServerProtocol::Oip, |s| s.protocol)) {
        (Some(name), ServerProtocol::Oip) => from_file(context, name).await?,
        (Some(_), _) => {
            return Err(AgentError::Gate("the release's server takes no Open Inference bodies".to_owned()));
        }
        (None, protocol) => recorded(context, protocol).await?,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bodies = &bodies[..bodies.len().min(limit)];
    if bodies.is_empty() {
        return Err(AgentError::Gate(
            "there are no recorded requests to replay, so nothing is proven".to_owned(),
        ));
    }
    let worker = context.fleet.borrow(&context.release, context.plan).await?;
    let mut caller = Caller::open(&worker.address(), server).await?;
    let mut log = String::new();
    let (mut bad, mut lost) = (0_usize, 0);
    for (i, body) in bodies.iter().enumerate() {
        let (path, body) = asked(server, &context.plan.model, body)?;
        let wrong = match caller.post(&path, body).await {
            Ok(reply) => {
                lost = 0;
                reply.wrong()
            }
            // It broke off, as it would have for a user. One that is gone can't be asked.
            Err(AgentError::Worker(why)) if lost < LOST => {
                lost += 1;
                Some(why)
            }
            Err(error) => return Err(error),
        };
        let Some(why) = wrong else { continue };
        bad += 1;
        if bad <= SHOWN {
            log.push_str(&format!("request {i}: {why}\n"));
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

/// Where and how what serves the release is asked what was recorded.
fn asked(server: Option<&Server>, model: &ModelName, body: &Bytes) -> Result<(String, Bytes), AgentError> {
    let Some(server) = server else {
        return Ok((format!("/v2/models/{}/infer", encode(model.as_str())), body.clone()));
    };
    Ok(match server.protocol {
        ServerProtocol::Oip => (format!("{}/infer", model_path("/v2/models/", server)), body.clone()),
        ServerProtocol::Tfs => (format!("{}:predict", model_path("/v1/models/", server)), body.clone()),
        ServerProtocol::Mlflow | ServerProtocol::Sagemaker => ("/invocations".to_owned(), body.clone()),
        ServerProtocol::Openai => {
            let asked = openai::Asked::parse(body).map_err(|e| AgentError::Gate(e.text()))?;
            let endpoint = asked.endpoint().ok_or_else(|| {
                AgentError::Gate("a recorded request has neither messages, a prompt nor an input".to_owned())
            })?;
            (endpoint.to_owned(), asked.of_model(body, &server.model))
        }
    })
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
async fn recorded(
    context: &Context<'_>,
    protocol: ServerProtocol,
) -> Result<(Vec<Bytes>, Input), AgentError> {
    let (folder, model) = (context.predictions.clone(), context.plan.model.clone());
    let bodies = tokio::task::spawn_blocking(move || crate::predictions::requests(&folder, &model, protocol))
        .await
        .map_err(|e| AgentError::Gate(e.to_string()))??;
    let parts: Vec<&[u8]> = bodies.iter().map(AsRef::as_ref).collect();
    Ok((bodies.clone(), Input { name: "recorded".to_owned(), digest: Digest::of_parts(&parts) }))
}
