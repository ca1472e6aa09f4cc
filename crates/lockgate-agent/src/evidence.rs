//! Before it prepares anything, an agent verifies by itself what a promotion rests on, with keys that it holds itself.

use crate::AgentError;
use lockgate_core::digest::Digest;
use lockgate_core::gate::{Envelope, GateSpec, Outcome, PublicKey};
use lockgate_core::id::{EnvironmentName, GateName};
use lockgate_core::plan::Plan;
use std::collections::BTreeMap;
use std::path::Path;

/// The public keys that an agent trusts, by environment.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: BTreeMap<EnvironmentName, PublicKey>,
}

impl Trust {
    /// Reads `<environment>.pem` files.
    ///
    /// # Errors
    /// Where a file can't be read or holds no key.
    pub fn read(dir: &Path) -> Result<Self, AgentError> {
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(|e| AgentError::io("read", dir, e))? {
            let path = entry.map_err(|e| AgentError::io("read", dir, e))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".pem"))
            else {
                continue;
            };
            let Ok(environment) = EnvironmentName::new(name) else { continue };
            let pem = std::fs::read_to_string(&path).map_err(|e| AgentError::io("read", &path, e))?;
            let key =
                PublicKey::from_pem(&pem).map_err(|e| AgentError::Key(format!("{}: {e}", path.display())))?;
            keys.insert(environment, key);
        }
        Ok(Self { keys })
    }

    /// Adds one key.
    pub fn add(&mut self, environment: EnvironmentName, key: PublicKey) {
        self.keys.insert(environment, key);
    }
}

/// Checks that every gate of this environment and of those before it has passed for this very release, by the signatures
/// of the agents that ran them, that each was asked what the plan asks, and that this environment's evidence is bound to this very plan.
///
/// # Errors
/// The first thing that is missing or doesn't fit.
pub(crate) fn verify(
    trust: &Trust,
    plan: &Plan,
    plan_hash: &Digest,
    own: &BTreeMap<GateName, Envelope>,
    lineage: &BTreeMap<EnvironmentName, BTreeMap<GateName, Envelope>>,
) -> Result<(), AgentError> {
    let fail = |what: String| Err(AgentError::Untrusted(what));
    match plan.hash() {
        Ok(hash) if hash == *plan_hash => {}
        _ => return fail("the plan is not the one that its hash names".to_owned()),
    }
    for (gate, spec) in &plan.gates {
        let bound_to = check(trust, plan, &plan.environment, (gate, spec), own.get(gate))?;
        if bound_to != *plan_hash {
            return fail(format!("the evidence of gate `{gate}` is bound to another plan"));
        }
    }
    let none = BTreeMap::new();
    for before in &plan.lineage {
        let found = lineage.get(&before.environment).unwrap_or(&none);
        for (gate, spec) in &before.gates {
            check(trust, plan, &before.environment, (gate, spec), found.get(gate))?;
        }
    }
    Ok(())
}

/// Checks one gate's evidence and returns the plan that it is bound to.
fn check(
    trust: &Trust,
    plan: &Plan,
    environment: &EnvironmentName,
    (gate, spec): (&GateName, &GateSpec),
    envelope: Option<&Envelope>,
) -> Result<Digest, AgentError> {
    let untrusted = AgentError::Untrusted;
    let envelope = envelope
        .ok_or_else(|| untrusted(format!("there is no evidence of gate `{gate}` in `{environment}`")))?;
    let key = trust.keys.get(environment).ok_or_else(|| {
        untrusted(format!("this agent holds no key of `{environment}`, so it can't trust its evidence"))
    })?;
    let finding =
        envelope.verify(key, environment, &plan.revision.release).map_err(|e| untrusted(e.to_string()))?;
    if finding.gate != *gate {
        return Err(untrusted(format!("the evidence for gate `{gate}` is that of gate `{}`", finding.gate)));
    }
    if !finding.answers(spec) {
        return Err(untrusted(format!(
            "the evidence for gate `{gate}` in `{environment}` answers another question than the plan asks: the gate was changed"
        )));
    }
    if finding.result != Outcome::Pass {
        return Err(untrusted(format!("gate `{gate}` in `{environment}` has not passed")));
    }
    Ok(finding.plan_hash)
}
