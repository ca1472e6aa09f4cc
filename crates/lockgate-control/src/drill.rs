//! Drills: rehearsing a deployment's way back under its real traffic.

use crate::Control;
use crate::error::ControlError;
use crate::places;
use crate::states;
use crate::view::DrillView;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::event::InstructionKind;
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_core::rollout::{Deployment, Drilled};

impl Control {
    /// Sends all of a model's traffic to its way back for a moment, and home again.
    ///
    /// # Errors
    /// Where nothing is there that could be drilled now, several models are and none is named, or the agent isn't there: a drill
    /// happens now or not at all.
    pub async fn drill(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
        reason: &str,
    ) -> Result<DrillView, ControlError> {
        authorize(actor, Action::RolloutDrill, Target::Environment(environment))?;
        let (promotion, deployment) = self.drillable(environment, model).await?;
        let refuse = |why: &str| ControlError::conflict(format!("`{environment}` can't be drilled: {why}"));
        if self.project().await?.environment(environment).is_some_and(|e| e.observe) {
            return Err(refuse("it only observes, and a drill would move its users"));
        }
        deployment.can_drill().map_err(refuse)?;
        if !self.is_connected(environment) {
            return Err(refuse("its agent is not there, and a drill happens now or not at all"));
        }
        self.instruct(actor, &promotion, InstructionKind::Drill, reason).await?;
        self.drill_view(environment, Some(&deployment.model)).await
    }

    /// How a model's last drill went, and whether one is under way.
    ///
    /// # Errors
    /// Where nothing serves, or several models do and none is named.
    pub async fn drilled(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
    ) -> Result<DrillView, ControlError> {
        authorize(actor, Action::Read, Target::Environment(environment))?;
        self.drill_view(environment, model).await
    }

    async fn drill_view(
        &self,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
    ) -> Result<DrillView, ControlError> {
        let (promotion, deployment) = self.drillable(environment, model).await?;
        let asked = self.load_promotion(&promotion).await?;
        Ok(DrillView {
            environment: environment.clone(),
            model: deployment.model,
            promotion,
            pending: asked.asked_to_drill(self.clock.now_ms()).is_some(),
            under_way: deployment.drill.is_some(),
            refused: deployment.drill_told.and_then(|told| told.refused),
            words: deployment.drilled.as_ref().map(words).unwrap_or_default(),
            last: deployment.drilled,
        })
    }

    /// The deployment that a person means by an environment, and a model where it serves several; and the promotion that serves.
    async fn drillable(
        &self,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
    ) -> Result<(PromotionId, Deployment), ControlError> {
        places::known(&self.project().await?, environment)?;
        let (place, of) = (environment.clone(), model.cloned());
        let all = self
            .store
            .read(move |conn| {
                Box::pin(async move { states::deployments(conn, Some(&place), of.as_ref()).await })
            })
            .await?;
        let serves = |(_, d): (_, Deployment)| Some((d.serving.as_ref()?.promotion.clone(), d));
        let mut serving: Vec<(PromotionId, Deployment)> = all.into_iter().filter_map(serves).collect();
        places::single(environment, serving.iter().map(|(_, d)| &d.model))?;
        serving.pop().ok_or_else(|| {
            let what = model.map_or_else(|| "nothing".to_owned(), |m| format!("no model `{m}`"));
            ControlError::conflict(format!("environment `{environment}` serves {what} that was promoted"))
        })
    }
}

/// How a drill went, in words.
pub(crate) fn words(drilled: &Drilled) -> String {
    let target = format!("v{} ({})", drilled.target.model_version, drilled.target.release.short());
    let seen = match &drilled.away {
        None => String::new(),
        Some(away) if away.requests == 0 => format!(
            "; no request went to what serves after {} ms, verified after {} ms; no answer of {target} was seen meanwhile",
            away.last_request_ms, away.verified_ms
        ),
        Some(away) => format!(
            "; no request went to what serves after {} ms, verified after {} ms; meanwhile {target} answered {} requests, {} badly",
            away.last_request_ms, away.verified_ms, away.requests, away.errors
        ),
    };
    let home = format!("; home again after {} ms", drilled.home_ms);
    match &drilled.failed {
        Some(why) => format!("FAILED: {why}{seen}{home}"),
        None => format!("passed: all traffic went to {target}{seen}{home}"),
    }
}

/// When the way back was drilled last, for a plan.
pub(crate) fn last(deployment: &Deployment, now: Millis) -> String {
    let Some(drilled) = &deployment.drilled else {
        let never = "the way back here now was never drilled";
        return match deployment.can_drill() {
            Ok(_) => format!("{never} (lockgate drill rehearses it)"),
            Err(_) => never.to_owned(),
        };
    };
    let ago = ago(now - drilled.at);
    let from = deployment.serving.as_ref().map_or(0, |s| s.revision.model_version);
    let way = format!("the way back here now, from v{from} to v{}", drilled.target.model_version);
    match (&drilled.failed, &drilled.away) {
        (Some(why), _) => format!("{way}, was drilled {ago} and FAILED: {why}"),
        (None, Some(away)) => format!("{way}, was drilled {ago}: verified after {} ms", away.verified_ms),
        (None, None) => format!("{way}, was drilled {ago}"),
    }
}

fn ago(ms: Millis) -> String {
    let seconds = ms.max(0) / 1000;
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_said_in_its_largest_unit() {
        for (ms, said) in [
            (-5, "0 seconds ago"),
            (61_000, "1 minute ago"),
            (7_199_000, "1 hour ago"),
            (3 * 86_400_000, "3 days ago"),
        ] {
            assert_eq!(ago(ms), said);
        }
    }
}
