//! `db backup`: what was committed at one moment, beside a running server.

use super::files::{COMPANIONS, remove, rename, sync, with_ending};
use super::{BLOBS, DATABASE, open, postgres};
use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use anyhow::{Context as _, bail};
use lockgate_blob::{BlobStore, Copied};
use lockgate_control::upkeep;
use lockgate_store::{Access, is_postgres, upkeep::snapshot};
use serde_json::json;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// `db backup`
pub(super) async fn backup(
    ctx: &Context,
    place: &cli::DbPlace,
    to: &Path,
    with_blobs: bool,
) -> anyhow::Result<Exit> {
    let url = place.url();
    if is_postgres(&url) {
        return postgres::backup(ctx, &url, to, place.blobs().filter(|_| with_blobs));
    }
    if to.exists() {
        bail!("{} is there already\n  hint: give a new name; old backups are yours to delete", to.display());
    }
    let partial = with_ending(to, ".partial");
    remove(&partial)?;
    let made = match with_blobs {
        true => folder(place, &partial).await,
        false => file(&url, &partial).await.map(|entries| (entries, None)),
    };
    let (entries, copied) = match made {
        Ok(made) => made,
        Err(error) => {
            remove(&partial)?;
            return Err(error);
        }
    };
    rename(&partial, to)?;
    let body = json!({
        "backup": to,
        "entries": entries,
        "blobs": copied.map(|c| c.blobs),
        "bytes": copied.map(|c| c.bytes),
    });
    ctx.out.show(&body, || {
        let blobs = match copied {
            Some(c) => format!(", with {} files of artifacts ({} bytes)", c.blobs, c.bytes),
            None => ", without the artifacts' files (--with-blobs takes them along)".to_owned(),
        };
        format!("{}: {entries} log entries, verified{blobs}", to.display())
    })?;
    if copied.is_some() {
        ctx.out.aside("artifacts' files are links where that is possible: copy the folder to another disk to be safe from a broken one");
    }
    Ok(Exit::Done)
}

/// Writes the database into `target` and proves it there; says how many log entries it has.
async fn file(url: &str, target: &Path) -> anyhow::Result<u64> {
    let done = async {
        snapshot(url, target).await?;
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o600))?;
        sync(target)?;
        proven(target).await
    };
    let done = done.await;
    for ending in COMPANIONS {
        remove(&with_ending(target, ending))?;
    }
    done
}

/// Checks a backup's database as far as it can be without artifacts.
async fn proven(database: &Path) -> anyhow::Result<u64> {
    let store = open(&database.to_string_lossy(), Access::Inspect).await?;
    let damage = store.integrity().await;
    let verified = store.verify().await;
    store.close().await;
    if let Some(what) = damage?.first() {
        bail!(
            "the backup is damaged: {what}\n  hint: check the disk, and the database with `lockgate db check`"
        );
    }
    let verified =
        verified.context("the backup's audit log is not whole: run `lockgate db check` on the database")?;
    Ok(verified.count)
}

async fn folder(place: &cli::DbPlace, target: &Path) -> anyhow::Result<(u64, Option<Copied>)> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(target)
        .with_context(|| format!("{} can't be created", target.display()))?;
    let database = target.join(DATABASE);
    let entries = file(&place.url(), &database).await?;
    let Some(source) = place.blobs() else {
        bail!("where the artifacts' files are is not known\n  hint: say it with --home or --blobs");
    };
    // After the database: what it names was there before it was named.
    let Some(blobs) = BlobStore::existing(&source).await? else {
        bail!("there are no artifacts in {}\n  hint: say where they are with --blobs", source.display());
    };
    let copied = blobs.copy_into(target.join(BLOBS), false).await?;
    whole(&database, &target.join(BLOBS)).await?;
    sync(target)?;
    Ok((entries, Some(copied)))
}

/// Checks that every artifact's bytes are in the backup.
async fn whole(database: &Path, blobs: &Path) -> anyhow::Result<()> {
    let store = open(&database.to_string_lossy(), Access::ReadOnly).await?;
    let blobs = BlobStore::existing(blobs).await?;
    let checked = upkeep::check(&store, blobs.as_ref(), false).await;
    store.close().await;
    for ending in COMPANIONS {
        remove(&with_ending(database, ending))?;
    }
    match checked?.findings.first() {
        Some(finding) => bail!(
            "{}: {}\n  hint: the database itself is so; `lockgate db check` shows everything",
            finding.place,
            finding.what
        ),
        None => Ok(()),
    }
}
