//! Asking a release about rows, through the serving path; and the `metric` gate, which does so.

use super::dataset::{Dataset, Values};
use super::{Checked, Context, RowForm};
use crate::AgentError;
use crate::caller::Caller;
use crate::releases::LocalRelease;
use lockgate_core::gate::{GateSpec, Input, Outcome};
use serde_json::Value;
use std::collections::BTreeMap;

/// How many rows are asked at a time.
const BATCH: usize = 2048;

/// Predictions for every row of `data`: one number a row.
pub(super) async fn scores(
    context: &Context<'_>,
    release: &LocalRelease,
    data: &Dataset,
) -> Result<Vec<f64>, AgentError> {
    let inputs: Vec<&str> = release.manifest.feature_schema.inputs.iter().map(|c| c.name.as_str()).collect();
    if inputs.is_empty() {
        return Err(AgentError::Gate("the release's schema names no input columns".to_owned()));
    }
    let columns: Vec<&Values> = inputs.iter().map(|name| data.column(name)).collect::<Result<_, _>>()?;
    let worker = context.fleet.borrow(release, context.plan).await?;
    let mut caller = Caller::open(&worker.address(), release.manifest.runtime.server()).await?.patient();
    let form = RowForm::of(&mut caller, &release.manifest).await?;
    let mut scores = Vec::with_capacity(data.rows);
    for from in (0..data.rows).step_by(BATCH) {
        let to = (from + BATCH).min(data.rows);
        let rows: Vec<Vec<Value>> = (from..to).map(|i| columns.iter().map(|c| c.json(i)).collect()).collect();
        let body = form.request(&inputs, &rows)?;
        let reply = caller.post_unless_busy(form.path(), body).await?;
        if let Some(why) = reply.wrong() {
            return Err(AgentError::Gate(format!("the release answered rows {from} to {}: {why}", to - 1)));
        }
        scores.extend(form.scores(&reply.body, to - from)?);
    }
    worker.give_back().await;
    Ok(scores)
}

/// Reads one number a row from an answer: the only output, or the one that is called a probability or a score; of two
/// classes' probabilities the second.
pub(super) fn read_scores(body: &[u8], rows: usize) -> Result<Vec<f64>, AgentError> {
    let fail = |what: String| AgentError::Gate(format!("the release's answer can't be used: {what}"));
    // NaN and Infinity are legal tokens in this protocol, but no numbers that a metric could use.
    let value: Value =
        serde_json::from_slice(body).map_err(|e| fail(format!("not finite, or no JSON: {e}")))?;
    let list =
        value["predictions"].as_array().ok_or_else(|| fail("it has no list of predictions".to_owned()))?;
    if list.len() != rows {
        return Err(fail(format!("{} predictions for {rows} rows", list.len())));
    }
    list.iter().map(|item| score(item).ok_or_else(|| fail(format!("`{item}` holds no score")))).collect()
}

pub(super) fn score(item: &Value) -> Option<f64> {
    match item {
        Value::Number(n) => n.as_f64(),
        Value::Bool(b) => Some(f64::from(*b)),
        Value::Array(list) => match list.as_slice() {
            [one] | [_, one] => score(one),
            _ => None,
        },
        Value::Object(map) => {
            let named = ["probability", "probabilities", "score", "scores", "prediction", "variable"];
            named
                .iter()
                .find_map(|name| map.get(*name))
                .or_else(|| map.values().next().filter(|_| map.len() == 1))
                .and_then(score)
        }
        Value::Null | Value::String(_) => None,
    }
}

