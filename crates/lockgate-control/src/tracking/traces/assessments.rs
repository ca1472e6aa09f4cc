//! Feedback, expectations and issues.

use super::super::{Assessment, Tracking, TrackingError, may_read, may_track};
use super::tree::Tree;
use super::{SESSION, found};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::Conn;

/// Metadata that names the run during which something was said.
pub(in super::super) const SOURCE_RUN: &str = "mlflow.assessment.sourceRunId";

/// What is said about a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAssessment {
    /// Its id, where the client has one.
    pub assessment_id: Option<String>,
    /// Its name.
    pub name: String,
    /// `feedback`, `expectation` or `issue`.
    pub kind: &'static str,
    /// Its value.
    pub value: Tree,
    /// Why there is none.
    pub error: Option<Tree>,
    /// The kind of who says it.
    pub source_type: String,
    /// Who says it.
    pub source_id: Option<String>,
    /// The span it is about.
    pub span_id: Option<String>,
    /// The reasons.
    pub rationale: Option<String>,
    /// The assessment that it takes the place of.
    pub overrides: Option<String>,
    /// More about it.
    pub metadata: Vec<(String, Tree)>,
    /// When it was made, where the client says so.
    pub created: Option<Millis>,
    /// When it was changed, where the client says so.
    pub updated: Option<Millis>,
}

/// What of an assessment is changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AssessmentUpdate {
    /// A new name.
    pub name: Option<String>,
    /// A new value of an expectation.
    pub expectation: Option<Tree>,
    /// A new value of feedback, and why there is none.
    pub feedback: Option<(Tree, Option<Tree>)>,
    /// New reasons.
    pub rationale: Option<String>,
    /// More metadata.
    pub metadata: Vec<(String, Tree)>,
}

/// The number that can be compared: only of values that are numbers.
fn amount(value: &Tree) -> Option<f64> {
    value.as_number()
}

fn written(metadata: Vec<(String, Tree)>) -> Option<String> {
    (!metadata.is_empty()).then(|| Tree::Map(metadata).dump_ascii())
}

/// The row of something that is said.
pub(super) fn row(
    trace: &str,
    new: NewAssessment,
    id: String,
    now: Millis,
) -> Result<Assessment, TrackingError> {
    if new.name.is_empty() {
        return Err(TrackingError::invalid(
            "Missing value for required parameter 'assessment.assessment_name'.",
        ));
    }
    let of = |key: &str| new.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    Ok(Assessment {
        assessment_id: new.assessment_id.unwrap_or_else(|| format!("a-{id}")),
        trace_id: trace.to_owned(),
        name: new.name,
        kind: new.kind.to_owned(),
        value: new.value.dump_ascii(),
        amount: amount(&new.value),
        error: new.error.map(|error| error.dump_ascii()),
        source_type: new.source_type,
        source_id: new.source_id,
        run_id: of(SOURCE_RUN).and_then(Tree::as_text).map(str::to_owned),
        span_id: new.span_id,
        rationale: new.rationale,
        overrides: new.overrides,
        valid: true,
        of_session: of(SESSION).is_some(),
        metadata: written(new.metadata),
        created: new.created.unwrap_or(now),
        updated: new.updated.unwrap_or(now),
    })
}

async fn said(conn: &mut Conn, trace: &str, id: &str) -> Result<Assessment, TrackingError> {
    if let Some(one) = conn.assessment(trace, id).await? {
        return Ok(one);
    }
    if conn.trace(trace).await?.is_none() {
        return Err(TrackingError::missing(format!("Trace with request_id '{trace}' not found")));
    }
    Err(no_such(trace, id))
}

fn no_such(trace: &str, id: &str) -> TrackingError {
    TrackingError::missing(format!("Assessment with ID '{id}' not found for trace '{trace}'"))
}

