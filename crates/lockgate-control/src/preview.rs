//! Preview tokens: who may have one is asked here and written down; the environment's agent makes it, with a key of its own.

use crate::Control;
use crate::error::ControlError;
use crate::places;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::rfc3339;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::id::{EnvironmentName, ModelName};
use lockgate_core::preview::LONGEST_MS;
use lockgate_core::wire::{Ask, PreviewToken, Previewed};
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewRequest {
    /// The model; the only one that is served if it isn't named.
    #[serde(default)]
    pub model: Option<ModelName>,
    /// Which side the token leads to: `candidate`, `baseline` or the beginning of a release's digest.
    pub side: String,
    /// How long it is good for, in milliseconds.
    pub for_ms: i64,
}

impl Control {
    /// A preview token from an environment's agent.
    ///
    /// # Errors
    /// Where the actor may not have one, the agent isn't there, or the environment lets no testers in.
    pub async fn preview(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        request: PreviewRequest,
    ) -> Result<PreviewToken, ControlError> {
        authorize(actor, Action::PreviewToken, Target::Environment(environment))?;
        let project = self.project().await?;
        places::known(&project, environment)?;
        if !(1_000..=LONGEST_MS).contains(&request.for_ms) {
            return Err(ControlError::invalid("a preview token is good for 1 second to 7 days"));
        }
        let PreviewRequest { model, side, for_ms } = request;
        let ask = Ask::Preview { model, side, by: actor.id.clone(), for_ms };
        let answer = self.ask(environment, ask).await?.map(serde_json::from_value::<Previewed>);
        let token = match answer {
            Some(Ok(Previewed::Token(token))) => token,
            Some(Ok(Previewed::Refused(why))) => return Err(ControlError::conflict(why)),
            Some(Err(_)) | None => {
                let message = format!("the agent of `{environment}` gave no token");
                return Err(ControlError::Unavailable(message));
            }
        };
        let until = rfc3339(token.expires);
        let reason = format!("a token for {} of model {}, good until {until}", token.side, token.model);
        let resource = Resource {
            kind: ResourceKind::Environment,
            id: environment.to_string(),
            project: Some(project.name),
            environment: Some(environment.clone()),
        };
        // Written down before it is handed over.
        let (control, actor) = (self.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                control.record_access(tx, &actor, Action::PreviewToken, resource, &reason).await
            })
        })
        .await?;
        Ok(token)
    }
}
