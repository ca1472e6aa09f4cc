//! `traces/{id}/assessments…`: what is said about traces.

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::message::Message;
use crate::time::time;
use crate::wire::traces::assessment;
use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{AssessmentUpdate, NewAssessment, Tracking, Tree};
use serde_json::{Value, json};

const SOURCES: [&str; 3] = ["HUMAN", "LLM_JUDGE", "CODE"];
const UNKNOWN_SOURCE: &str = "SOURCE_TYPE_UNSPECIFIED";

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/traces/{id}/assessments", post(create))
        .route("/traces/{id}/assessments/{assessment}", get(by_id).patch(update).delete(remove))
}

/// A value of any kind; in protobuf's JSON all its numbers are floats.
fn plain(value: &Value) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Bool(*flag),
        Value::Number(number) => Tree::Real(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Tree::Text(text.clone()),
        Value::Array(items) => Tree::List(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            Tree::Map(fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
        }
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Feedback's value, and why there is none.
fn feedback(message: &Message) -> Result<(Tree, Option<Tree>), MlflowError> {
    let value = message.any("value")?.map_or(Tree::Null, plain);
    let error = match message.message("error")? {
        None => None,
        Some(error) => {
            let text = |name: &str| -> Result<(String, Tree), MlflowError> {
                let text = filled(error.text(name)?).map_or(Tree::Null, Tree::Text);
                Ok((name.to_owned(), text))
            };
            let code = ("error_code".to_owned(), Tree::Text(error.text_or_empty("error_code")?));
            Some(Tree::Map(vec![code, text("error_message")?, text("stack_trace")?]))
        }
    };
    Ok((value, error))
}

fn expectation(message: &Message) -> Result<Tree, MlflowError> {
    let Some(written) = message.message("serialized_value")? else {
        let value = message.any("value")?.map_or(Tree::Null, plain);
        return match value {
            Tree::Null => Err(MlflowError::invalid("The `value` field must be specified.")),
            value => Ok(value),
        };
    };
    let format = written.text_or_empty("serialization_format")?;
    if format != "JSON_FORMAT" {
        return Err(MlflowError::invalid(format!(
            "Unknown serialization format: {format}. Only JSON_FORMAT is supported."
        )));
    }
    let text = written.text_or_empty("value")?;
    Tree::parse(&text)
        .ok_or_else(|| MlflowError::invalid(format!("The expectation's value is no JSON: {text}")))
}

fn metadata(message: &Message) -> Result<Vec<(String, Tree)>, MlflowError> {
    Ok(message.map("metadata")?.into_iter().map(|pair| (pair.key, Tree::Text(pair.value))).collect())
}

/// An assessment as a client makes it.
pub(super) fn read(message: &Message) -> Result<NewAssessment, MlflowError> {
    let one = |name: &str| message.message(name);
    let (kind, value, error) = match (one("feedback")?, one("expectation")?, one("issue")?) {
        (Some(found), None, None) => {
            let (value, error) = feedback(&found)?;
            ("feedback", value, error)
        }
        (None, Some(found), None) => ("expectation", expectation(&found)?, None),
        (None, None, Some(found)) => {
            let name = Tree::Text(found.text_or_empty("issue_name")?);
            ("issue", Tree::Map(vec![("issue_name".to_owned(), name)]), None)
        }
        _ => {
            return Err(MlflowError::invalid(
                "Exactly one of `expectation`, `feedback`, or `issue` should be specified.",
            ));
        }
    };
    let source = one("source")?.unwrap_or_default();
    let times = |name: &str| message.text(name)?.map(|text| time(&text)).transpose();
    // MLflow takes reasons for expectations, but doesn't keep them.
    let rationale = filled(message.text("rationale")?).filter(|_| kind != "expectation");
    Ok(NewAssessment {
        assessment_id: filled(message.text("assessment_id")?),
        name: message.text_or_empty("assessment_name")?,
        kind,
        value,
        error,
        source_type: source
            .choice("source_type", &SOURCES, |name| name)?
            .unwrap_or(UNKNOWN_SOURCE)
            .to_owned(),
        source_id: filled(source.text("source_id")?),
        span_id: filled(message.text("span_id")?),
        rationale,
        overrides: filled(message.text("overrides")?).filter(|_| kind == "feedback"),
        metadata: metadata(message)?,
        created: times("create_time")?,
        updated: times("last_update_time")?,
    })
}

async fn create(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    let new = message.message("assessment")?.ok_or_else(|| message.missing("assessment"))?;
    let made = tracking.create_assessment(&actor, &id, read(&new)?).await?;
    Ok(Json(json!({"assessment": assessment(&made)})))
}

async fn by_id(Path((id, which)): Path<(String, String)>, Call { tracking, actor, .. }: Call) -> Answer {
    let found = tracking.assessment(&actor, &id, &which).await?;
    Ok(Json(json!({"assessment": assessment(&found)})))
}

/// The fields that a mask names: in one text as protobuf writes it, or in a list.
fn mask(message: &Message) -> Result<Vec<String>, MlflowError> {
    if message.any("update_mask")?.is_some_and(Value::is_object) {
        return message.message("update_mask")?.unwrap_or_default().texts("paths");
    }
    let text = message.required("update_mask")?;
    Ok(text.split(',').map(|path| path.trim().to_owned()).collect())
}

/// What is to be changed: the mask says which fields count.
fn changes(message: &Message) -> Result<AssessmentUpdate, MlflowError> {
    let new = message.message("assessment")?.ok_or_else(|| message.missing("assessment"))?;
    let mut update = AssessmentUpdate::default();
    for path in mask(message)? {
        match path.as_str() {
            "assessmentName" | "assessment_name" => update.name = Some(new.text_or_empty("assessment_name")?),
            "expectation" => {
                update.expectation = Some(expectation(&new.message("expectation")?.unwrap_or_default())?);
            }
            "feedback" => update.feedback = Some(feedback(&new.message("feedback")?.unwrap_or_default())?),
            "rationale" => update.rationale = Some(new.text_or_empty("rationale")?),
            "metadata" => update.metadata = metadata(&new)?,
            _ => {}
        }
    }
    Ok(update)
}

async fn update(
    Path((id, which)): Path<(String, String)>,
    Call { tracking, actor, message }: Call,
) -> Answer {
    let changed = tracking.update_assessment(&actor, &id, &which, changes(&message)?).await?;
    Ok(Json(json!({"assessment": assessment(&changed)})))
}

async fn remove(Path((id, which)): Path<(String, String)>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_assessment(&actor, &id, &which).await?;
    Ok(Json(json!({})))
}
