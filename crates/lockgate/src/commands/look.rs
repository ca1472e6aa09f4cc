//! `status`, `env`, `history`, `trace`, `audit`, `logs`, `release show|list|diff`.

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Tone, clock, percent, table};
use crate::render;
use anyhow::{Context as _, bail};
use lockgate_control::view::{
    AuditView, DeliveryView, EnvironmentView, HistoryRow, ModelMove, Pointer, ReleaseView, StatusView,
    TraceView,
};
use lockgate_core::promotion::Stage;

/// `status`
pub(crate) async fn status(ctx: &Context) -> anyhow::Result<Exit> {
    let view: StatusView = ctx.client()?.get("status").await?;
    ctx.out.show(&view, || render::status(ctx.out, &view))?;
    Ok(if view.promotions.iter().any(|p| p.stage == Stage::AwaitingApproval) {
        Exit::AwaitingApproval
    } else {
        Exit::Done
    })
}

/// `env list|show`
pub(crate) async fn env(ctx: &Context, args: &cli::Env) -> anyhow::Result<Exit> {
    let view: StatusView = ctx.client()?.get("status").await?;
    match args {
        cli::Env::List => {
            ctx.out.show(&view.environments, || {
                let mut rows =
                    vec![["environment", "after", "agent", "gateway", "serves"].map(str::to_owned).to_vec()];
                for e in &view.environments {
                    let after: Vec<&str> = e.after.iter().map(|a| a.as_str()).collect();
                    let serves: Vec<String> = e
                        .models
                        .iter()
                        .flat_map(|(m, live)| {
                            live.sides.iter().filter(|s| s.share > 0.0).map(move |s| (m, s))
                        })
                        .map(|(m, s)| format!("{m} v{} {}", s.model_version, percent(s.share)))
                        .collect();
                    rows.push(vec![
                        e.name.to_string(),
                        if after.is_empty() { "-".to_owned() } else { after.join(", ") },
                        if e.connected { "up" } else { "down" }.to_owned(),
                        e.gateway.clone().unwrap_or_else(|| "-".to_owned()),
                        if serves.is_empty() { "nothing".to_owned() } else { serves.join(", ") },
                    ]);
                }
                table(&rows)
            })?;
        }
        cli::Env::Show { environment } => {
            let found: &EnvironmentView = view
                .environments
                .iter()
                .find(|e| e.name.as_str() == environment)
                .with_context(|| unknown_environment(environment, &view))?;
            ctx.out.show(found, || {
                let isolation = found.isolation.as_deref().unwrap_or("not known yet");
                format!("{}  isolation: {isolation}\n", render::environment(ctx.out, found))
            })?;
        }
    }
    Ok(Exit::Done)
}

fn unknown_environment(name: &str, view: &StatusView) -> String {
    let names: Vec<&str> = view.environments.iter().map(|e| e.name.as_str()).collect();
    format!("there is no environment `{name}`\n  hint: there are {}", names.join(", "))
}

