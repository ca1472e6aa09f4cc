//! `db`: a server's database, looked after by whoever has its files.

mod backup;
mod files;
mod gc;
mod postgres;
mod restore;

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Tone;
use crate::world;
use lockgate_blob::{BlobPlace, BlobStore};
use lockgate_control::upkeep::{self, Checkup};
use lockgate_store::{Access, Store, StoreError, StoreOptions};
use serde_json::json;
use std::path::PathBuf;

/// The database's file in a server's home, and in a backup that is a folder.
const DATABASE: &str = "lockgate.db";
/// The artifacts' folder there.
const BLOBS: &str = "blobs";

/// `db …`
pub(crate) async fn db(ctx: &Context, args: &cli::Db) -> anyhow::Result<Exit> {
    match args {
        cli::Db::Check { place, deep } => check(ctx, place, *deep).await,
        cli::Db::Migrate { place } => migrate(ctx, place).await,
        cli::Db::Backup { to, place, with_blobs } => backup::backup(ctx, place, to, *with_blobs).await,
        cli::Db::Gc { place, what } => gc::gc(ctx, place, what).await,
        cli::Db::Restore { from, place, force } => restore::restore(ctx, place, from, *force).await,
    }
}

impl cli::DbPlace {
    /// The database's address.
    fn url(&self) -> String {
        let home = || self.home.clone().unwrap_or_default().join(DATABASE).to_string_lossy().into_owned();
        self.database.clone().unwrap_or_else(home)
    }

    /// Where the artifacts are, where that is known.
    fn blobs(&self) -> Option<BlobPlace> {
        self.blobs.clone().or_else(|| Some(BlobPlace::Folder(self.home.as_ref()?.join(BLOBS))))
    }

    /// The artifacts' folder, where it is known.
    fn folder(&self) -> anyhow::Result<Option<PathBuf>> {
        match self.blobs() {
            None => Ok(None),
            Some(BlobPlace::Folder(folder)) => Ok(Some(folder)),
            Some(BlobPlace::Bucket(bucket)) => anyhow::bail!(
                "the artifacts are in {bucket}, not in a folder\n  hint: copy the bucket with its own tools (versions, replication, `aws s3 sync`); --with-blobs, and backups that were made with it, are for folders"
            ),
        }
    }
}

/// Opens a database beside whoever writes it.
async fn open(url: &str, access: Access) -> anyhow::Result<Store> {
    Ok(Store::open(url, reading(access)).await?)
}

fn reading(access: Access) -> StoreOptions {
    StoreOptions { access, ..StoreOptions::new(world::system().0) }
}

/// Opens a database to read it as it is: nothing is made or brought forward.
async fn as_it_is(url: &str) -> anyhow::Result<Store> {
    match Store::open(url, reading(Access::ReadOnly)).await {
        Err(error @ StoreError::OlderSchema { .. }) => {
            anyhow::bail!(
                "{error}\n  hint: `lockgate db migrate` does that, and so does the server when it starts"
            )
        }
        opened => Ok(opened?),
    }
}

async fn check(ctx: &Context, place: &cli::DbPlace, deep: bool) -> anyhow::Result<Exit> {
    let store = as_it_is(&place.url()).await?;
    let Some(place) = place.blobs() else {
        anyhow::bail!("where the artifacts' files are is not known\n  hint: say it with --home or --blobs");
    };
    let blobs = BlobStore::existing_at(&place).await?;
    let checked = upkeep::check(&store, blobs.as_ref(), deep).await;
    store.close().await;
    let found = checked?;
    ctx.out.show(&found, || report(ctx, &found))?;
    Ok(if found.findings.is_empty() { Exit::Done } else { Exit::Error })
}

fn report(ctx: &Context, found: &Checkup) -> String {
    let mut text = String::new();
    for finding in &found.findings {
        text.push_str(&format!(
            "{}: {}\n  where: {}\n  what to do: {}\n",
            ctx.out.mark(Tone::Bad, "wrong"),
            finding.what,
            finding.place,
            finding.remedy
        ));
    }
    if found.findings.is_empty() {
        let bytes = if found.deep { "read and compared with their digests" } else { "there with their size" };
        text.push_str(&format!(
            "{}: schema version {}; {} log entries, each linked to the one before, and the tables of promotions follow from them \
             (tracking data is not in the log); \
             {} artifacts, whose {} files ({} bytes) are {bytes}\nhead {}\n",
            ctx.out.mark(Tone::Good, "sound"),
            found.schema,
            found.entries,
            found.artifacts,
            found.blobs,
            found.bytes,
            found.head
        ));
    }
    text
}

async fn migrate(ctx: &Context, place: &cli::DbPlace) -> anyhow::Result<Exit> {
    let done = lockgate_store::upkeep::migrate(&place.url()).await?;
    ctx.out.show(&json!({ "from": done.from, "to": done.to }), || {
        if done.from == done.to {
            return format!("the schema has version {} already: nothing to do", done.to);
        }
        format!("the schema went from version {} to version {}", done.from, done.to)
    })?;
    Ok(Exit::Done)
}
