//! `POST /feedback`: what clients say of predictions afterwards. The gateway reads it, and hands it over to whoever keeps it: it
//! answers when that is done, and never makes a prediction wait for it.

use crate::answer::{self, Reply, failed, json, wrong_method};
use crate::body;
use crate::intake;
use crate::log::Protocol;
use crate::reactor::Reactor;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use lockgate_wire::feedback::{Feedback, Item, Wrong, parse};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where feedback goes.
pub(crate) const PATH: &str = "/feedback";

/// How many calls may wait for whoever keeps feedback.
pub const QUEUE: usize = 64;

/// The largest body. A thousand predictions with a few values each are a fifth of it.
const LARGEST: usize = 1 << 20;

/// How long a call waits until what it says is kept.
const WITHIN: Duration = Duration::from_secs(10);

/// Feedback on its way to whoever keeps it.
#[derive(Debug)]
pub struct FeedbackCall {
    /// What is said of each prediction.
    pub items: Vec<Item>,
    /// What became of each, in the same order.
    pub answer: oneshot::Sender<Vec<Told>>,
}

/// What became of what was said of one prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// In one word.
    pub status: TellStatus,
    /// In a sentence, where there is more to say.
    pub note: Option<String>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TellStatus {
    /// It is kept, durably.
    Recorded,
    /// All of it was said before.
    Known,
    /// There is no such prediction.
    Unknown,
    /// Something else was said before, and stands.
    Conflict,
    /// As much was said of this prediction as may be.
    TooMany,
    /// It could not be kept.
    Failed,
}

impl TellStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Conflict => "conflict",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Self::Recorded | Self::Known => StatusCode::OK,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooMany => StatusCode::BAD_REQUEST,
            Self::Failed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Answers one call.
pub(crate) async fn handle(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    if request.method() != Method::POST {
        return wrong_method("POST", Protocol::Oip);
    }
    if !may_speak(reactor, request.headers()) {
        body::discard(request.into_body());
        return unauthorized();
    }
    let refused = |status, message: &str| failed(status, message, Protocol::Oip);
    let body = match intake::whole(reactor, request.into_body(), LARGEST, too_large).await {
        Ok(body) => body,
        Err((status, message)) => return refused(status, &message),
    };
    let Feedback { many, items } = match parse(&body) {
        Ok(read) => read,
        Err(message) => return refused(StatusCode::BAD_REQUEST, &message),
    };
    let good: Vec<Item> = items.iter().filter_map(|item| item.as_ref().ok()).cloned().collect();
    let told = if good.is_empty() {
        Vec::new()
    } else {
        match tell(reactor, good).await {
            Ok(told) => told,
            Err(message) => return refused(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    };
    if many { several(&items, told) } else { one(items, told) }
}

fn may_speak(reactor: &Reactor, headers: &HeaderMap) -> bool {
    let shown = headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    reactor.options.feedback_tokens.as_ref().is_none_or(|tokens| tokens.authorize(shown))
}

fn unauthorized() -> Reply {
    let message =
        "feedback takes this environment's token here: send the header `authorization: Bearer TOKEN`";
    let mut reply = failed(StatusCode::UNAUTHORIZED, message, Protocol::Oip);
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"feedback\""));
    reply
}

fn too_large(most: usize) -> String {
    format!("feedback may be at most {most} bytes at once: send it in parts")
}

async fn tell(reactor: &Reactor, items: Vec<Item>) -> Result<Vec<Told>, &'static str> {
    let Some(keeper) = reactor.log.keeper() else { return Err("nobody keeps feedback here") };
    let (answer, told) = oneshot::channel();
    let count = items.len();
    if keeper.try_send(FeedbackCall { items, answer }).is_err() {
        return Err("too much feedback comes at once: nothing was kept; send it again in a moment");
    }
    const UNSURE: &str =
        "it is not known whether this was kept; send it again, which changes nothing if it was";
    match tokio::time::timeout(WITHIN, told).await {
        Ok(Ok(told)) if told.len() == count => Ok(told),
        _ => Err(UNSURE),
    }
}

/// The answer to one that was sent alone.
fn one(items: Vec<Result<Item, Wrong>>, told: Vec<Told>) -> Reply {
    match (items.into_iter().next(), told.into_iter().next()) {
        (Some(Ok(item)), Some(Told { status, note })) if status.http().is_success() => {
            json(status.http(), line(Some(&item.prediction), status.word(), note.as_deref()).to_string())
        }
        (Some(Ok(_)), Some(Told { status, note })) => {
            failed(status.http(), note.as_deref().unwrap_or(status.word()), Protocol::Oip)
        }
        (Some(Err(wrong)), _) => failed(StatusCode::BAD_REQUEST, &wrong.message, Protocol::Oip),
        _ => failed(StatusCode::SERVICE_UNAVAILABLE, "nothing became of it; send it again", Protocol::Oip),
    }
}

/// The answer to several: each by itself, in their order. Not a success unless all are kept, for most clients look no further;
/// to send all of it again changes nothing for those that are.
fn several(items: &[Result<Item, Wrong>], told: Vec<Told>) -> Reply {
    let mut told = told.into_iter();
    let mut status = StatusCode::OK;
    let mut kept = 0;
    let lines: Vec<Value> = items
        .iter()
        .map(|item| match item {
            Err(wrong) => {
                status = status.max(StatusCode::UNPROCESSABLE_ENTITY);
                line(wrong.prediction.as_deref(), "wrong", Some(&wrong.message))
            }
            Ok(item) => {
                let Told { status: word, note } =
                    told.next().unwrap_or(Told { status: TellStatus::Failed, note: None });
                let one = word.http();
                kept += usize::from(one.is_success());
                if one.is_server_error() {
                    status = status.max(one);
                } else if !one.is_success() {
                    status = status.max(StatusCode::UNPROCESSABLE_ENTITY);
                }
                line(Some(&item.prediction), word.word(), note.as_deref())
            }
        })
        .collect();
    let mut whole = json!({ "kept": kept, "refused": items.len() - kept, "results": lines });
    if !status.is_success() {
        whole["error"] =
            format!("{} of {} were not kept; see `results`", items.len() - kept, items.len()).into();
    }
    answer::json(status, whole.to_string())
}

fn line(prediction: Option<&str>, status: &str, note: Option<&str>) -> Value {
    let mut line = json!({ "prediction_id": prediction, "status": status });
    if let Some(note) = note {
        line["note"] = note.into();
    }
    line
}