/// `history`
pub(crate) async fn history(ctx: &Context, args: &cli::History) -> anyhow::Result<Exit> {
    let mut path = format!("history?environment={}", super::encode(&args.environment));
    if let Some(at) = &args.at {
        let ms = lockgate_core::clock::parse_rfc3339(at).map_err(anyhow::Error::msg)?;
        path.push_str(&format!("&at={ms}"));
    }
    if let Some(model) = &args.model {
        path.push_str(&format!("&model={}", super::encode(model)));
    }
    let rows: Vec<HistoryRow> = ctx.client()?.get(&path).await?;
    ctx.out.show(&rows, || {
        if rows.is_empty() {
            return format!(
                "{} served nothing{}\n",
                args.environment,
                args.at.as_ref().map_or(" so far", |_| " then")
            );
        }
        let mut lines = vec![
            ["since (UTC)", "model", "serving", "what happened", "promotion", "entry"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &rows {
            let serving: Vec<String> = row
                .serving
                .iter()
                .map(|s| format!("v{} {} {}", s.model_version, percent(s.share), s.release.short()))
                .collect();
            lines.push(vec![
                clock(row.at),
                row.model.to_string(),
                if serving.is_empty() { "nothing".to_owned() } else { serving.join(" + ") },
                row.what.clone(),
                row.promotion.to_string(),
                format!("#{}", row.seq),
            ]);
        }
        table(&lines)
    })?;
    Ok(Exit::Done)
}

/// `model history`
pub(crate) async fn model_history(ctx: &Context, args: &cli::ModelHistory) -> anyhow::Result<Exit> {
    let mut asked = Vec::new();
    if let Some(at) = &args.at {
        asked.push(format!("at={}", lockgate_core::clock::parse_rfc3339(at).map_err(anyhow::Error::msg)?));
    }
    if let Some(alias) = &args.alias {
        asked.push(format!("alias={}", super::encode(alias)));
    }
    let path = format!("models/{}/history?{}", super::encode(&args.model), asked.join("&"));
    let moves: Vec<ModelMove> = ctx.client()?.get(&path).await?;
    ctx.out.show(&moves, || {
        if moves.is_empty() {
            let when = args.at.as_ref().map_or("so far", |_| "then");
            return format!("nothing pointed to a version of {} {when}\n", args.model);
        }
        let mut lines =
            vec![["since (UTC)", "what", "points to", "moved by", "promotion"].map(str::to_owned).to_vec()];
        for moved in &moves {
            let (what, to) = match &moved.pointer {
                Pointer::Alias { alias, version } => (
                    format!("alias {alias}"),
                    version.map_or_else(|| "nothing".to_owned(), |version| format!("v{version}")),
                ),
                Pointer::Stage { version, from, to } => {
                    (format!("stage of v{version}"), format!("{to} (was {from})"))
                }
            };
            let promotion = moved.promotion.clone().unwrap_or_else(|| "-".to_owned());
            lines.push(vec![clock(moved.at), what, to, moved.by.clone(), promotion]);
        }
        table(&lines)
    })?;
    Ok(Exit::Done)
}

/// `webhooks`
pub(crate) async fn webhooks(ctx: &Context, args: &cli::Webhooks) -> anyhow::Result<Exit> {
    let path = format!("webhooks/deliveries?limit={}", args.limit);
    let all: Vec<DeliveryView> = ctx.client()?.get(&path).await?;
    ctx.out.show(&all, || {
        if all.is_empty() {
            return "nothing was told to a webhook so far\n".to_owned();
        }
        let head = ["happened (UTC)", "webhook", "event", "state", "tried", "next try", "last answer"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for one in &all {
            let next = if one.state == "pending" { clock(one.due) } else { "-".to_owned() };
            lines.push(vec![
                clock(one.at),
                one.webhook.clone(),
                one.event.clone(),
                one.state.clone(),
                one.attempts.to_string(),
                next,
                one.outcome.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table(&lines)
    })?;
    Ok(Exit::Done)
}

/// `trace`
pub(crate) async fn trace(ctx: &Context, args: &cli::Trace) -> anyhow::Result<Exit> {
    let mut path = format!("predictions/{}", super::encode(&args.prediction));
    if let Some(environment) = &args.env {
        path.push_str(&format!("?environment={}", super::encode(environment)));
    }
    let view: TraceView = ctx.client()?.get(&path).await?;
    ctx.out.show(&view, || {
        let strong = |t: &str| ctx.out.mark(Tone::Strong, t);
        let mut text = format!("prediction {}\n", strong(&args.prediction));
        if let Some(row) = view.prediction.as_object() {
            for (key, value) in row.iter().filter(|(_, value)| !value.is_null()) {
                let (key, value) = match (key.as_str(), value) {
                    ("at_ms", at) => ("at", at.as_i64().map(clock).unwrap_or_default()),
                    (key, serde_json::Value::String(s)) => (key, s.clone()),
                    (key, other) => (key, other.to_string()),
                };
                let short: String = value.chars().take(160).collect();
                text.push_str(&format!("  {key:<12} {short}\n"));
            }
        }
        text.push_str(&format!(
            "answered by {} in {}\n",
            strong(&view.release.digest.short()),
            view.environment
        ));
        text.push_str(&render::indent(&render::release(ctx.out, &view.release)));
        if let Some(p) = &view.promotion {
            text.push_str("brought by\n");
            text.push_str(&render::indent(&render::promotion(ctx.out, p)));
        }
        if let Some(run) = &view.run {
            text.push_str(&format!("trained by run {}\n", strong(run["run_id"].as_str().unwrap_or("?"))));
            for part in ["params", "metrics"] {
                if let Some(map) = run[part].as_object() {
                    let pairs: Vec<String> = map
                        .iter()
                        .map(|(k, v)| {
                            format!("{k}={}", v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                        })
                        .collect();
                    text.push_str(&format!("  {part:<12} {}\n", pairs.join(", ")));
                }
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

/// `audit verify|log`
pub(crate) async fn audit(ctx: &Context, args: &cli::Audit) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    match args {
        cli::Audit::Verify => {
            let view: AuditView = client.get("audit/verify").await?;
            let ok = view.chain_ok && view.tables_ok;
            ctx.out.show(&view, || match &view.problem {
                None => format!(
                    "{}: {} entries, each linked to the one before; the tables, rebuilt from the log, are the same\nhead {}\n",
                    ctx.out.mark(Tone::Good, "verified"),
                    view.entries,
                    view.head
                ),
                Some(problem) => format!("{}: {problem}\n", ctx.out.mark(Tone::Bad, "NOT VERIFIED")),
            })?;
            Ok(if ok { Exit::Done } else { Exit::Error })
        }
        cli::Audit::Log { from, limit } => {
            let from = from.map_or_else(String::new, |from| format!("from={from}&"));
            let text = client.get_text(&format!("audit?{from}limit={limit}")).await?;
            if let Some(left_out) = left_out(&from, &text, *limit) {
                ctx.out.aside(&left_out);
            }
            if ctx.out.is_json() {
                ctx.out.print(&text);
                return Ok(Exit::Done);
            }
            let mut rows =
                vec![["entry", "time (UTC)", "who", "action", "", "what"].map(str::to_owned).to_vec()];
            for line in text.lines().filter(|l| !l.is_empty()) {
                let e: serde_json::Value = serde_json::from_str(line).context("an entry can't be read")?;
                let s = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
                let detail = e["event"]["what"].as_str().or(e["event"]["kind"].as_str()).unwrap_or("");
                rows.push(vec![
                    format!("#{}", e["seq"]),
                    s(&e["ts"]).chars().take(19).collect::<String>().replace('T', " "),
                    s(&e["actor"]["id"]),
                    s(&e["action"]),
                    s(&e["effect"]),
                    format!(
                        "{} {} {detail} {}",
                        s(&e["resource"]["type"]),
                        s(&e["resource"]["id"]),
                        s(&e["reason"])
                    )
                    .trim_end()
                    .to_owned(),
                ]);
            }
            ctx.out.print(&table(&rows));
            Ok(Exit::Done)
        }
    }
}

/// Says which entries are not shown, where the log is longer than the answer.
fn left_out(from: &str, text: &str, limit: u64) -> Option<String> {
    let seq = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64();
    let mut lines = text.lines().filter(|l| !l.is_empty());
    let first = seq(lines.next()?)?;
    if from.is_empty() {
        let older = format!(
            "{first} older entries are left out; `--from 0` begins at the first, `--limit N` shows more"
        );
        return (first > 0).then_some(older);
    }
    let last = lines.next_back().and_then(seq).unwrap_or(first);
    let full = u64::try_from(text.lines().count()).unwrap_or(u64::MAX) >= limit;
    full.then(|| format!("newer entries may be left out; `--from {}` goes on", last + 1))
}

/// `logs`
pub(crate) async fn logs(ctx: &Context, args: &cli::Logs) -> anyhow::Result<Exit> {
    let need = |what: &str| {
        args.name.clone().with_context(|| format!("name the {what}: lockgate logs {} NAME", args.what))
    };
    let text = match args.what.as_str() {
        "run" => super::run::run_log(ctx)?,
        "stage" => super::run::stage_log(ctx, &need("stage")?)?,
        "server" | "agent" => {
            let name = if args.what == "server" {
                "server".to_owned()
            } else {
                format!("agent-{}", need("environment")?)
            };
            let path = ctx.state_dir()?.join("logs").join(format!("{name}.log"));
            std::fs::read_to_string(&path).with_context(|| format!("there is no log {}", path.display()))?
        }
        "worker" => {
            let environment = need("environment")?;
            let bytes = args.tail.saturating_mul(1024);
            ctx.client()?
                .get_text(&format!("environments/{}/worker-log?tail={bytes}", super::encode(&environment)))
                .await?
        }
        _ => {
            let client = ctx.client()?;
            let id = if args.what == "promotion" {
                args.name.clone().or_else(|| args.promotion.clone())
            } else {
                args.promotion.clone()
            };
            let which = cli::Which { promotion: id, env: None };
            let promotion = super::promotion::find(&client, &which).await?;
            let wanted: Vec<_> = promotion
                .gates
                .iter()
                .filter(|g| args.what == "promotion" || Some(g.gate.as_str()) == args.name.as_deref())
                .collect();
            let smoke = promotion.smoke.as_ref().filter(|_| args.what == "promotion");
            if wanted.is_empty() && smoke.is_none() {
                let names: Vec<&str> = promotion.gates.iter().map(|g| g.gate.as_str()).collect();
                bail!("promotion {} has no such gate\n  hint: it has {}", promotion.id, names.join(", "));
            }
            let mut text = String::new();
            for gate in wanted {
                text.push_str(&format!("== gate {} ({}): {}\n", gate.gate, gate.kind, gate.summary));
                match &gate.log {
                    Some(digest) => text.push_str(&client.get_text(&format!("blobs/{digest}")).await?),
                    None => text.push_str("no log yet\n"),
                }
            }
            if let Some(smoke) = smoke {
                text.push_str(&format!("== smoke test: {}\n", smoke.summary));
                match &smoke.log {
                    // The end of a test is on record before what it wrote is here.
                    Some(digest) => match client.find_text(&format!("blobs/{digest}")).await? {
                        Some(log) => text.push_str(&log),
                        None => text
                            .push_str("its log is not here yet: the agent hands it over as soon as it can\n"),
                    },
                    None => text.push_str("no log\n"),
                }
            }
            text
        }
    };
    let limit = usize::try_from(args.tail.saturating_mul(1024)).unwrap_or(usize::MAX);
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let text = &text[from..];
    let body = serde_json::json!({"what": args.what, "name": args.name, "text": text, "complete": from == 0});
    ctx.out.show(&body, || text.to_owned())?;
    Ok(Exit::Done)
}

/// `release show`
pub(crate) async fn release_show(ctx: &Context, release: &str) -> anyhow::Result<Exit> {
    let view: ReleaseView = ctx.client()?.get(&format!("releases/{}", super::encode(release))).await?;
    ctx.out.show(&view, || render::release(ctx.out, &view))?;
    Ok(Exit::Done)
}

/// `release list`
pub(crate) async fn release_list(ctx: &Context) -> anyhow::Result<Exit> {
    let views: Vec<ReleaseView> = ctx.client()?.get("releases").await?;
    ctx.out.show(&views, || {
        if views.is_empty() {
            return format!("no releases yet\n{}", render::next(ctx.out, "lockgate release create MODEL"));
        }
        let mut rows = vec![["release", "model", "made (UTC)", "by", "where"].map(str::to_owned).to_vec()];
        for v in &views {
            let places: Vec<String> = v.environments.iter().map(|(e, s)| format!("{e}: {s}")).collect();
            rows.push(vec![
                v.digest.short(),
                format!("{} v{}", v.manifest.model, v.manifest.model_version),
                clock(v.created),
                render::some(&v.authors),
                places.join(", "),
            ]);
        }
        table(&rows)
    })?;
    Ok(Exit::Done)
}

/// `release diff`
pub(crate) async fn release_diff(ctx: &Context, old: &str, new: &str) -> anyhow::Result<Exit> {
    let path = format!("releases/{}/diff/{}", super::encode(old), super::encode(new));
    let changes: Vec<String> = ctx.client()?.get(&path).await?;
    ctx.out.show(&changes, || match changes.as_slice() {
        [] => "no difference\n".to_owned(),
        lines => format!("{}\n", lines.join("\n")),
    })?;
    Ok(if changes.is_empty() { Exit::Done } else { Exit::Pending })
}

#[cfg(test)]
mod tests {
    use super::left_out;

    #[test]
    fn an_audit_log_that_is_cut_says_so() {
        let lines = "{\"seq\":7}\n{\"seq\":8}\n";
        assert!(left_out("", lines, 2).unwrap().starts_with("7 older entries"));
        assert_eq!(left_out("", "{\"seq\":0}\n{\"seq\":1}\n", 2), None);
        assert!(left_out("from=7&", lines, 2).unwrap().contains("--from 9"));
        assert_eq!(left_out("from=7&", lines, 3), None);
        assert_eq!(left_out("", "", 3), None);
    }
}
