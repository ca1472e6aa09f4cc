//! The `parity` gate: recorded rows through the serving path equal the offline predictions. It catches what no metric
//! shows: swapped columns, another pre-processing, a broken export.
//!
//! The golden set is a file of the release: `{"columns": […], "rows": [[…], …], "outputs": {"name": […]}}`, the outputs as the
//! training framework computed them.

use super::{Checked, Context, RowForm};
use crate::AgentError;
use crate::caller::Caller;
use bytes::Bytes;
use lockgate_core::gate::{Input, Outcome};
use lockgate_core::release::Manifest;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Recorded rows with their offline predictions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Golden {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    outputs: BTreeMap<String, Vec<f64>>,
}

impl Golden {
    /// Reads and checks a golden set.
    pub(crate) fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, String> {
        let golden: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("the golden set can't be read: {e}"))?;
        if golden.rows.is_empty() {
            return Err("the golden set has no rows".to_owned());
        }
        if let Some(i) = golden.rows.iter().position(|r| r.len() != golden.columns.len()) {
            return Err(format!("row {i} of the golden set has not {} values", golden.columns.len()));
        }
        let expected: Vec<&str> = manifest.feature_schema.inputs.iter().map(|c| c.name.as_str()).collect();
        if golden.columns != expected {
            return Err(
                "the golden set's columns are not those of the model's signature, in its order".to_owned()
            );
        }
        match golden.outputs.values().next() {
            Some(first) if golden.outputs.len() == 1 && first.len() == golden.rows.len() => {}
            Some(first) if golden.outputs.len() == 1 => {
                return Err(format!(
                    "the golden set has {} outputs for {} rows",
                    first.len(),
                    golden.rows.len()
                ));
            }
            _ => return Err("the golden set must have exactly one output".to_owned()),
        }
        if golden.outputs.values().flatten().any(|v| !v.is_finite()) {
            return Err("the golden set has an output that is not finite".to_owned());
        }
        Ok(golden)
    }

    /// The first row as a request.
    pub(crate) fn example(&self) -> Bytes {
        let first = self.rows.get(..1);
        Bytes::from(json!({"dataframe_split": {"columns": self.columns, "data": first}}).to_string())
    }

    /// The rows as one request.
    pub(crate) fn request(&self) -> Bytes {
        Bytes::from(json!({"dataframe_split": {"columns": self.columns, "data": self.rows}}).to_string())
    }

    /// The largest difference between `scores` and the recorded outputs, and where.
    pub(crate) fn largest_difference(&self, scores: &[f64]) -> (f64, usize) {
        let expected = self.outputs.values().flatten();
        scores.iter().zip(expected).map(|(a, b)| (a - b).abs()).zip(0..).fold((0.0, 0), |worst, (d, i)| {
            // A difference that is no number is the worst of all.
            if d.is_nan() || d > worst.0 { (if d.is_nan() { f64::INFINITY } else { d }, i) } else { worst }
        })
    }
}

pub(super) async fn run(context: &Context<'_>, atol: f64) -> Result<Checked, AgentError> {
    let path = crate::releases::golden_path(&context.release).ok_or_else(|| {
        AgentError::Gate(
            "the release has no golden set; log a golden.json with the model (docs/golden-set.md)".to_owned(),
        )
    })?;
    let bytes = tokio::fs::read(&path).await.map_err(|e| AgentError::io("read", &path, e))?;
    let golden = Golden::parse(&bytes, &context.release.manifest).map_err(AgentError::Gate)?;
    let worker = context.fleet.borrow(&context.release, context.plan).await?;
    let manifest = &context.release.manifest;
    let mut caller = Caller::open(&worker.address(), manifest.runtime.server()).await?.patient();
    let form = RowForm::of(&mut caller, manifest).await?;
    let body = form.request(&golden.columns, &golden.rows)?;
    let reply = caller.post_unless_busy(form.path(), body).await?;
    worker.give_back().await;
    if let Some(why) = reply.wrong() {
        return Err(AgentError::Gate(format!("the release answered the golden set with {why}")));
    }
    let scores = form.scores(&reply.body, golden.rows.len())?;
    let (worst, row) = golden.largest_difference(&scores);
    let outcome = if worst <= atol { Outcome::Pass } else { Outcome::Fail };
    let summary = format!(
        "{} recorded rows: the largest difference between served and offline predictions is {worst:.3e} (row {row}), allowed {atol:.0e}",
        golden.rows.len()
    );
    let measured = BTreeMap::from([
        ("rows".to_owned(), golden.rows.len() as f64),
        ("max_difference".to_owned(), worst.min(f64::MAX)),
    ]);
    let inputs = vec![Input { name: "golden".to_owned(), digest: lockgate_core::digest::Digest::of(&bytes) }];
    let log = format!("{summary}\n").into_bytes();
    Ok(Checked { outcome, summary, measured, inputs, log })
}