/// The `metric` gate.
pub(super) async fn metric(context: &Context<'_>, spec: &GateSpec) -> Result<Checked, AgentError> {
    let GateSpec::Metric { metric, data, min, max, versus } = spec else {
        return Err(AgentError::Gate("this gate is no metric gate".to_owned()));
    };
    let target = context.plan.target.as_deref().ok_or_else(|| {
        AgentError::Gate(format!(
            "the model has no label column; add it: [model.{}] target = \"…\"",
            context.plan.model
        ))
    })?;
    let data = Dataset::read(context, data).await?;
    let labels = match data.column(target)? {
        Values::Numbers(labels) => labels.iter().map(|l| l.unwrap_or(f64::NAN)).collect::<Vec<_>>(),
        Values::Texts(_) => {
            return Err(AgentError::Gate(format!("the label column `{target}` holds text, not numbers")));
        }
    };
    let value = |scores: &[f64]| {
        super::metric::compute(*metric, scores, &labels)
            .map_err(|e| AgentError::Gate(format!("{}: {e}", metric.name())))
    };
    let ours = value(&scores(context, &context.release, &data).await?)?;
    let name = metric.name();
    let mut measured = BTreeMap::from([(name.to_owned(), ours), ("rows".to_owned(), data.rows as f64)]);
    let mut inputs = vec![data.input()];
    let mut words = vec![format!("{name} {ours:.4} on {} rows", data.rows)];
    let mut fine = true;
    if let Some(min) = min {
        fine &= ours >= *min;
        words.push(format!("needs at least {min}"));
    }
    if let Some(max) = max {
        fine &= ours <= *max;
        words.push(format!("needs at most {max}"));
    }
    if let Some(versus) = versus {
        match &versus.release {
            None => words.push(format!("`{}` serves nothing to compare with", versus.environment)),
            Some(other) => {
                let baseline = context.releases.fetch(context.server, other).await?;
                let theirs = value(&scores(context, &baseline, &data).await?)?;
                let loss = if metric.larger_is_better() { theirs - ours } else { ours - theirs };
                fine &= loss <= versus.max_loss;
                measured.insert("baseline".to_owned(), theirs);
                measured.insert("loss".to_owned(), loss);
                inputs.push(Input { name: "baseline".to_owned(), digest: *other });
                words.push(format!(
                    "{} has {theirs:.4} on the same rows: a loss of {loss:.4}, allowed {}",
                    versus.environment, versus.max_loss
                ));
            }
        }
    }
    if min.is_none() && max.is_none() && versus.as_ref().is_none_or(|v| v.release.is_none()) {
        return Err(AgentError::Gate(format!("{}; nothing says what is good enough", words.join("; "))));
    }
    let outcome = if fine { Outcome::Pass } else { Outcome::Fail };
    let log = format!("{}\n", words.join("\n")).into_bytes();
    Ok(Checked { outcome, summary: words.join("; "), measured, inputs, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_found_in_every_form_of_answer() {
        let read = |text: &str, rows| read_scores(text.as_bytes(), rows);
        assert_eq!(read(r#"{"predictions": [0.1, 0.9]}"#, 2).unwrap(), [0.1, 0.9]);
        assert_eq!(read(r#"{"predictions": [[0.9, 0.1]]}"#, 1).unwrap(), [0.1]);
        assert_eq!(read(r#"{"predictions": [{"label": 1, "probability": 0.7}]}"#, 1).unwrap(), [0.7]);
        assert_eq!(
            read(r#"{"predictions": [{"label": 1, "probabilities": [0.3, 0.7]}]}"#, 1).unwrap(),
            [0.7]
        );
    }

    #[test]
    fn an_answer_without_a_usable_score_is_an_error() {
        let read = |text: &str, rows| read_scores(text.as_bytes(), rows);
        for (text, rows) in [
            (r#"{"predictions": [0.1]}"#, 2),
            (r#"{"predictions": [NaN]}"#, 1),
            (r#"{"predictions": [null]}"#, 1),
            (r#"{"predictions": ["x"]}"#, 1),
            (r#"{"predictions": [[0.1, 0.2, 0.7]]}"#, 1),
            (r#"{"answers": []}"#, 0),
        ] {
            assert!(read(text, rows).is_err(), "{text}");
        }
    }
}
