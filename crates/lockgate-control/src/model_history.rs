//! Where a model's aliases and stages pointed at any time, and who moved them.

use crate::Control;
use crate::error::ControlError;
use crate::people::named;
use crate::view::{ModelMove, Pointer};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::id::PrincipalId;
use std::collections::BTreeMap;

impl Control {
    /// Every move of a model's aliases and stages, the oldest first; with `at`, the last one of each up to then.
    ///
    /// # Errors
    /// Where the registry never had such a model, or the time has not come yet.
    pub async fn model_history(
        &self,
        actor: &Actor,
        model: &str,
        alias: Option<&str>,
        at: Option<Millis>,
    ) -> Result<Vec<ModelMove>, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        if at.is_some_and(|at| at > self.clock.now_ms()) {
            return Err(ControlError::invalid("that time has not come yet: the history ends now"));
        }
        let names = self.names().await?;
        let by = |id: &str| match (id.strip_prefix("agent_"), PrincipalId::new(id)) {
            (Some(environment), _) => format!("agent of {environment}"),
            (None, Ok(id)) => named(&names, &id),
            (None, Err(_)) => id.to_owned(),
        };
        let name = model.to_owned();
        let (known, aliases, stages) = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let known = conn.registered_model(&name).await?.is_some();
                    let aliases = conn.alias_history(&name).await?;
                    Ok::<_, ControlError>((known, aliases, conn.stage_history(&name).await?))
                })
            })
            .await?;
        if !known && aliases.is_empty() && stages.is_empty() {
            return Err(ControlError::not_found(format!("there is no registered model `{model}`")));
        }
        let promotion = |id: String| Some(id).filter(|id| !id.is_empty());
        let mut moves: Vec<ModelMove> = aliases
            .into_iter()
            .map(|moved| ModelMove {
                at: moved.at,
                pointer: Pointer::Alias { alias: moved.alias, version: moved.version },
                by: by(&moved.actor),
                promotion: promotion(moved.promotion),
            })
            .collect();
        moves.extend(stages.into_iter().map(|moved| ModelMove {
            at: moved.at,
            pointer: Pointer::Stage { version: moved.version, from: moved.from, to: moved.to },
            by: by(&moved.actor),
            promotion: promotion(moved.promotion),
        }));
        if let Some(wanted) = alias {
            moves.retain(|m| matches!(&m.pointer, Pointer::Alias { alias, .. } if alias == wanted));
        }
        // Stable: what one transaction did at one time stays in its order.
        moves.sort_by_key(|m| m.at);
        Ok(match at {
            None => moves,
            Some(at) => then(moves.into_iter().filter(|m| m.at <= at)),
        })
    }
}

/// The last move of each alias and of each version's stage.
fn then(moves: impl Iterator<Item = ModelMove>) -> Vec<ModelMove> {
    let mut last: BTreeMap<(u8, String, i64), ModelMove> = BTreeMap::new();
    for moved in moves {
        let key = match &moved.pointer {
            Pointer::Alias { alias, .. } => (0, alias.clone(), 0),
            Pointer::Stage { version, .. } => (1, String::new(), *version),
        };
        last.insert(key, moved);
    }
    last.into_values().collect()
}
