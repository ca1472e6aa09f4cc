//! Proving the log: the chain holds, and the query tables follow from it.

use crate::Control;
use crate::error::ControlError;
use crate::states;
use crate::view::AuditView;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{GENESIS, StoredEntry};
use lockgate_store::rebuild::RebuildError;

impl Control {
    /// Verifies the hash chain, and that the tables in use are what the log leads to.
    ///
    /// # Errors
    /// Where the actor may not. A broken chain is no error but a finding.
    pub async fn verify_audit(&self, actor: &Actor) -> Result<AuditView, ControlError> {
        authorize(actor, Action::AuditRead, Target::Server)?;
        let view = |entries: u64, head: Digest, chain_ok, tables_ok, problem| AuditView {
            entries,
            head,
            chain_ok,
            tables_ok,
            problem,
        };
        Ok(match self.store.compare_states(states::apply).await {
            Ok(done) => {
                let problem = done
                    .differences
                    .first()
                    .map(|(kind, id)| format!("{kind} {id} in the tables is not what the log leads to"));
                view(done.log.count, done.log.head, true, problem.is_none(), problem)
            }
            Err(RebuildError::Fold { seq, why }) => {
                view(seq, GENESIS, true, false, Some(format!("entry {seq} can't be applied: {why}")))
            }
            Err(RebuildError::Log(error)) => view(0, GENESIS, false, false, Some(error.to_string())),
        })
    }

    /// Entries as lines of canonical JSON.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn audit_lines(&self, actor: &Actor, from: u64, limit: u64) -> Result<String, ControlError> {
        authorize(actor, Action::AuditRead, Target::Server)?;
        let limit = u32::try_from(limit.min(100_000)).unwrap_or(u32::MAX);
        let entries: Vec<StoredEntry> = self
            .store
            .read(move |conn| {
                Box::pin(async move { Ok::<_, ControlError>(conn.entries(from, limit).await?) })
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
            Err(error) => Err(ControlError::conflict(error.to_string())),
        }
    }
}
