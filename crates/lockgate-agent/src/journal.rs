//! The agent's own journal: every event is durable here before anything follows from it.

use crate::AgentError;
use arc_swap::ArcSwap;
use lockgate_core::access::Action;
use lockgate_core::actor::Actor;
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::entry::{Effect, Entry, Resource, ResourceKind, StoredEntry};
use lockgate_core::event::{Event, RolloutEvent};
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId, ulid};
use lockgate_core::rollout::Deployment;
use lockgate_core::wire::{Mark, Position};
use lockgate_store::{NewEntry, StateFilter, StateRow, Store, StoreOptions, Tx};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DEPLOYMENT: &str = "Deployment";

/// How many entries are reported at a time: a plan and a few envelopes each, so well below the server's limit.
const REPORT: u32 = 200;

/// The journal and the deployments that follow from it.
#[derive(Clone)]
pub(crate) struct Journal {
    path: PathBuf,
    store: Arc<ArcSwap<Store>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    environment: EnvironmentName,
}

impl Journal {
    pub(crate) async fn open(
        path: &Path,
        environment: EnvironmentName,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, AgentError> {
        let store = Arc::new(ArcSwap::from_pointee(store(path, &clock).await?));
        Ok(Self { path: path.to_owned(), store, clock, entropy, environment })
    }

    /// Opens it again after [`Journal::close`]: somebody else may have gone on with it meanwhile.
    ///
    /// # Errors
    /// Where it can't be opened, also while another agent has it.
    pub(crate) async fn reopen(&self) -> Result<(), AgentError> {
        self.store.store(Arc::new(store(&self.path, &self.clock).await?));
        Ok(())
    }

    /// The deployments as the journal left them.
    pub(crate) async fn deployments(&self) -> Result<BTreeMap<ModelName, Deployment>, AgentError> {
        let rows: Vec<StateRow> = self
            .store
            .load_full()
            .read(|conn| {
                Box::pin(
                    async move { Ok::<_, AgentError>(conn.states(&StateFilter::kind(DEPLOYMENT)).await?) },
                )
            })
            .await?;
        rows.iter()
            .map(|row| {
                let deployment: Deployment = serde_json::from_str(&row.state)?;
                Ok((deployment.model.clone(), deployment))
            })
            .collect()
    }

    /// Writes a rollout's event and the state that follows, in one durable transaction, and returns that state.
    pub(crate) async fn rollout(
        &self,
        deployment: &Deployment,
        promotion: &PromotionId,
        event: RolloutEvent,
    ) -> Result<Deployment, AgentError> {
        let now = self.clock.now_ms();
        let mut after = deployment.clone();
        after.apply(promotion, &event, now);
        let new = self.entry(ResourceKind::Rollout, promotion.as_str(), Event::Rollout(Box::new(event)));
        let row = StateRow {
            environment: self.environment.to_string(),
            model: after.model.to_string(),
            ..StateRow::new(DEPLOYMENT, after.model.as_str(), &after)?
        };
        let id = ulid(now, &*self.entropy);
        self.store
            .load_full()
            .write(move |tx: &mut Tx| {
                Box::pin(async move {
                    let entry = tx.append(new, &id, now).await?;
                    tx.save_state(StateRow { seq: entry.seq, ..row }).await?;
                    Ok::<_, AgentError>(())
                })
            })
            .await?;
        Ok(after)
    }

    /// Writes an event that changes no deployment.
    pub(crate) async fn note(&self, kind: ResourceKind, id: &str, event: Event) -> Result<Entry, AgentError> {
        let now = self.clock.now_ms();
        let (new, id) = (self.entry(kind, id, event), ulid(now, &*self.entropy));
        self.store
            .load_full()
            .write(move |tx: &mut Tx| {
                Box::pin(async move { Ok::<_, AgentError>(tx.append(new, &id, now).await?) })
            })
            .await
    }

    fn entry(&self, kind: ResourceKind, id: &str, event: Event) -> NewEntry {
        NewEntry {
            actor: Actor::agent(&self.environment),
            action: Action::AgentReport.as_str().to_owned(),
            effect: Effect::Allow,
            resource: Resource {
                kind,
                id: id.to_owned(),
                project: None,
                environment: Some(self.environment.clone()),
            },
            event: Some(event),
            reason: String::new(),
            source: None,
        }
    }

    /// Entries after the last one that the server has.
    pub(crate) async fn unreported(&self, after: Option<u64>) -> Result<Vec<StoredEntry>, AgentError> {
        let from = after.map_or(0, |seq| seq + 1);
        self.store
            .load_full()
            .read(move |conn| Box::pin(async move { Ok::<_, AgentError>(conn.entries(from, REPORT).await?) }))
            .await
    }

    /// By what the server knows this journal again: its length, and the entry `reported` that the server has, as far as is
    /// known; else its last one.
    pub(crate) async fn mark(&self, reported: Option<u64>) -> Result<Mark, AgentError> {
        self.store
            .load_full()
            .read(move |conn| {
                Box::pin(async move {
                    let length = conn.head().await?.count;
                    let seq = reported.or(length.checked_sub(1));
                    let found = match seq {
                        Some(seq) => conn.entries(seq, 1).await?,
                        None => Vec::new(),
                    };
                    let at = found.first().map(|e| Position { seq: e.seq, leaf: e.leaf });
                    Ok::<_, AgentError>(Mark { length, at })
                })
            })
            .await
    }

    pub(crate) async fn close(&self) {
        self.store.load_full().close().await;
    }
}

async fn store(path: &Path, clock: &Arc<dyn Clock>) -> Result<Store, AgentError> {
    let url =
        path.to_str().ok_or_else(|| AgentError::State(format!("{} is no UTF-8 path", path.display())))?;
    Ok(Store::open(url, StoreOptions::new(clock.clone())).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::clock::Millis;
    use lockgate_core::event::WorkerEvent;

    struct Still;

    impl Clock for Still {
        fn now_ms(&self) -> Millis {
            1_795_521_600_000
        }
    }

    #[derive(Default)]
    struct Counter(std::sync::atomic::AtomicU8);

    impl Entropy for Counter {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[tokio::test]
    async fn a_journal_is_known_again_by_its_length_and_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let place: EnvironmentName = "production".parse().unwrap();
        let path = folder.path().join("agent.db");
        let journal =
            Journal::open(&path, place, Arc::new(Still), Arc::new(Counter::default())).await.unwrap();
        assert_eq!(journal.mark(None).await.unwrap(), Mark::default());
        for worker in 0..3 {
            let release = lockgate_core::digest::Digest::of(b"r");
            let model = "m".parse().unwrap();
            let event = WorkerEvent::Back { model, release, worker, after_ms: 1 };
            journal.note(ResourceKind::Environment, "production", Event::Worker(event)).await.unwrap();
        }
        let entries = journal.unreported(None).await.unwrap();
        let at = |n: usize| Some(Position { seq: n as u64, leaf: entries[n].leaf });
        assert_eq!(journal.mark(None).await.unwrap(), Mark { length: 3, at: at(2) });
        assert_eq!(journal.mark(Some(1)).await.unwrap(), Mark { length: 3, at: at(1) });
        assert_eq!(journal.mark(Some(7)).await.unwrap(), Mark { length: 3, at: None });
        journal.close().await;
        // Whoever holds it keeps others out; it is free again when it is closed, and goes on where the other one ended.
        let (clock, entropy) = (Arc::new(Still), Arc::new(Counter::default()));
        let other =
            Journal::open(&path, "production".parse().unwrap(), clock, entropy.clone()).await.unwrap();
        assert!(journal.reopen().await.is_err());
        entropy.0.store(100, std::sync::atomic::Ordering::Relaxed);
        let event = WorkerEvent::Back {
            model: "m".parse().unwrap(),
            release: lockgate_core::digest::Digest::of(b"r"),
            worker: 3,
            after_ms: 1,
        };
        other.note(ResourceKind::Environment, "production", Event::Worker(event)).await.unwrap();
        other.close().await;
        journal.reopen().await.unwrap();
        assert_eq!(journal.mark(None).await.unwrap().length, 4);
        journal.close().await;
    }
}
