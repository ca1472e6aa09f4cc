//! Rebuilding: what is derived from the log is compared with it, or made anew from it.

use crate::conn::Conn;
use crate::error::StoreError;
use crate::states::States;
use crate::store::Store;
use crate::verify::{Verified, VerifyError, Walk};
use lockgate_core::entry::{Entry, Source};
use std::time::Duration;

/// How long the writer may be kept for replacing the tables.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was read.
    pub log: Verified,
    /// Kind and id of each aggregate whose stored state was not what the log says.
    pub differences: Vec<(String, String)>,
}

/// Why the tables could not be rebuilt; they are as they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// The log itself is broken.
    #[error(transparent)]
    Log(#[from] VerifyError),
    /// The fold refused an entry.
    #[error("entry {seq} can't be applied: {why}")]
    Fold {
        /// The entry's number.
        seq: u64,
        /// The fold's words.
        why: String,
    },
}

impl From<StoreError> for RebuildError {
    fn from(error: StoreError) -> Self {
        Self::Log(VerifyError::Store(error))
    }
}

/// A fold over the log under way.
struct Fold<F> {
    walk: Walk,
    apply: F,
    states: States,
    sources: Vec<(Source, u64)>,
}

impl<F> Fold<F>
where
    F: FnMut(&Entry, &mut States) -> Result<(), String> + Send,
{
    fn new(apply: F) -> Self {
        Self { walk: Walk::new(), apply, states: States::default(), sources: Vec::new() }
    }

    /// Folds the next page; says whether that was the end.
    async fn page(&mut self, conn: &mut Conn) -> Result<bool, RebuildError> {
        let entries = self.walk.page(conn).await?;
        for entry in &entries {
            (self.apply)(entry, &mut self.states)
                .map_err(|why| RebuildError::Fold { seq: entry.seq, why })?;
            if let Some(source) = &entry.source {
                self.sources.push((source.clone(), entry.seq));
            }
        }
        Ok(entries.is_empty())
    }

    fn result(&self, stored: &States) -> Rebuilt {
        Rebuilt { log: self.walk.verified(), differences: self.states.differences(stored) }
    }
}

impl Store {
    /// Compares the stored states with a pure fold over the log, changing nothing. The log is verified on the way.
    ///
    /// # Errors
    /// Where the log is broken or the fold refuses an entry.
    pub async fn compare_states<F>(&self, apply: F) -> Result<Rebuilt, RebuildError>
    where
        F: FnMut(&Entry, &mut States) -> Result<(), String> + Send + 'static,
    {
        let fold = self.fold_most(apply).await?;
        self.read(move |conn| {
            Box::pin(async move {
                let mut fold = fold;
                while !fold.page(conn).await? {}
                let stored = conn.all_states().await?;
                Ok(fold.result(&stored))
            })
        })
        .await
    }

    /// Replaces everything that is derived from the log by a pure fold over it. The log is verified on the way. Most of
    /// the log is read beside the writer; writes wait only for the last entries and the replacement.
    ///
    /// # Errors
    /// Where the log is broken or the fold refuses an entry; the tables are then as they were.
    pub async fn rebuild<F>(&self, apply: F) -> Result<Rebuilt, RebuildError>
    where
        F: FnMut(&Entry, &mut States) -> Result<(), String> + Send + 'static,
    {
        let fold = self.fold_most(apply).await?;
        self.write_within(Some(LIMIT), false, move |tx| {
            Box::pin(async move {
                let mut fold = fold;
                while !fold.page(tx).await? {}
                let stored = tx.all_states().await?;
                tx.clear_derived().await?;
                for row in fold.states.iter() {
                    tx.save_state(row.clone()).await?;
                }
                for (source, seq) in &fold.sources {
                    tx.insert_source(source, *seq).await?;
                }
                Ok(fold.result(&stored))
            })
        })
        .await
    }

    /// Folds what is there now, a page at a time.
    async fn fold_most<F>(&self, apply: F) -> Result<Fold<F>, RebuildError>
    where
        F: FnMut(&Entry, &mut States) -> Result<(), String> + Send + 'static,
    {
        let mut fold = Fold::new(apply);
        loop {
            let (next, done) = self
                .read(move |conn| {
                    Box::pin(async move {
                        let mut fold = fold;
                        let done = fold.page(conn).await?;
                        Ok::<_, RebuildError>((fold, done))
                    })
                })
                .await?;
            fold = next;
            if done {
                return Ok(fold);
            }
        }
    }

    /// Every aggregate's state as text: equal states give equal bytes, on either engine.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn dump_states(&self) -> Result<String, StoreError> {
        self.read(|conn| Box::pin(async move { conn.all_states().await?.dump() })).await
    }
}
