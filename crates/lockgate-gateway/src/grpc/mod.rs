//! gRPC: the Open Inference Protocol's service, with what Triton adds to it that clients ask for, and gRPC's own health check.
//!
//! A `ModelInfer` goes its way as any prediction does: the message, unpacked, is the body of a POST to the worker, so that
//! splits, retries, failover, counts and log are one. Here are only the framing, the trailers, and the other calls.

mod about;
mod config;
mod frame;
mod infer;
mod message;
mod status;

use crate::answer::Reply;
use crate::reactor::Reactor;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Version};
use status::Status;
use std::rc::Rc;
use std::time::Duration;

/// Whether a request is a call of gRPC.
pub(crate) fn is_call(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one call.
pub(crate) async fn call(reactor: Rc<Reactor>, request: Request<Incoming>) -> Reply {
    if request.method() != Method::POST {
        return Status::invalid("a call of gRPC is a POST").reply();
    }
    let path = request.uri().path().to_owned();
    if path == "/inference.GRPCInferenceService/ModelStreamInfer" {
        return infer::stream(&reactor, request);
    }
    let limit = match frame::timeout(request.headers()) {
        Ok(limit) => limit,
        Err(status) => return status.reply(),
    };
    let answer = unary(&reactor, &path, request);
    match limit {
        None => answer.await,
        Some(limit) => within(limit, answer).await,
    }
}

/// The answer, or that it took longer than the client waits.
async fn within(limit: Duration, answer: impl Future<Output = Reply>) -> Reply {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Status::late().reply())
}

async fn unary(reactor: &Rc<Reactor>, path: &str, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let message = match frame::only_message(reactor, &parts.headers, body).await {
        Ok(message) => message,
        Err(status) => return status.reply(),
    };
    if path == lockgate_wire::oip::grpc::INFER_PATH {
        return infer::unary(reactor, &parts.headers, message).await;
    }
    let answered = match path.strip_prefix("/inference.GRPCInferenceService/") {
        Some(method) => about::answer(reactor, &parts.headers, method, &message).await,
        None if path == "/grpc.health.v1.Health/Check" => about::health(reactor, &parts.headers, &message),
        None => Err(Status::unimplemented(path)),
    };
    match answered {
        Ok(message) => frame::message(message),
        Err(status) => status.reply(),
    }
}
