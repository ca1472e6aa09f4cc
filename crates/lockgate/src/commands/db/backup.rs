//! `db backup`: what was committed at one moment, beside a running server.

use super::files::{COMPANIONS, remove, rename, sync, with_ending};
use super::{BLOBS, DATABASE, open, postgres};
use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Tone;
use crate::world;
use anyhow::{Context as _, bail};
use lockgate_blob::{BlobStore, Copied};
use lockgate_control::upkeep::{self, Finding};
use lockgate_store::{Access, is_postgres, upkeep::snapshot};
use serde_json::json;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
        let folder = if with_blobs { place.folder()? } else { None };
        return postgres::backup(ctx, &url, to, folder);
    }
    refuse_there(to)?;
    if with_blobs {
        place.folder()?;
    }
    // A name that is nobody else's: what bears it, this process made.
    let partial = with_ending(to, &format!(".partial-{}-{}", std::process::id(), world::system().0.now_ms()));
    let mut own = false;
    let made = match with_blobs {
        true => folder(place, &partial, &mut own).await,
        false => file(&url, &partial, &mut own).await.map(|entries| Made {
            entries,
            blobs: None,
            lost: Vec::new(),
        }),
    };
    let made = match made.and_then(|made| refuse_there(to).map(|()| made)) {
        Ok(made) => made,
        Err(error) => {
            if own {
                remove(&partial)?;
            }
            return Err(error);
        }
    };
    rename(&partial, to)?;
    told(ctx, to, &made)?;
    Ok(if made.lost.is_empty() { Exit::Done } else { Exit::Error })
}

/// What a backup consists of.
struct Made {
    entries: u64,
    blobs: Option<Copied>,
    /// What the database itself lacks.
    lost: Vec<Finding>,
}

fn refuse_there(to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        bail!("{} is there already\n  hint: give a new name; old backups are yours to delete", to.display());
    }
    Ok(())
}

fn told(ctx: &Context, to: &Path, made: &Made) -> anyhow::Result<()> {
    let Made { entries, blobs, lost } = made;
    let body = json!({
        "backup": to,
        "entries": entries,
        "blobs": blobs.map(|c| c.blobs),
        "bytes": blobs.map(|c| c.bytes),
        "lost": lost,
    });
    ctx.out.show(&body, || {
        let with = match blobs {
            Some(c) => format!(", with {} files of artifacts ({} bytes)", c.blobs, c.bytes),
            None => ", without the artifacts' files (--with-blobs takes them along)".to_owned(),
        };
        let mut text = format!("{}: {entries} log entries, verified{with}\n", to.display());
        for one in lost {
            text += &format!("{}: {}: {}\n", ctx.out.mark(Tone::Bad, "not in it"), one.place, one.what);
        }
        text
    })?;
    if !lost.is_empty() {
        ctx.out.aside("the database itself lacks what is not in the backup: `lockgate db check` says what to do about it");
    }
    if blobs.is_some() {
        ctx.out.aside("artifacts' files are links where that is possible: copy the folder to another disk to be safe from a broken one");
    }
    Ok(())
}

/// Writes the database into `target` and proves it there; says how many log entries it has.
async fn file(url: &str, target: &Path, own: &mut bool) -> anyhow::Result<u64> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
    made.with_context(|| format!("{} can't be created", target.display()))?;
    *own = true;
    let done = async {
        snapshot(url, target, upkeep::SECRET_SETTINGS).await?;
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

async fn folder(place: &cli::DbPlace, target: &Path, own: &mut bool) -> anyhow::Result<Made> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(target)
        .with_context(|| format!("{} can't be created", target.display()))?;
    *own = true;
    // Nothing that the database names may go meanwhile.
    let _alone = match place.folder()? {
        Some(folder) => match BlobStore::existing(&folder).await? {
            Some(blobs) => Some(blobs.alone().await?),
            None => None,
        },
        None => None,
    };
    let database = target.join(DATABASE);
    let entries = file(&place.url(), &database, own).await?;
    let Some(source) = place.folder()? else {
        bail!("where the artifacts' files are is not known\n  hint: say it with --home or --blobs");
    };
    // After the database: what it names was there before it was named.
    let Some(blobs) = BlobStore::existing(&source).await? else {
        bail!("there are no artifacts in {}\n  hint: say where they are with --blobs", source.display());
    };
    let copied = blobs.copy_into(target.join(BLOBS), false).await?;
    let lost = lost(&database, &target.join(BLOBS)).await?;
    sync(target)?;
    Ok(Made { entries, blobs: Some(copied), lost })
}

/// Which artifacts' bytes are not in the backup. The rest is worth keeping all the same.
async fn lost(database: &Path, blobs: &Path) -> anyhow::Result<Vec<Finding>> {
    let store = open(&database.to_string_lossy(), Access::ReadOnly).await?;
    let blobs = BlobStore::existing(blobs).await?;
    let checked = upkeep::check(&store, blobs.as_ref(), false).await;
    store.close().await;
    for ending in COMPANIONS {
        remove(&with_ending(database, ending))?;
    }
    Ok(checked?.findings)
}
