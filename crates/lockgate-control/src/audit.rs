//! Proving the log: the chain holds, and the query tables follow from it.

use crate::Control;
use crate::error::ControlError;
use crate::names;
use crate::states;
use crate::view::AuditView;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{GENESIS, StoredEntry};
use lockgate_store::rebuild::RebuildError;
use lockgate_store::verify::VerifyError;
use lockgate_store::{Store, StoreError};

impl Control {
    /// Verifies the hash chain, that the tables in use are what the log leads to, and that the names in use are those that
    /// the log committed to.
    ///
    /// # Errors
    /// Where the actor may not, or the database can't be read. A broken chain is no error but a finding.
    pub async fn verify_audit(&self, actor: &Actor) -> Result<AuditView, ControlError> {
        authorize(actor, Action::AuditRead, Target::Server)?;
        prove(&self.store).await
    }

    /// Entries as lines of canonical JSON: from a number on, or the newest.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn audit_lines(
        &self,
        actor: &Actor,
        from: Option<u64>,
        limit: u64,
    ) -> Result<String, ControlError> {
        authorize(actor, Action::AuditRead, Target::Server)?;
        let limit = u32::try_from(limit.min(100_000)).unwrap_or(u32::MAX);
        let entries: Vec<StoredEntry> = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let from = match from {
                        Some(from) => from,
                        None => conn.head().await?.count.saturating_sub(u64::from(limit)),
                    };
                    Ok::<_, ControlError>(conn.entries(from, limit).await?)
                })
            })
            .await?;
        Ok(entries.iter().map(|e| format!("{}\n", e.text)).collect())
    }

    /// Rebuilds the query tables from the log, in one transaction, and says how many aggregates differed.
    ///
    /// # Errors
    /// Where the log is damaged; the tables stay as they are then.
    pub async fn rebuild(&self, actor: &Actor) -> Result<usize, ControlError> {
        authorize(actor, Action::AuditRead, Target::Server)?;
        match self.store.rebuild(states::apply).await {
            Ok(done) => Ok(done.differences.len()),
            Err(RebuildError::Log(error)) if is_fault(&error) => Err(fault(error)),
            Err(error) => Err(ControlError::conflict(error.to_string())),
        }
    }
}

/// Verifies the log, what is derived from it and the names in it. What is wrong is no error but a finding.
pub(crate) async fn prove(store: &Store) -> Result<AuditView, ControlError> {
    let view = |entries: u64, head: Digest, chain_ok, tables_ok, problem| AuditView {
        entries,
        head,
        chain_ok,
        tables_ok,
        problem,
    };
    Ok(match store.compare_states(states::apply).await {
        Ok(done) => {
            let problem = match done.differences.first() {
                Some((kind, id)) => Some(format!("{kind} {id} in the tables is not what the log leads to")),
                None => names::verify(store).await?,
            };
            view(done.log.count, done.log.head, true, problem.is_none(), problem)
        }
        Err(RebuildError::Fold { seq, why }) => {
            view(seq, GENESIS, true, false, Some(format!("entry {seq} can't be applied: {why}")))
        }
        Err(RebuildError::Log(error)) if is_fault(&error) => return Err(fault(error)),
        Err(RebuildError::Log(error)) => view(0, GENESIS, false, false, Some(error.to_string())),
    })
}

/// Whether the database failed, which says nothing about the log. A stored value that is none was changed by somebody.
fn is_fault(error: &VerifyError) -> bool {
    match error {
        VerifyError::Store(StoreError::Chain(_) | StoreError::Value { .. }) => false,
        VerifyError::Store(_) => true,
        VerifyError::Chain(_) | VerifyError::Columns(_) | VerifyError::End { .. } | VerifyError::Head => {
            false
        }
    }
}

fn fault(error: VerifyError) -> ControlError {
    match error {
        VerifyError::Store(error) => ControlError::Store(error),
        other => ControlError::Internal(other.to_string()),
    }
}
