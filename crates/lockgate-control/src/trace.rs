//! How one prediction came about: prediction → release → model version → run → code → data → approvals.

use crate::Control;
use crate::error::ControlError;
use crate::people::named;
use crate::states::{self, Wanted};
use crate::view::TraceView;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::id::EnvironmentName;
use lockgate_core::promotion::Promotion;
use lockgate_core::wire::Ask;
use serde_json::json;

impl Control {
    /// Traces a prediction by its id.
    ///
    /// # Errors
    /// Where no environment that can be asked knows it.
    pub async fn trace(
        &self,
        actor: &Actor,
        id: &str,
        environment: Option<&EnvironmentName>,
    ) -> Result<TraceView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        if id.is_empty()
            || id.len() > 100
            || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(ControlError::invalid(format!("`{id}` is no prediction id"))
                .with_hint("take it from an answer's x-lockgate-prediction-id header"));
        }
        let project = self.project().await?;
        let names: Vec<EnvironmentName> = match environment {
            Some(one) => vec![one.clone()],
            None => project.environments.iter().map(|e| e.name.clone()).collect(),
        };
        let mut silent = Vec::new();
        for name in names.into_iter().rev() {
            match self.ask(&name, Ask::Prediction { id: id.to_owned() }).await {
                Ok(Some(row)) => return self.trace_row(name, row).await,
                Ok(None) => {}
                Err(ControlError::Unavailable(_)) => silent.push(name.to_string()),
                Err(error) => return Err(error),
            }
        }
        let mut message = format!("no environment knows prediction {id}");
        if !silent.is_empty() {
            message.push_str(&format!("; could not ask {}", silent.join(", ")));
        }
        Err(ControlError::not_found(message)
            .with_hint("ids are in the x-lockgate-prediction-id header of answers; an agent that is killed loses the last seconds of its log"))
    }

    async fn trace_row(
        &self,
        environment: EnvironmentName,
        row: serde_json::Value,
    ) -> Result<TraceView, ControlError> {
        let digest = row.get("release").and_then(serde_json::Value::as_str).unwrap_or_default();
        let release = self.find_release(digest).await?;
        let model = release.manifest.model.clone();
        let promotions = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let wanted = Wanted { model: Some(&model), ..Wanted::default() };
                    states::promotions(conn, &wanted).await
                })
            })
            .await?;
        let names = self.names().await?;
        let mut row = row;
        if let Some(tester) = row["forced"].as_str().and_then(|by| by.strip_prefix("tester ")?.parse().ok()) {
            row["forced"] = format!("tester {}", named(&names, &tester)).into();
        }
        let brought = brought(&promotions, &environment, &row);
        let run = match &release.manifest.run_id {
            Some(id) => self.tracking.run_summary(id).await?.map(
                |run| json!({"run_id": id, "params": run.params, "metrics": run.metrics, "tags": run.tags}),
            ),
            None => None,
        };
        let promotion = brought.map(|p| self.view_promotion(p, &names, &promotions));
        let release = self.view_release(release, &promotions, &names);
        Ok(TraceView { prediction: row, environment, release, promotion, run })
    }
}

/// The promotion that brought what answered: the last one of that very revision that had traffic before the answer. One that
/// was replaced before it rolled, or that brought the release under another configuration, did not bring it.
pub(crate) fn brought<'a>(
    promotions: &'a [Promotion],
    environment: &EnvironmentName,
    row: &serde_json::Value,
) -> Option<&'a Promotion> {
    let revision: Option<Digest> =
        row.get("revision").and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok());
    let at = row.get("at_ms").and_then(serde_json::Value::as_i64).unwrap_or(i64::MAX);
    promotions
        .iter()
        .filter(|p| p.plan.environment == *environment && Some(p.plan.revision.digest()) == revision)
        .filter_map(|p| p.moved.filter(|moved| *moved <= at).map(|moved| (moved, p)))
        .max_by_key(|(moved, _)| *moved)
        .map(|(_, p)| p)
}
