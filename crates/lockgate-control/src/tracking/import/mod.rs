//! Taking in the records of another store: with their ids and times, once, and over nothing that is there.
//!
//! Each record has an outcome of its own: `new`, `same`, or `conflict` with the reason. A batch is one transaction. Said
//! again, a batch changes nothing.

mod experiments;
mod known;
mod models;
mod registry;
mod runs;
#[cfg(test)]
mod tests;
mod traces;

use super::exchange::{Fate, Outcome, Record};
use super::{Tracking, TrackingError, may_track};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::{StoreError, Tx};

/// Who imports, and when.
#[derive(Debug, Clone)]
struct Importer {
    id: String,
    now: Millis,
}

/// How a batch ends without being kept.
enum Ended {
    Failed(TrackingError),
    /// It was only tried.
    Tried(Vec<Outcome>),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<TrackingError> for Ended {
    fn from(error: TrackingError) -> Self {
        Self::Failed(error)
    }
}

impl Tracking {
    /// Takes in records, in their order; where `dry`, only says what would become of them.
    ///
    /// # Errors
    /// Where the actor may not, or the database fails; nothing is kept then.
    pub async fn import(
        &self,
        actor: &Actor,
        records: Vec<Record>,
        dry: bool,
    ) -> Result<Vec<Outcome>, TrackingError> {
        may_track(actor)?;
        let by = Importer { id: actor.id.to_string(), now: self.clock.now_ms() };
        // One for each dataset and version: which ones need it is known later.
        let entropy = self.clone();
        let workspace = self.workspace.clone();
        let written = self.store.write(move |tx| {
            tx.enter(&workspace);
            Box::pin(async move {
                let mut outcomes = Vec::with_capacity(records.len());
                for record in &records {
                    outcomes.push(entropy.take_in(tx, &by, record).await?);
                }
                if dry { Err(Ended::Tried(outcomes)) } else { Ok(outcomes) }
            })
        });
        match written.await {
            Ok(outcomes) | Err(Ended::Tried(outcomes)) => Ok(outcomes),
            Err(Ended::Failed(error)) => Err(error),
        }
    }

    async fn take_in(&self, tx: &mut Tx, by: &Importer, record: &Record) -> Result<Outcome, TrackingError> {
        if holds_nul(record) {
            return Ok(Outcome::conflict("it holds the character NUL, which can't be stored"));
        }
        let taken = match record {
            Record::Experiment(record) => experiments::take(tx, record).await,
            Record::Run(record) => runs::take(self, tx, by, record).await,
            Record::Points(record) => runs::take_points(tx, record).await,
            Record::LoggedModel(record) => models::take(tx, record).await,
            Record::RegisteredModel(record) => registry::take_model(tx, by, record).await,
            Record::Version(record) => registry::take_version(self, tx, by, record).await,
            Record::Alias(record) => registry::take_alias(tx, by, record).await,
            Record::Trace(record) => traces::take(tx, record).await,
            Record::Spans(record) => traces::take_spans(tx, record).await,
            Record::TraceLink(record) => traces::take_link(tx, record).await,
        };
        match taken {
            // Rules that are checked before anything is written.
            Err(TrackingError::Invalid(why) | TrackingError::Missing(why)) => Ok(Outcome::conflict(why)),
            Err(TrackingError::Refused(refused)) => Ok(Outcome::conflict(refused.to_string())),
            other => other,
        }
    }
}

/// Whether a text in it has the character NUL. Asked before anything is written, so that no half of a record is.
fn holds_nul(record: &Record) -> bool {
    let text = serde_json::to_string(record).unwrap_or_default();
    text.match_indices("\\u0000").any(|(at, _)| {
        let slashes = text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        slashes % 2 == 0
    })
}

/// A sign of what a record became.
fn new() -> Outcome {
    Outcome::new(Fate::New)
}
