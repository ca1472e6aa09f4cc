//! `release create`: bundles a registered version with the code and data that it came from.

mod optimise;
mod origin;

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::git::Tree;
use crate::render;
use anyhow::{Context as _, bail};
use lockgate_control::view::{NewRelease, ReleaseView};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::release::Code;

/// `release …`
pub(crate) async fn release(ctx: &Context, args: &cli::Release) -> anyhow::Result<Exit> {
    match args {
        cli::Release::Create { model, anyway, optimise, tolerance } => {
            create(ctx, model, anyway.as_deref(), optimise.map(|how| (how, *tolerance))).await
        }
        cli::Release::Show { release } => super::look::release_show(ctx, release).await,
        cli::Release::List => super::look::release_list(ctx).await,
        cli::Release::Diff { old, new } => super::look::release_diff(ctx, old, new).await,
    }
}

/// Splits `model@alias` and `model:version`.
fn reference(text: &str) -> (&str, &str) {
    text.rsplit_once('@').or_else(|| text.rsplit_once(':')).unwrap_or((text, "latest"))
}

/// A release that was made, and why it is not served by a graph though that was wished.
#[derive(serde::Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    view: &'a ReleaseView,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_optimised: Option<&'a str>,
}

async fn create(
    ctx: &Context,
    model: &str,
    anyway: Option<&str>,
    optimise: Option<(cli::Optimise, f64)>,
) -> anyhow::Result<Exit> {
    let client = super::project::applied(ctx).await?;
    let (name, version) = reference(model);
    let dir = ctx.project_dir()?;
    let project = super::project::load(ctx)?;
    let origin = origin::origin(&client, name, version).await?;
    let mut doubts = super::run::outdated(ctx)?;
    let mut authors = std::collections::BTreeSet::new();
    let outs: Vec<&str> = project.pipeline.iter().flat_map(|s| &s.outs).map(String::as_str).collect();
    let tree = match crate::git::is_repository(&dir) {
        true => Some(crate::git::tree(&dir, &outs)?),
        false => None,
    };
    if let Some(tree) = &tree {
        doubts.extend(origin::doubt(&dir, &project, &tree.commit, origin.commit.as_deref()));
        authors = origin::authors(&client, &project, &dir, name).await?;
        if tree.patch.is_some() {
            // Two versions of one commit with other changes over it: only the time tells which of them these changes made.
            if let Some(at) = origin.made
                && super::run::made_here(ctx, at)? == Some(false)
            {
                let version = origin.version.as_deref().unwrap_or(version);
                doubts
                    .push(format!("no run on the uncommitted changes that lie here made version {version}"));
            }
            authors.extend(crate::git::config(&dir, "user.email").map(|mail| mail.to_lowercase()));
        }
        note_untracked(ctx, tree);
    }
    let reason = reason(model, &doubts, anyway)?;
    let code = if let Some(tree) = tree {
        let archive = Digest::of(&tree.archive);
        client
            .put_bytes(&format!("blobs/{archive}"), tree.archive)
            .await
            .context("the code can't be uploaded")?;
        let patch = tree.patch.as_deref().map(Digest::of);
        Some(Code { commit: tree.commit, patch, archive })
    } else {
        ctx.out.say(
            "this folder is no Git repository with a commit: the release will not say which code made it",
        );
        None
    };
    let mut body = NewRelease {
        model: ModelName::new(name)?,
        // The version that was looked at, should its alias move meanwhile.
        version: origin.version.unwrap_or_else(|| version.to_owned()),
        code,
        data: super::run::datasets(ctx)?,
        authors: authors.into_iter().collect(),
        reason,
        graph: None,
        preview: false,
    };
    let mut stays = None;
    if let Some((how, tolerance)) = optimise {
        stays = optimise::graph(ctx, &client, &project, &mut body, tolerance).await?;
        if let Some(why) = stays.as_ref().filter(|_| how == cli::Optimise::Require) {
            bail!(
                "not optimised, and so not released: {why}
  hint: without `=require` the model is released as it is"
            );
        }
    }
    let view: ReleaseView = client.post("releases", &body).await?;
    ctx.out.show(&Made { view: &view, not_optimised: stays.as_deref() }, || {
        let head = if view.existed { "this release exists already\n" } else { "" };
        let next = format!("lockgate promote {} --env {} --wait", view.digest.short(), first_gated(ctx));
        format!("{head}{}{}", render::release(ctx.out, &view), render::next(ctx.out, &next))
    })?;
    Ok(Exit::Done)
}

/// What goes on record beside the release; an error where this folder may not be what made the model and nobody insists.
fn reason(model: &str, doubts: &[String], anyway: Option<&str>) -> anyhow::Result<String> {
    match anyway {
        _ if doubts.is_empty() => Ok(String::new()),
        Some(why) => {
            let words = if why.is_empty() { String::new() } else { format!(" ({why})") };
            Ok(format!("made anyway{words}: {}", doubts.join("; ")))
        }
        None => bail!(
            "what lies here may not be what made `{model}`:\n  {}\n  hint: train again with `lockgate run` (`--force` where it finds nothing to do), or check out the commit that it was made from; --anyway=WHY makes the release nevertheless and puts that on record",
            doubts.join("\n  ")
        ),
    }
}

/// Says which files become part of the release though Git doesn't know them.
fn note_untracked(ctx: &Context, tree: &Tree) {
    let names = &tree.untracked;
    if names.is_empty() {
        return;
    }
    let some: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = if names.len() > some.len() {
        format!(" and {} more", names.len() - some.len())
    } else {
        String::new()
    };
    ctx.out.aside(&format!("not in Git, but part of this release's code: {}{more}", some.join(", ")));
}

/// The environment that a new release enters first.
fn first_gated(ctx: &Context) -> String {
    let project = super::project::load(ctx).ok();
    let name = project.and_then(|p| {
        let found = p.environments.iter().find(|e| !e.after.is_empty()).or(p.environments.first());
        found.map(|e| e.name.to_string())
    });
    name.unwrap_or_else(|| "ENVIRONMENT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{reason, reference};

    #[test]
    fn a_release_of_something_else_needs_somebody_who_insists() {
        let doubts = ["stage `train` would run again".to_owned()];
        assert_eq!(reason("m@x", &[], None).unwrap(), "");
        assert_eq!(reason("m@x", &[], Some("sure")).unwrap(), "");
        let error = reason("m@x", &doubts, None).unwrap_err().to_string();
        assert!(error.contains("stage `train`") && error.contains("--anyway"), "{error}");
        assert_eq!(
            reason("m@x", &doubts, Some("moved a file")).unwrap(),
            "made anyway (moved a file): stage `train` would run again"
        );
    }

    #[test]
    fn a_version_is_named_by_alias_number_or_not_at_all() {
        assert_eq!(reference("m@candidate"), ("m", "candidate"));
        assert_eq!(reference("m:3"), ("m", "3"));
        assert_eq!(reference("m"), ("m", "latest"));
    }
}
