//! `db gc`: what was deleted long ago is taken away for good, and bytes that nothing refers to.
//!
//! | module | subject |
//! |---|---|
//! | `tokens` | digests and ids in texts |
//! | `survey` | what refers to what |
//! | `choice` | what goes, and what stays |
//! | `rows` | taking rows away, in steps |
//! | `sweep` | taking bytes away |
//!
//! It fails closed: everything that can name something is read and understood before anything goes. Servers may run
//! meanwhile: bytes that are put again look young, and what they newly refer to is looked up again right before bytes go.

mod choice;
mod rows;
mod survey;
mod sweep;
mod tokens;

use crate::audit::prove;
use crate::error::ControlError;
use lockgate_blob::BlobStore;
use lockgate_core::clock::{Entropy, Millis};
use lockgate_store::{Store, StoreError};
use serde::Serialize;
use survey::{Survey, Without};

/// How long things are deleted before they go, where nothing else is said: 30 days.
pub const OLDER_THAN: Millis = 30 * 86_400_000;
/// How old bytes are at least that go, where nothing else is said: a day, for as long an upload in parts may take.
pub const GRACE: Millis = 86_400_000;
/// The least while a server may run.
pub const LEAST_GRACE: Millis = 3_600_000;
/// How many things that stay are named; the others are counted.
const NAMED: usize = 20;
/// The setting that holds the database's name among the owners of bytes.
pub(crate) const OWNER: &str = "database_id";

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// How long it must be deleted; the default is [`OLDER_THAN`], or no time for what is named by its id.
    pub older_than: Option<Millis>,
    /// How old bytes must be.
    pub grace: Millis,
    /// Only these runs.
    pub run_ids: Vec<String>,
    /// Only these experiments, with their runs.
    pub experiment_ids: Vec<String>,
    /// Only these logged models.
    pub logged_model_ids: Vec<String>,
    /// Only what is in this workspace.
    pub workspace: Option<String>,
    /// Whether it is only to be said what would go.
    pub dry_run: bool,
}

impl Request {
    /// Whether ids are named.
    fn names_some(&self) -> bool {
        !(self.run_ids.is_empty() && self.experiment_ids.is_empty() && self.logged_model_ids.is_empty())
    }
}

/// Something that was deleted long enough ago and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it is.
    pub what: String,
    /// Why it stays.
    pub why: String,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Experiments.
    pub experiments: u64,
    /// Runs.
    pub runs: u64,
    /// Logged models.
    pub logged_models: u64,
    /// Traces of those experiments.
    pub traces: u64,
    /// Lists of files of registered versions that are no more.
    pub version_files: u64,
    /// Files of the blob store.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// Files that nothing refers to either, but that are too young.
    pub young: u64,
    /// What stays.
    pub kept: Vec<Kept>,
    /// How many more stay.
    pub kept_more: u64,
}

/// Leaves this database's mark beside the bytes that it refers to, so that nobody else takes them away.
///
/// # Errors
/// Where the database or the blob store can't be written.
pub async fn claim(store: &Store, blobs: &BlobStore, entropy: &dyn Entropy) -> Result<(), ControlError> {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    let new = hex::encode(random);
    let owner = match owner(store).await? {
        Some(owner) => owner,
        None => {
            let written = store.write(move |tx| {
                Box::pin(async move {
                    if let Some(there) = tx.setting(OWNER).await? {
                        return Ok::<_, StoreError>(there);
                    }
                    tx.set_setting(OWNER, &new).await?;
                    Ok(new)
                })
            });
            written.await?
        }
    };
    let says = format!("The database at {} refers to these artifacts.\n", store.place());
    Ok(blobs.claim(&owner, &says).await?)
}

async fn owner(store: &Store) -> Result<Option<String>, ControlError> {
    Ok(store.read(|conn| Box::pin(async move { conn.setting(OWNER).await })).await?)
}

/// Takes away what was deleted long ago, and bytes that nothing refers to.
///
/// # Errors
/// Where anything can't be read or understood, the bytes are also somebody else's, or what is named can't go: nothing has gone
/// then. Where the database or the blob store fails on the way: said again it goes on.
pub async fn collect(
    store: &Store,
    blobs: &BlobStore,
    request: &Request,
    now: Millis,
) -> Result<Report, ControlError> {
    sound(store).await?;
    own(store, blobs).await?;
    let uploads = blobs.joined_uploads().await?;
    let survey = Survey::take(store, Without::default()).await?;
    let choice = choice::choose(store, request, survey, now).await?;
    let mut report = Report { dry_run: request.dry_run, traces: choice.traces, ..Report::default() };
    report.kept.clone_from(&choice.kept);
    let without = if request.dry_run {
        report.count(&choice.doomed);
        Without::of(store, &choice).await?
    } else {
        rows::finish(store).await?;
        let gone = rows::take(store, choice.doomed, request.until(now), &mut report.kept).await?;
        report.count(&gone);
        Without::default()
    };
    report.kept_more = report.kept.len().saturating_sub(NAMED) as u64;
    report.kept.truncate(NAMED);
    let mut survey = Survey::take(store, without).await?;
    survey.add(&uploads);
    let before = now.saturating_sub(request.grace);
    sweep::sweep(store, blobs, survey, before, &mut report).await?;
    Ok(report)
}

/// Whether all of the database can be read, and its log leads to its tables.
async fn sound(store: &Store) -> Result<(), ControlError> {
    let wrong = match store.integrity().await?.into_iter().next() {
        Some(damage) => Some(damage),
        None => prove(store).await?.problem,
    };
    match wrong {
        None => Ok(()),
        Some(what) => Err(ControlError::conflict(format!("{}: {what}", store.place())).with_hint(
            "nothing was deleted, because what is still needed can't be told; run `lockgate db check`",
        )),
    }
}

/// Whether the bytes are this database's, and no other's.
async fn own(store: &Store, blobs: &BlobStore) -> Result<(), ControlError> {
    let (own, owners) = (owner(store).await?, blobs.owners().await?);
    let is_own = |owner: &&String| own.as_ref() == Some(*owner);
    if let Some(other) = owners.iter().find(|owner| !is_own(owner)) {
        return Err(ControlError::conflict(format!(
            "another database refers to these artifacts as well: it left the mark {}",
            blobs.mark_of(other)
        ))
        .with_hint("nothing was deleted; give each database a place of its own, or delete the mark where that database is no more"));
    }
    if owners.iter().any(|owner| is_own(&owner)) {
        return Ok(());
    }
    Err(ControlError::conflict(format!(
        "these artifacts bear no mark of the database at {}, so they may be another one's",
        store.place()
    ))
    .with_hint("nothing was deleted; a server leaves the mark when it starts on both: start it once, or name the right place with --home or --blobs"))
}
