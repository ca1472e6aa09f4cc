//! What an agent may fetch: what promotions into its own environment name, and nothing else.

use crate::Control;
use crate::error::ControlError;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::digest::Digest;
use lockgate_core::gate::GateSpec;
use lockgate_core::promotion::Promotion;
use lockgate_core::release::Manifest;
use std::collections::BTreeSet;

/// The releases that a promotion makes its agent look at.
fn releases(promotion: &Promotion) -> impl Iterator<Item = Digest> {
    let plan = &promotion.plan;
    let revisions = [Some(&plan.revision), plan.baseline.as_ref(), plan.backup.as_ref()];
    let compared = plan.gates.values().filter_map(|gate| match gate {
        GateSpec::Metric { versus, .. } => versus.as_ref()?.release,
        _ => None,
    });
    revisions.into_iter().flatten().map(|r| r.release).chain(compared)
}

/// The logs that its gates left.
fn logs(promotion: &Promotion) -> impl Iterator<Item = Digest> {
    promotion.evidence.values().filter_map(|e| e.envelope.finding_unverified()?.log)
}

impl Control {
    /// The promotions into the environment whose agent this is; all of them for anybody who may read everything.
    async fn promotions_for(&self, actor: &Actor) -> Result<Option<Vec<Promotion>>, ControlError> {
        if actor.kind != ActorKind::Agent {
            authorize(actor, Action::Read, Target::Server)?;
            return Ok(None);
        }
        let mut all = self.promotions().await?;
        all.retain(|p| {
            authorize(actor, Action::AgentFetch, Target::Environment(&p.plan.environment)).is_ok()
        });
        Ok(Some(all))
    }

    /// A release's manifest, for an agent that is to look at it.
    ///
    /// # Errors
    /// Where there is no such release, or no promotion into the agent's environment names it.
    pub async fn agent_release(&self, actor: &Actor, digest: &Digest) -> Result<Manifest, ControlError> {
        if let Some(own) = self.promotions_for(actor).await?
            && !own.iter().flat_map(releases).any(|release| release == *digest)
        {
            return Err(not_needed("release", digest));
        }
        Ok(self.find_release(&digest.to_string()).await?.manifest)
    }

    /// Whether an agent may have these bytes: a file or the code of a release that it is to look at, or a log of its gates.
    ///
    /// # Errors
    /// Where it may not.
    pub async fn agent_may_fetch(&self, actor: &Actor, digest: &Digest) -> Result<(), ControlError> {
        let Some(own) = self.promotions_for(actor).await? else { return Ok(()) };
        let named: BTreeSet<Digest> = own.iter().flat_map(releases).collect();
        let holds = |m: &Manifest| {
            m.files.iter().any(|f| f.sha256 == *digest)
                || m.code.as_ref().is_some_and(|code| code.archive == *digest)
        };
        let is_part = self.releases().await?.iter().any(|r| named.contains(&r.digest) && holds(&r.manifest));
        if is_part || own.iter().flat_map(logs).any(|log| log == *digest) {
            return Ok(());
        }
        Err(not_needed("file", digest))
    }
}

fn not_needed(what: &str, digest: &Digest) -> ControlError {
    ControlError::Refused(format!(
        "no promotion into this agent's environment names {what} {}, so it may not have it",
        digest.short()
    ))
}