fn changed(mut old: Assessment, update: AssessmentUpdate, now: Millis) -> Result<Assessment, TrackingError> {
    let refuse = |why: &str| Err(TrackingError::invalid(why));
    match (update.expectation, update.feedback) {
        (Some(_), Some(_)) => return refuse("Cannot specify both `expectation` and `feedback` parameters."),
        (Some(_), None) if old.kind != "expectation" => {
            return refuse("Cannot update expectation value on a Feedback assessment.");
        }
        (None, Some(_)) if old.kind != "feedback" => {
            return refuse("Cannot update feedback value on an Expectation assessment.");
        }
        (Some(value), None) => old.value = value.dump_ascii(),
        (None, Some((value, error))) => {
            old.value = value.dump_ascii();
            old.error = error.map(|error| error.dump_ascii());
        }
        (None, None) => {}
    }
    old.amount = Tree::parse(&old.value).as_ref().and_then(amount);
    old.name = update.name.unwrap_or(old.name);
    if old.kind != "expectation" {
        old.rationale = update.rationale.or(old.rationale);
    }
    if !update.metadata.is_empty() {
        let mut metadata = match old.metadata.as_deref().and_then(Tree::parse) {
            Some(Tree::Map(pairs)) => pairs,
            _ => Vec::new(),
        };
        for (key, value) in update.metadata {
            metadata.retain(|(known, _)| *known != key);
            metadata.push((key, value));
        }
        old.of_session = metadata.iter().any(|(key, _)| key == SESSION);
        old.metadata = written(metadata);
    }
    old.updated = now;
    Ok(old)
}

impl Tracking {
    /// Notes what somebody says about a trace. Where it takes the place of something else, that no longer counts.
    ///
    /// # Errors
    /// Where there is no such trace, or nothing of which it could take the place.
    pub async fn create_assessment(
        &self,
        actor: &Actor,
        trace: &str,
        new: NewAssessment,
    ) -> Result<Assessment, TrackingError> {
        may_track(actor)?;
        let row = row(trace, new, self.new_id(), self.clock.now_ms())?;
        self.write(move |tx| {
            Box::pin(async move {
                let trace = found(tx, &row.trace_id).await?.trace_id;
                if let Some(other) = &row.overrides
                    && !tx.set_assessment_valid(&trace, other, false).await?
                {
                    return Err(no_such(&trace, other));
                }
                tx.put_assessment(&row).await?;
                Ok(row)
            })
        })
        .await
    }

    /// Something that was said about a trace.
    ///
    /// # Errors
    /// Where there is no such thing.
    pub async fn assessment(
        &self,
        actor: &Actor,
        trace: &str,
        id: &str,
    ) -> Result<Assessment, TrackingError> {
        may_read(actor)?;
        let (trace, id) = (trace.to_owned(), id.to_owned());
        self.read(move |conn| Box::pin(async move { said(conn, &trace, &id).await })).await
    }

    /// Changes something that was said.
    ///
    /// # Errors
    /// Where there is no such thing, or it is of another kind.
    pub async fn update_assessment(
        &self,
        actor: &Actor,
        trace: &str,
        id: &str,
        update: AssessmentUpdate,
    ) -> Result<Assessment, TrackingError> {
        may_track(actor)?;
        let (trace, id, now) = (trace.to_owned(), id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let row = changed(said(tx, &trace, &id).await?, update, now)?;
                tx.put_assessment(&row).await?;
                Ok(row)
            })
        })
        .await
    }

    /// Deletes something that was said; what it took the place of counts again. Nothing happens where there is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn delete_assessment(&self, actor: &Actor, trace: &str, id: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (trace, id) = (trace.to_owned(), id.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let Some(old) = tx.assessment(&trace, &id).await? else { return Ok(()) };
                if let Some(other) = &old.overrides {
                    tx.set_assessment_valid(&trace, other, true).await?;
                }
                Ok(tx.delete_assessment(&trace, &id).await?)
            })
        })
        .await
    }
}
