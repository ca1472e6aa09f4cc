//! The control plane's use cases, one function per verb: permission, transaction and audit entry in one place.
//!
//! | module | subject |
//! |---|---|
//! | [`view`] | what is shown |
//! | `configuration` | the project's `lockgate.toml` |
//! | `release`, `flavor` | releases from registered models, and what their flavours ask for |
//! | `served` | releases that a server of the team's own runs |
//! | `planning`, `planner`, `forecast` | plans: looking things up, making them, how long they will take |
//! | `promotion` | plan, request, approve, reject, instruct |
//! | `terms` | what approvers say yes to, in words |
//! | `quarantine` | what may not enter again by itself |
//! | `agent`, `intake` | what agents fetch, and what they report |
//! | `need` | which releases and bytes an agent may fetch |
//! | `overview`, `why`, `history`, `model_history`, `trace` | looking at it |
//! | `audit`, `names` | verifying and rebuilding |
//! | [`upkeep`] | a database checked as a whole, without a server |
//! | `people` | names and opaque ids |
//! | `states`, `projection` | log, state and query tables in one transaction |
//! | [`tracking`] | experiments, runs, registered models, artifacts |

mod agent;
mod audit;
mod configuration;
mod drill;
mod error;
mod flavor;
mod forecast;
mod history;
mod intake;
mod model_history;
mod names;
mod need;
mod overview;
mod people;
mod places;
mod planner;
mod planning;
pub mod preview;
mod projection;
mod promotion;
mod quarantine;
mod release;
mod served;
mod states;
mod terms;
#[cfg(test)]
mod tests;
mod trace;
pub mod tracking;
pub mod upkeep;
pub mod view;
mod why;

pub use configuration::{Applied, NewConfiguration, overrides};
pub use error::ControlError;
pub use people::Accounts;
pub use projection::Inconsistent;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use lockgate_blob::{BlobError, BlobStore, Expect};
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::digest::Digest;
use lockgate_store::{Store, Tx};
use std::sync::Arc;
use tokio::sync::watch;

/// The control plane. Cheap to clone; several servers may stand over one database.
#[derive(Clone)]
pub struct Control {
    store: Store,
    blobs: BlobStore,
    tracking: tracking::Tracking,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    version: watch::Sender<u64>,
    /// Whether the server is about to end, so that nobody may wait for news any more.
    ending: watch::Sender<bool>,
    agents: Arc<agent::Agents>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Puts the control plane over a database and a blob store.
    #[must_use]
    pub fn new(store: Store, blobs: BlobStore, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let tracking = tracking::Tracking::new(store.clone(), blobs.clone(), clock.clone(), entropy.clone());
        // The version only has to differ from what agents have seen of an earlier process.
        let first = u64::try_from(clock.now_ms()).unwrap_or(0);
        Self {
            store,
            blobs,
            tracking,
            clock,
            entropy,
            version: watch::Sender::new(first),
            ending: watch::Sender::new(false),
            agents: Arc::default(),
        }
    }

    /// The same with somebody who brings messages to webhooks.
    #[must_use]
    pub fn with_courier(self, courier: Arc<dyn tracking::Courier>) -> Self {
        Self { tracking: self.tracking.with_courier(courier), ..self }
    }

    /// Answers whoever waits for news, now and from now on at once: the server is about to end.
    pub fn end_waiting(&self) {
        self.ending.send_replace(true);
    }

    /// Tracking data and the model registry.
    #[must_use]
    pub fn tracking(&self) -> &tracking::Tracking {
        &self.tracking
    }

    /// The blobs.
    #[must_use]
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Keeps bytes that must have this digest.
    ///
    /// # Errors
    /// Where they have another one, break off or can't be written; nothing is kept then.
    pub async fn put_blob<S>(&self, bytes: S, digest: &Digest) -> Result<(), ControlError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let put = self.blobs.put_stream(bytes, Expect::digest(*digest)).await;
        put.map(drop).map_err(|error| match error {
            // What came is at fault, not this server.
            BlobError::Mismatch { .. } | BlobError::Source { .. } | BlobError::TooLarge { .. } => {
                ControlError::invalid(error.to_string())
            }
            other => other.into(),
        })
    }

    /// Bytes by their digest, and how many.
    ///
    /// # Errors
    /// Where there are none.
    pub async fn get_blob(&self, digest: &Digest) -> Result<(lockgate_blob::BlobReader, u64), ControlError> {
        if !self.blobs.exists(digest).await? {
            return Err(ControlError::not_found(format!("there are no bytes with digest {digest}")));
        }
        let reader = self.blobs.reader(digest).await?;
        let size = reader.size();
        Ok((reader, size))
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Runs one durable transaction.
    async fn write<T, F>(&self, job: F) -> Result<T, ControlError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, ControlError>> + Send + 'static,
    {
        self.store.write(job).await
    }

    /// Tells waiting agents that there may be something new.
    fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }

    /// Moves every promotion on as far as time and conditions allow. Input-free: called on a timer and after restarts.
    ///
    /// # Errors
    /// Where the database fails; nothing is lost, the next call goes on.
    pub async fn reconcile(&self) -> Result<(), ControlError> {
        let now = self.clock.now_ms();
        let due = self.store.read(move |conn| Box::pin(async move { states::due(conn, now).await })).await?;
        let moved = !due.is_empty();
        for id in due {
            let control = self.clone();
            self.write(move |tx| Box::pin(async move { control.advance_in(tx, &id).await })).await?;
        }
        if moved {
            self.changed();
        }
        Ok(())
    }
}
