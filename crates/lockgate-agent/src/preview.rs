//! Preview tokens: the key stays in the agent's own folder, and whoever gets a token asked the server for it.

use crate::home::{Home, write_private};
use crate::{AgentError, Shared, routing};
use lockgate_core::clock::Entropy;
use lockgate_core::id::{ModelName, PrincipalId};
use lockgate_core::plan::{Plan, Testers};
use lockgate_core::preview::{Claims, LONGEST_MS, PreviewKey};
use lockgate_core::rollout::Deployment;
use lockgate_core::wire::{PreviewToken, Previewed};
use std::collections::BTreeMap;

/// The key's file. Without it (it may be deleted) the next start makes a new one, and no token of before is good any more.
const FILE: &str = "preview.key";

/// How long the smoke test's token is good beyond the test's own time, in milliseconds: its code and Python environment are made meanwhile.
const GRACE_MS: i64 = 660_000;

/// The agent's key for preview tokens; made at first start, and never sent anywhere.
pub(crate) fn key(home: &Home, entropy: &dyn Entropy) -> Result<PreviewKey, AgentError> {
    let path = home.path(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) => Ok(PreviewKey::new(bytes)),
            Err(bytes) => {
                let (path, length) = (path.display(), bytes.len());
                Err(AgentError::Key(format!("{path} holds {length} bytes, not 32; delete it for a new key")))
            }
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            entropy.fill(&mut bytes);
            write_private(&path, &bytes)?;
            Ok(PreviewKey::new(bytes))
        }
        Err(e) => Err(AgentError::io("read", &path, e)),
    }
}

/// Where a token's requests go, and what signed it.
fn address(shared: &Shared, token: &str) -> String {
    format!("{}/preview/{token}", shared.gateway_url)
}

/// The token and the address for the smoke test of a plan's release, and of no other one.
pub(crate) fn for_smoke(
    shared: &Shared,
    plan: &Plan,
    timeout_ms: u64,
) -> Result<(String, String), AgentError> {
    let within = i64::try_from(timeout_ms).unwrap_or(LONGEST_MS).min(LONGEST_MS);
    let claims = Claims {
        environment: shared.environment.clone(),
        model: plan.model.clone(),
        // Of this revision: what serves may be the same release under another configuration.
        side: plan.revision.digest().hex(),
        by: None,
        expires: shared.clock.now_ms() + within + GRACE_MS,
    };
    let token = claims.sign(&shared.preview_key)?;
    let address = address(shared, &token);
    Ok((token, address))
}

/// Makes a token for a person, where the environment's present plan lets testers in.
pub(crate) fn for_person(
    shared: &Shared,
    deployments: &BTreeMap<ModelName, Deployment>,
    model: Option<ModelName>,
    side: String,
    by: PrincipalId,
    for_ms: i64,
) -> Result<Previewed, AgentError> {
    let environment = &shared.environment;
    let names: Vec<&str> = deployments.keys().map(ModelName::as_str).collect();
    let refused = |why: String| Ok(Previewed::Refused(why));
    let model = match (model, names.as_slice()) {
        (Some(model), _) if deployments.contains_key(&model) => model,
        (Some(model), _) => {
            return refused(format!("environment `{environment}` has no model `{model}`"));
        }
        (None, [only]) => ModelName::new(*only).map_err(|e| AgentError::State(e.to_string()))?,
        (None, []) => return refused(format!("nothing is deployed in environment `{environment}` yet")),
        (None, several) => {
            let all = several.join("`, `");
            return refused(format!("environment `{environment}` serves `{all}`: say which with --model"));
        }
    };
    let plan = deployments.get(&model).and_then(routing::plan);
    if plan.is_none_or(|plan| plan.rollout.testers == Testers::Nobody) {
        return refused(format!(
            "environment `{environment}` lets no testers in: testers = \"token\" in [env.{environment}] does, from the next promotion on"
        ));
    }
    let expires = shared.clock.now_ms() + for_ms.clamp(1000, LONGEST_MS);
    let (environment, by) = (environment.clone(), Some(by));
    let claims =
        Claims { environment: environment.clone(), model: model.clone(), side: side.clone(), by, expires };
    let token = claims.sign(&shared.preview_key)?;
    let (address, gateway) = (address(shared, &token), shared.gateway_url.clone());
    Ok(Previewed::Token(PreviewToken { environment, model, side, token, address, gateway, expires }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Counting(std::sync::atomic::AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[test]
    fn the_key_is_made_once_is_private_and_a_new_one_ends_all_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("production")).unwrap();
        let entropy = Counting(std::sync::atomic::AtomicU8::new(1));
        let claims = Claims {
            environment: "production".parse().unwrap(),
            model: "delay".parse().unwrap(),
            side: "candidate".to_owned(),
            by: None,
            expires: 10,
        };
        let token = claims.sign(&key(&home, &entropy).unwrap()).unwrap();
        assert!(Claims::verify(&token, &key(&home, &entropy).unwrap(), 1).is_ok(), "after a restart too");
        let path = home.path(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
        assert!(Claims::verify(&token, &key(&home, &entropy).unwrap(), 1).is_err());
        std::fs::write(&path, b"short").unwrap();
        assert!(key(&home, &entropy).unwrap_err().to_string().contains("not 32"));
    }
}
