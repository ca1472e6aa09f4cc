//! The one door: every route carries an action and a resource through [`authorize`].

use crate::actor::{Actor, ActorKind};
use crate::id::EnvironmentName;
use serde::{Deserialize, Serialize};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What can be done. The text form is what the audit log records.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Action {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Action {
            /// All actions.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text form.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    /// Look at governed state, tracking data, artifacts.
    Read => "read",
    /// Write tracking data and artifacts, register models.
    Track => "track",
    /// Apply a project's configuration.
    ConfigurationApply => "configuration:apply",
    /// Make a release.
    ReleaseCreate => "release:create",
    /// Ask for a promotion.
    PromotionRequest => "promotion:request",
    /// Say yes to a promotion.
    PromotionApprove => "promotion:approve",
    /// Say no to a promotion.
    PromotionReject => "promotion:reject",
    /// Take a promotion back.
    PromotionCancel => "promotion:cancel",
    /// Move a promotion on when its conditions are met.
    PromotionAdvance => "promotion:advance",
    /// Pause a rollout.
    RolloutPause => "rollout:pause",
    /// Resume a rollout.
    RolloutResume => "rollout:resume",
    /// Abort a rollout.
    RolloutAbort => "rollout:abort",
    /// Roll a deployment back.
    RolloutRollback => "rollout:rollback",
    /// Let a preview step go on that waits for a person.
    RolloutSwitch => "rollout:switch",
    /// Rehearse a deployment's way back.
    RolloutDrill => "rollout:drill",
    /// Get a token to say which release answers.
    PreviewToken => "preview:token",
    /// Read the audit log.
    AuditRead => "audit:read",
    /// Make an agent's key known.
    AgentEnroll => "agent:enroll",
    /// Fetch an environment's desired state.
    AgentFetch => "agent:fetch",
    /// Report what an agent did.
    AgentReport => "agent:report",
}

/// What is acted on, as far as access depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Anything that belongs to no single environment.
    Server,
    /// One environment, or something in it.
    Environment(&'a EnvironmentName),
}

/// A refusal with its reason for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// May `actor` do `action` to `target`?
///
/// Rules: an agent fetches, reports and reads for its own environment only; only people approve and reject; nobody but an agent enrols, fetches or reports; the system advances promotions.
///
/// # Errors
/// The reason, for people.
pub fn authorize(actor: &Actor, action: Action, target: Target<'_>) -> Result<(), Refused> {
    use Action as A;
    let refuse = |why: String| Err(Refused(why));
    match (actor.kind, action) {
        (ActorKind::Agent, A::AgentEnroll | A::AgentFetch | A::AgentReport | A::Read) => match target {
            Target::Environment(environment) if *actor == Actor::agent(environment) => Ok(()),
            Target::Environment(environment) => {
                refuse(format!("{} may not act for environment `{environment}`", actor.id))
            }
            Target::Server => refuse("an agent acts for one environment only".to_owned()),
        },
        (ActorKind::Agent, _) => refuse(format!("an agent may not do `{}`", action.as_str())),
        (_, A::AgentEnroll | A::AgentFetch | A::AgentReport) => {
            refuse(format!("`{}` is for agents only", action.as_str()))
        }
        (ActorKind::Service, A::PromotionApprove | A::PromotionReject) => {
            refuse("only people approve or reject; a machine account can't".to_owned())
        }
        (ActorKind::System, A::PromotionAdvance | A::Read) => Ok(()),
        (ActorKind::System, _) => refuse(format!("the system may not do `{}` by itself", action.as_str())),
        (_, A::PromotionAdvance) => {
            refuse("promotions advance by themselves when their conditions are met".to_owned())
        }
        (ActorKind::User | ActorKind::Service, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::Via;
    use crate::id::PrincipalId;

    fn actor(kind: ActorKind) -> Actor {
        Actor { kind, id: PrincipalId::new("x").unwrap(), via: Via::Token, sealed: None }
    }

    #[test]
    fn an_agent_acts_for_its_own_environment_only() {
        let (own, other) = (EnvironmentName::new("a").unwrap(), EnvironmentName::new("b").unwrap());
        let agent = Actor::agent(&own);
        assert!(authorize(&agent, Action::AgentReport, Target::Environment(&own)).is_ok());
        assert!(authorize(&agent, Action::AgentReport, Target::Environment(&other)).is_err());
        assert!(authorize(&agent, Action::PromotionApprove, Target::Environment(&own)).is_err());
        assert!(authorize(&agent, Action::Track, Target::Server).is_err());
        assert!(authorize(&agent, Action::Read, Target::Environment(&own)).is_ok());
        assert!(authorize(&agent, Action::Read, Target::Environment(&other)).is_err());
        assert!(authorize(&agent, Action::Read, Target::Server).is_err());
        assert!(authorize(&agent, Action::AuditRead, Target::Environment(&own)).is_err());
    }

    #[test]
    fn only_people_approve() {
        assert!(authorize(&actor(ActorKind::User), Action::PromotionApprove, Target::Server).is_ok());
        for kind in [ActorKind::Service, ActorKind::Agent, ActorKind::System] {
            assert!(authorize(&actor(kind), Action::PromotionApprove, Target::Server).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn every_action_is_decided_for_every_kind_of_actor_without_a_default_yes() {
        for action in Action::ALL {
            let allowed = [ActorKind::User, ActorKind::Service, ActorKind::Agent, ActorKind::System]
                .into_iter()
                .filter(|kind| authorize(&actor(*kind), *action, Target::Server).is_ok())
                .count();
            assert!(allowed < 4, "{action:?} is open to everybody");
        }
    }
}
