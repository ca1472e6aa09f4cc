//! `ModelInfer` and `ModelStreamInfer`.

use super::frame::{self, Messages, framed};
use super::message::{self, StreamAnswer};
use super::status::{self, Status};
use crate::answer::Reply;
use crate::attempt::Payload;
use crate::body::{Fed, Stream};
use crate::log::Protocol;
use crate::predict::{self, Target};
use crate::reactor::{self, Reactor};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request};
use lockgate_wire::oip::grpc::{INFER_PATH, model_of};
use lockgate_wire::tensor::shown;
use prost::Message as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task::spawn_local;

/// Answers of a stream that wait for the client to take them.
const WAITING: usize = 4;

/// The largest answer that is read for an error's sentence.
const WORDS_MAX: usize = 1 << 20;

/// One call, one answer.
pub(super) async fn unary(reactor: &Rc<Reactor>, headers: &HeaderMap, message: Bytes) -> Reply {
    let reply = match ask(reactor, headers, message).await {
        Ok(reply) => reply,
        Err(status) => return status.reply(),
    };
    let (parts, body) = reply.into_parts();
    let mut reply = if parts.status.is_success() {
        frame::of_body(body).unwrap_or_else(|status| status.reply())
    } else {
        Status::of_http(parts.status, words(body).await).reply()
    };
    // Whose answer it is goes into the metadata, also of an error.
    let ours = parts.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-"));
    ours.for_each(|(name, value)| drop(reply.headers_mut().insert(name.clone(), value.clone())));
    reply
}

/// The worker's answer to a message, or an error of the gateway's, in HTTP.
async fn ask(reactor: &Rc<Reactor>, headers: &HeaderMap, message: Bytes) -> Result<Reply, Status> {
    let (model, version) = model_of(&message).map_err(|e| Status::of_wire(&e))?;
    let version = Some(version).filter(|v| !v.is_empty()).map(|text| text.parse::<u64>().map_err(|_| text));
    let version = version.transpose().map_err(|text| {
        Status::not_found(format!("`{}` is no model version; versions are whole numbers", shown(text)))
    })?;
    let mut headers = headers.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    headers.remove(CONTENT_ENCODING);
    headers.remove(ACCEPT_ENCODING);
    let path = PathAndQuery::from_static(INFER_PATH);
    let target = Target { model: model.to_owned(), version, path, protocol: Protocol::Grpc };
    Ok(predict::forward(reactor, target, Method::POST, &headers, Payload::Whole(message)).await)
}

/// An error's sentence.
async fn words(body: Stream) -> String {
    let bytes = Limited::new(body, WORDS_MAX).collect().await;
    let bytes = bytes.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    value["error"].as_str().map_or_else(|| "the model gave no answer".to_owned(), str::to_owned)
}

/// A call that sends messages one after the other, each answered by one.
pub(super) fn stream(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let encoding = match frame::encoding(&parts.headers) {
        Ok(encoding) => encoding,
        Err(status) => return status.reply(),
    };
    let limit = match frame::timeout(&parts.headers) {
        // Without one its messages have limits of their own.
        Ok(limit) => limit.unwrap_or(Duration::MAX),
        Err(status) => return status.reply(),
    };
    let (answers, feed) = mpsc::channel(WAITING);
    let messages = Messages::of(reactor, body, encoding);
    let reactor = Rc::clone(reactor);
    spawn_local(async move {
        let work = answer_all(&reactor, &parts.headers, messages, &answers);
        let ended = tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Status::late()));
        let mut trailers = status::ok();
        if let Err(status) = ended {
            status.put(&mut trailers);
        }
        // One that takes nothing sees the call break off.
        let _ = answers.send_timeout(Fed::End(trailers), reactor.options.body_timeout).await;
    });
    frame::of_frames(Stream::fed(feed))
}

async fn answer_all(
    reactor: &Rc<Reactor>,
    headers: &HeaderMap,
    mut messages: Messages,
    answers: &mpsc::Sender<Fed>,
) -> Result<(), Status> {
    let mut stopping = reactor.stopping.subscribe();
    loop {
        // What was asked is answered; only who waits for more is told to go elsewhere.
        let message = tokio::select! {
            message = messages.next() => message?,
            () = reactor::over(&mut stopping) => {
                return Err(Status { code: 14, message: "the gateway stops".to_owned() });
            }
        };
        let Some(message) = message else { return Ok(()) };
        let answer = match ask(reactor, headers, message).await {
            Ok(reply) => one(reply).await?,
            Err(status) => failed(status.message),
        };
        match answers.send_timeout(Fed::Piece(answer), reactor.options.body_timeout).await {
            Ok(()) => {}
            Err(SendTimeoutError::Closed(_)) => return Ok(()),
            Err(SendTimeoutError::Timeout(_)) => {
                return Err(Status::deadline("the answers were not taken in time"));
            }
        }
    }
}

async fn one(reply: Reply) -> Result<Bytes, Status> {
    let (parts, body) = reply.into_parts();
    if !parts.status.is_success() {
        return Ok(failed(words(body).await));
    }
    let broken = |_| Status::internal("the model's answer broke off");
    let bytes = body.collect().await.map_err(broken)?.to_bytes();
    Ok(framed(&message::stream_answer(&bytes)))
}

fn failed(message: String) -> Bytes {
    framed(&StreamAnswer { error_message: message }.encode_to_vec())
}
