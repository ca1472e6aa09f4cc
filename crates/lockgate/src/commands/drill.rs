//! `drill`: rehearse a deployment's way back.

use super::encode;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Tone;
use anyhow::bail;
use lockgate_control::view::DrillView;
use lockgate_core::id::EnvironmentName;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often the server is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long to wait: longer than a drill may take by itself.
const WITHIN: Duration = Duration::from_secs(90);

/// `drill`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    environment: String,
    /// The model, where the environment serves several
    #[arg(long)]
    model: Option<String>,
    /// Why
    #[arg(long, short, default_value = "")]
    reason: String,
    /// Only show how the last one went
    #[arg(long)]
    last: bool,
}

/// `drill`
pub(crate) async fn drill(ctx: &Context, args: &Args) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let environment = EnvironmentName::new(args.environment.clone())?;
    let path = format!("environments/{environment}/drill");
    let of = args.model.as_deref().map_or_else(String::new, |model| format!("?model={}", encode(model)));
    let seen: DrillView = client.get(&format!("{path}{of}")).await?;
    let before = seen.last.as_ref().map(|last| last.at);
    if args.last {
        if seen.last.is_none() {
            bail!("{} in {environment} was never drilled\n  hint: lockgate drill {environment}", seen.model);
        }
        return show(ctx, &seen);
    }
    let body = json!({ "model": args.model, "reason": args.reason });
    let mut view: DrillView = client.post(&path, &body).await?;
    let begun = Instant::now();
    // What serves may be another one at the end: the model is named from here on.
    let of = format!("?model={}", encode(view.model.as_str()));
    while view.pending || view.under_way {
        if begun.elapsed() > WITHIN {
            bail!(
                "the drill has not ended within {} s\n  hint: lockgate why {} tells how far it is",
                WITHIN.as_secs(),
                view.promotion
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
        view = client.get(&format!("{path}{of}")).await?;
    }
    if view.last.as_ref().map(|last| last.at) == before {
        bail!(
            "there was no drill: {}\n  hint: lockgate why {} tells what happened",
            view.refused.as_deref().unwrap_or("the agent has not begun it in time"),
            view.promotion
        );
    }
    show(ctx, &view)
}

fn show(ctx: &Context, view: &DrillView) -> anyhow::Result<Exit> {
    let failed = view.last.as_ref().is_some_and(|last| last.failed.is_some());
    ctx.out.show(view, || {
        let tone = if failed { Tone::Bad } else { Tone::Good };
        let lines: Vec<&str> = view.words.split("; ").collect();
        let (head, rest) = lines.split_first().map_or(("", [].as_slice()), |(head, rest)| (*head, rest));
        let mut text =
            format!("drill of {} in {}: {}\n", view.model, view.environment, ctx.out.mark(tone, head));
        for line in rest {
            text.push_str(&format!("  {line}\n"));
        }
        text
    })?;
    Ok(if failed { Exit::Error } else { Exit::Done })
}
