//! `predict`: asks an environment's gateway, as any client would.

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Tone;
use anyhow::{Context as _, bail};
use lockgate_control::view::StatusView;
use serde_json::{Value, json};
use std::io::Read as _;

/// `predict`
pub(crate) async fn predict(ctx: &Context, args: &cli::Predict) -> anyhow::Result<Exit> {
    let text = match args.rows.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input can't be read")?;
            text
        }
        rows => match rows.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("{path} can't be read"))?,
            None => rows.to_owned(),
        },
    };
    let rows: Value = serde_json::from_str(&text).context("the rows are no JSON")?;
    let status: StatusView = ctx.client()?.get("status").await?;
    let environment = status.environments.iter().find(|e| e.name.as_str() == args.env);
    let Some(environment) = environment else {
        let names: Vec<&str> = status.environments.iter().map(|e| e.name.as_str()).collect();
        bail!("there is no environment `{}`\n  hint: there are {}", args.env, names.join(", "));
    };
    let gateway = environment
        .gateway
        .as_ref()
        .with_context(|| format!("the gateway of `{}` is not known yet", args.env))?;
    let names: Vec<String> = environment.models.keys().map(ToString::to_string).collect();
    let model = match (&args.model, names.as_slice()) {
        (Some(model), _) => model.clone(),
        (None, [one]) => one.clone(),
        (None, []) => bail!(
            "`{}` serves nothing yet\n  hint: lockgate promote latest --env {} --wait",
            args.env,
            args.env
        ),
        (None, several) => bail!(
            "`{}` serves several models\n  hint: name one with --model: {}",
            args.env,
            several.join(", ")
        ),
    };
    let open_inference = rows
        .get("inputs")
        .is_some_and(|i| i.as_array().is_some_and(|a| a.iter().all(|t| t.get("datatype").is_some())));
    let (path, body) = if open_inference {
        (format!("v2/models/{}/infer", super::encode(&model)), rows)
    } else {
        (format!("models/{}/invocations", super::encode(&model)), wrap(rows))
    };
    let unit = status
        .promotions
        .iter()
        .find(|p| p.environment.as_str() == args.env)
        .and_then(|p| p.plan.rollout.unit_header.clone());
    let mut request =
        reqwest::Client::builder().no_proxy().build()?.post(format!("{gateway}/{path}")).json(&body);
    if let (Some(value), Some(header)) = (&args.unit, unit) {
        request = request.header(header, value);
    }
    let response = request
        .send()
        .await
        .with_context(|| format!("the gateway of `{}` at {gateway} does not answer", args.env))?;
    let good = response.status().is_success();
    let header =
        |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    let (id, release, variant) =
        (header("x-lockgate-prediction-id"), header("x-lockgate-release"), header("x-lockgate-variant"));
    let code = response.status().as_u16();
    let answer = response.text().await.context("the answer broke off")?;
    let body =
        json!({"prediction": id, "release": release, "variant": variant, "status": code, "answer": answer});
    ctx.out.show(&body, || {
        let status = if good { String::new() } else { ctx.out.mark(Tone::Bad, &format!("status {code}\n")) };
        let next =
            if good { crate::render::next(ctx.out, &format!("lockgate trace {id}")) } else { String::new() };
        format!("{status}{}\n{next}", answer.trim_end())
    })?;
    Ok(if good { Exit::Done } else { Exit::Error })
}

/// Puts plain rows into the form that MLflow's scoring takes.
fn wrap(rows: Value) -> Value {
    let known = ["dataframe_split", "dataframe_records", "instances", "inputs"];
    match rows {
        Value::Object(map) if known.iter().any(|k| map.contains_key(*k)) => Value::Object(map),
        Value::Object(row) => json!({"dataframe_records": [row]}),
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            json!({"dataframe_records": list})
        }
        other => json!({"instances": other}),
    }
}
