//! `db restore`: a checked backup in the place of a database, which is kept aside.

use super::files::{COMPANIONS, remove, rename, sync, sync_name, with_ending};
use super::{BLOBS, DATABASE, open, postgres};
use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::world;
use anyhow::{Context as _, bail};
use lockgate_blob::{BlobStore, Copied};
use lockgate_store::{Access, FileLock, is_postgres, sqlite_file, upkeep::settle};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `db restore`
pub(super) async fn restore(
    ctx: &Context,
    place: &cli::DbPlace,
    from: &Path,
    force: bool,
) -> anyhow::Result<Exit> {
    let url = place.url();
    if is_postgres(&url) {
        return postgres::restore(ctx, &url, from, place.folder()?);
    }
    let (backup, blobs) = parts(from);
    let checked = checked(&backup).await?;
    let target = sqlite_file(&url)?;
    // No server may start on it meanwhile, and none may run on it now.
    let _held = FileLock::hold(&target)?;
    let occupied = std::fs::metadata(&target).is_ok_and(|found| found.len() > 0);
    if occupied && !force {
        bail!("{} is there already\n  hint: --force keeps it aside and restores", target.display());
    }
    // The artifacts first: a database never names what is not there.
    let mut alone = None;
    let copied = match blobs {
        None => None,
        Some(blobs) => match place.folder()? {
            Some(folder) => {
                // Until the database names them they look like what nothing refers to.
                alone = Some(BlobStore::open(&folder).await?.alone().await?);
                Some(bring_back(&blobs, &folder).await?)
            }
            None => bail!("the backup has artifacts\n  hint: say where they go with --home or --blobs"),
        },
    };
    let fresh = with_ending(&target, ".restoring");
    std::fs::copy(&backup, &fresh).with_context(|| format!("{} can't be written", fresh.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    sync(&fresh)?;
    if occupied && let Err(error) = settle(&target.to_string_lossy()).await {
        ctx.out.aside(&format!("what is there is kept as it is: {error}"));
    }
    let aside = exchange(&fresh, &target, occupied)?;
    drop(alone);
    told(ctx, &target, checked, aside.as_deref(), copied)?;
    Ok(Exit::Done)
}

/// The backup's database, and the folder of its artifacts where it has one.
fn parts(from: &Path) -> (PathBuf, Option<PathBuf>) {
    if from.is_dir() { (from.join(DATABASE), Some(from.join(BLOBS))) } else { (from.to_owned(), None) }
}

/// What is known of a backup.
#[derive(Debug, Clone, Copy)]
struct Checked {
    schema: i64,
    entries: u64,
}

/// Reads the whole backup before anything is touched.
async fn checked(backup: &Path) -> anyhow::Result<Checked> {
    if !backup.is_file() {
        bail!("{} is no backup: there is no such file", backup.display());
    }
    if std::fs::metadata(with_ending(backup, "-wal")).is_ok_and(|found| found.len() > 0) {
        bail!(
            "{} is a database in use, not a backup\n  hint: make a backup of it with `lockgate db backup`",
            backup.display()
        );
    }
    let bad = || format!("{} can't be restored; nothing was changed", backup.display());
    let store = open(&backup.to_string_lossy(), Access::Inspect).await.with_context(bad)?;
    let damage = store.integrity().await;
    let (verified, schema) = (store.verify().await, store.schema_version().await);
    store.close().await;
    if let Some(what) = damage?.first() {
        bail!("{} is damaged ({what}); nothing was changed\n  hint: use an older backup", backup.display());
    }
    Ok(Checked { schema: schema?, entries: verified.with_context(bad)?.count })
}

async fn bring_back(blobs: &Path, folder: &Path) -> anyhow::Result<Copied> {
    let Some(store) = BlobStore::existing(blobs).await? else {
        bail!("the backup's artifacts are missing: there is no {}", blobs.display());
    };
    Ok(store.copy_into(folder, true).await?)
}

/// Puts the new database in the place of the one that is there, which is kept aside with what belongs to it; says where.
/// Under its name there is a database at every moment.
fn exchange(fresh: &Path, target: &Path, occupied: bool) -> anyhow::Result<Option<PathBuf>> {
    let aside = with_ending(target, &format!(".before-restore-{}", world::system().0.now_ms()));
    // Left over they would be taken for the new one's. A copy of what they hold goes first, so that a crash in between
    // loses nothing that was committed.
    for ending in COMPANIONS {
        let companion = with_ending(target, ending);
        if companion.exists() {
            let kept = with_ending(&aside, ending);
            std::fs::copy(&companion, &kept)
                .with_context(|| format!("{} can't be written", kept.display()))?;
            sync(&kept)?;
        }
    }
    if occupied {
        let failed = || format!("{} can't be kept as {}", target.display(), aside.display());
        // Not every disk has links.
        if std::fs::hard_link(target, &aside).is_err() {
            std::fs::copy(target, &aside).with_context(failed)?;
            sync(&aside)?;
        }
        sync_name(&aside)?;
    }
    for ending in COMPANIONS {
        remove(&with_ending(target, ending))?;
    }
    sync_name(target)?;
    rename(fresh, target)?;
    Ok(occupied.then_some(aside))
}

fn told(
    ctx: &Context,
    target: &Path,
    checked: Checked,
    aside: Option<&Path>,
    copied: Option<Copied>,
) -> anyhow::Result<()> {
    let Checked { schema, entries } = checked;
    let body = json!({
        "database": target, "schema": schema, "entries": entries, "aside": aside,
        "blobs": copied.map(|c| c.blobs), "new_blobs": copied.map(|c| c.new),
    });
    ctx.out.show(&body, || {
        let mut text =
            format!("{}: restored, {entries} log entries, schema version {schema}\n", target.display());
        if let Some(aside) = aside {
            text.push_str(&format!("what was there is {}\n", aside.display()));
        }
        match copied {
            Some(c) => {
                text.push_str(&format!("{} files of artifacts, {} of them brought back\n", c.blobs, c.new))
            }
            None => {
                text.push_str("without artifacts' files: `lockgate db check` says whether all are there\n")
            }
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_kept_with_its_companions() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        for (name, content) in [("db", "old"), ("db-wal", "last commits"), ("fresh", "new")] {
            std::fs::write(at(name), content).unwrap();
        }
        let aside = exchange(&at("fresh"), &at("db"), true).unwrap().unwrap();
        assert_eq!((text(&at("db")).as_str(), text(&aside).as_str()), ("new", "old"));
        assert_eq!(text(&with_ending(&aside, "-wal")), "last commits");
        assert!(!at("db-wal").exists() && !at("fresh").exists());
        // Where it can't be done, what was there stays.
        assert!(exchange(&at("none"), &at("db"), true).is_err());
        assert_eq!(text(&at("db")), "new");
    }
}
