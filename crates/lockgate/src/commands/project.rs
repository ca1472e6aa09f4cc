//! `init`, `check`, and applying the configuration before a plan.

use crate::cli;
use crate::client::Client;
use crate::context::{Context, PROJECT_FILE};
use crate::exit::Exit;
use crate::output::Tone;
use anyhow::{Context as _, bail};
use lockgate_config::Project;
use lockgate_control::{Applied, NewConfiguration};
use serde_json::json;

/// `init`
pub(crate) fn init(ctx: &Context, args: &cli::Init) -> anyhow::Result<Exit> {
    let dir = match &ctx.global.project {
        Some(dir) => dir.clone(),
        None => std::env::current_dir().context("the present folder can't be found")?,
    };
    let path = dir.join(PROJECT_FILE);
    if path.exists() && !args.force {
        bail!("{} is there already\n  hint: `lockgate init --force` overwrites it", path.display());
    }
    let proposal =
        lockgate_config::init::propose(&dir).with_context(|| format!("can't look at {}", dir.display()))?;
    std::fs::write(&path, &proposal.text).with_context(|| format!("can't write {}", path.display()))?;
    let body = json!({"path": path, "findings": proposal.findings});
    ctx.out.show(&body, || {
        let findings: String = proposal.findings.iter().map(|f| format!("  {f}\n")).collect();
        format!(
            "wrote {}\n{findings}{}",
            path.display(),
            crate::render::next(ctx.out, "lockgate check && lockgate up --detach")
        )
    })?;
    Ok(Exit::Done)
}

/// The settings over the file, by environment variables and `--set`, later ones winning.
pub(crate) fn settings(ctx: &Context) -> Vec<String> {
    let mut all: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("LOCKGATE__"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    all.sort();
    all.extend(ctx.global.set.iter().cloned());
    all
}

/// Reads the project's file with its settings.
pub(crate) fn load(ctx: &Context) -> anyhow::Result<Project> {
    let (text, path) = ctx.project_text()?;
    let words = |d: lockgate_config::Diagnostics| anyhow::Error::msg(d.to_string());
    let overrides = lockgate_control::overrides(&settings(ctx)).map_err(words)?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    lockgate_config::overlay(&text, &name, &overrides).map_err(words)
}

/// `check`
pub(crate) fn check(ctx: &Context) -> anyhow::Result<Exit> {
    let project = load(ctx)?;
    let warnings: Vec<String> =
        project.warnings.iter().chain(&project.unsupported).map(ToString::to_string).collect();
    let names: Vec<String> = project.environments.iter().map(|e| e.name.to_string()).collect();
    let body = json!({"project": project.name, "environments": names, "warnings": warnings});
    ctx.out.show(&body, || {
        let mut text: String = warnings.iter().map(|w| format!("{w}\n")).collect();
        text.push_str(&format!(
            "{} {}: project {}, environments {}\n",
            PROJECT_FILE,
            ctx.out.mark(Tone::Good, "is right"),
            project.name,
            names.join(" → ")
        ));
        text
    })?;
    Ok(Exit::Done)
}

/// `apply`
pub(crate) async fn apply(ctx: &Context) -> anyhow::Result<Exit> {
    let (toml, _) = ctx.project_text()?;
    load(ctx)?;
    let body = NewConfiguration { toml, settings: settings(ctx) };
    let applied: Applied = ctx.client()?.put("configuration", &body).await?;
    ctx.out.show(&applied, || {
        let what = if applied.changed { "applied" } else { "was applied already" };
        let mut text = format!("{PROJECT_FILE} {what} ({})\n", applied.digest.short());
        for sentence in &applied.kept {
            text.push_str(&format!("{}: {sentence}\n", ctx.out.mark(Tone::Warn, "note")));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// The project's file, for a server that is only to look at it.
pub(crate) fn configuration(ctx: &Context) -> anyhow::Result<Option<NewConfiguration>> {
    if ctx.project_dir().is_err() {
        return Ok(None);
    }
    load(ctx)?;
    let (toml, _) = ctx.project_text()?;
    Ok(Some(NewConfiguration { toml, settings: settings(ctx) }))
}

/// Applies the project's file where there is one and it differs from what the server has, and returns a client.
pub(crate) async fn applied(ctx: &Context) -> anyhow::Result<Client> {
    let client = ctx.client()?;
    if ctx.project_dir().is_err() {
        return Ok(client);
    }
    load(ctx)?;
    let (toml, _) = ctx.project_text()?;
    let body = NewConfiguration { toml, settings: settings(ctx) };
    let applied: Applied = client.put("configuration", &body).await?;
    if applied.changed {
        ctx.out.say(&format!("applied {PROJECT_FILE} ({})", applied.digest.short()));
    }
    for sentence in &applied.kept {
        ctx.out.say(&format!("{}: {sentence}", ctx.out.mark(Tone::Warn, "note")));
    }
    Ok(client)
}
