//! `release create`: bundles a registered version with the code and data that it came from.

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::render;
use anyhow::Context as _;
use lockgate_control::view::{NewRelease, ReleaseView};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::release::Code;

/// `release …`
pub(crate) async fn release(ctx: &Context, args: &cli::Release) -> anyhow::Result<Exit> {
    match args {
        cli::Release::Create { model } => create(ctx, model).await,
        cli::Release::Show { release } => super::look::release_show(ctx, release).await,
        cli::Release::List => super::look::release_list(ctx).await,
        cli::Release::Diff { old, new } => super::look::release_diff(ctx, old, new).await,
    }
}

/// Splits `model@alias` and `model:version`.
fn reference(text: &str) -> (&str, &str) {
    text.rsplit_once('@').or_else(|| text.rsplit_once(':')).unwrap_or((text, "latest"))
}

async fn create(ctx: &Context, model: &str) -> anyhow::Result<Exit> {
    let client = super::project::applied(ctx).await?;
    let (name, version) = reference(model);
    let dir = ctx.project_dir()?;
    let mut authors = Vec::new();
    let code = if crate::git::is_repository(&dir) {
        let tree = crate::git::tree(&dir)?;
        authors = tree.authors;
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
    let body = NewRelease {
        model: ModelName::new(name)?,
        version: version.to_owned(),
        code,
        data: super::run::datasets(ctx)?,
        authors,
    };
    let view: ReleaseView = client.post("releases", &body).await?;
    ctx.out.show(&view, || {
        let head = if view.existed { "this release exists already\n" } else { "" };
        let next = format!("lockgate promote {} --env {} --wait", view.digest.short(), first_gated(ctx));
        format!("{head}{}{}", render::release(ctx.out, &view), render::next(ctx.out, &next))
    })?;
    Ok(Exit::Done)
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
    use super::reference;

    #[test]
    fn a_version_is_named_by_alias_number_or_not_at_all() {
        assert_eq!(reference("m@candidate"), ("m", "candidate"));
        assert_eq!(reference("m:3"), ("m", "3"));
        assert_eq!(reference("m"), ("m", "latest"));
    }
}
