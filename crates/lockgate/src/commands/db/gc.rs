//! `db gc`: what was deleted long ago is taken away for good, and bytes that nothing refers to.

use super::{as_it_is, open, reading};
use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::world;
use anyhow::bail;
use lockgate_blob::{BlobPlace, BlobStore};
use lockgate_control::tracking::gc::{self, LEAST_GRACE, Report, Request};
use lockgate_store::{Access, Store, StoreError, is_postgres};
use std::os::unix::fs::MetadataExt;

/// `db gc`
pub(super) async fn gc(ctx: &Context, place: &cli::DbPlace, what: &cli::GcOptions) -> anyhow::Result<Exit> {
    let blobs = artifacts(place).await?;
    let url = place.url();
    let store = as_it_is(&url).await?;
    let collected = if what.dry_run {
        gc::collect(&store, &blobs, &request(what), world::system().0.now_ms()).await
    } else {
        store.close().await;
        as_owner(place)?;
        let store = writing(&url, what.grace).await?;
        let alone = blobs.alone().await?;
        if matches!(place.blobs(), Some(BlobPlace::Folder(_))) && !alone.is_held() {
            bail!("the artifacts' folder can't be locked\n  hint: run this as the user that runs the server");
        }
        let collected = gc::collect(&store, &blobs, &request(what), world::system().0.now_ms()).await;
        store.close().await;
        collected
    };
    let report = collected.map_err(|error| match error.hint() {
        Some(hint) => anyhow::anyhow!("{error}\n  hint: {hint}"),
        None => error.into(),
    })?;
    ctx.out.show(&report, || told(&report))?;
    Ok(Exit::Done)
}

/// Refuses to work as another user than the server: files and locks that this one makes could not be opened by it.
fn as_owner(place: &cli::DbPlace) -> anyhow::Result<()> {
    let folder = match place.blobs() {
        Some(BlobPlace::Folder(folder)) => Some(folder),
        _ => place.home.clone(),
    };
    let Some(folder) = folder else { return Ok(()) };
    let owner = std::fs::metadata(&folder)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    bail!(
        "{} belongs to another user, with the number {owner}\n  hint: run this as the user that runs the server: `sudo -u '#{owner}' lockgate db gc …`",
        folder.display()
    )
}

fn request(what: &cli::GcOptions) -> Request {
    Request {
        older_than: what.older_than,
        grace: what.grace,
        run_ids: what.run_ids.clone(),
        experiment_ids: what.experiment_ids.clone(),
        logged_model_ids: what.logged_model_ids.clone(),
        workspace: what.workspace.clone(),
        dry_run: what.dry_run,
    }
}

async fn artifacts(place: &cli::DbPlace) -> anyhow::Result<BlobStore> {
    let Some(at) = place.blobs() else {
        bail!("where the artifacts' files are is not known\n  hint: say it with --home or --blobs");
    };
    let scratch = place.home.as_ref().map(|home| home.join(super::BLOBS));
    match BlobStore::existing_over(&at, scratch.as_deref()).await? {
        Some(blobs) => Ok(blobs),
        None => bail!("there are no artifacts in {at}\n  hint: say where they are with --home or --blobs"),
    }
}

/// Opens the database for writing, alone or beside the server that runs on it.
async fn writing(url: &str, grace: i64) -> anyhow::Result<Store> {
    let brief = || {
        anyhow::anyhow!(
            "--grace is under an hour, and a server may run: it could be about to refer to younger bytes\n  hint: stop the server (one on SQLite can be seen to be stopped), or give an hour or more"
        )
    };
    if is_postgres(url) && grace < LEAST_GRACE {
        return Err(brief());
    }
    match Store::open(url, reading(Access::ReadWrite)).await {
        Err(StoreError::InUse { .. }) if grace < LEAST_GRACE => Err(brief()),
        Err(StoreError::InUse { .. }) => Ok(open(url, Access::Beside).await?),
        opened => Ok(opened?),
    }
}

fn told(report: &Report) -> String {
    let (went, room) = match report.dry_run {
        true => ("would go", "would be freed"),
        false => ("went", "were freed"),
    };
    let counted = [
        (report.experiments, "experiments"),
        (report.runs, "runs"),
        (report.logged_models, "logged models"),
        (report.traces, "traces"),
        (report.version_files, "lists of files of versions that are no more"),
        (report.blobs, "files of artifacts"),
    ];
    let counted: Vec<String> = counted.iter().map(|(count, what)| format!("{count} {what}")).collect();
    let mut text = format!("{went}: {}\n{} bytes {room}\n", counted.join(", "), report.bytes);
    if report.young > 0 {
        text += &format!("{} files that nothing refers to are younger than --grace and stay\n", report.young);
    }
    for kept in &report.kept {
        text += &format!("stays: {}: {}\n", kept.what, kept.why);
    }
    if report.kept_more > 0 {
        text += &format!("stays: {} more\n", report.kept_more);
    }
    text
}
