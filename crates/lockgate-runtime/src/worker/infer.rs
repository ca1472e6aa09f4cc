//! Inference requests in both dialects.

use super::answer::{Dialect, Reply, Written, failed, inferred, refused};
use super::body::{self, Payload};
use super::model::Model;
use crate::session::RunError;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use lockgate_wire::mlflow::{ContentType, Invocation, write_predictions};
use lockgate_wire::oip::binary::header_length;
use lockgate_wire::oip::grpc::{self, GrpcRequest};
use lockgate_wire::oip::{
    BINARY_HEADER, InferRequest, RequestedOutput, ResponseHead, write_binary_response, write_response,
};
use lockgate_wire::tensor::shown;
use lockgate_wire::{Tensor, WireError};

/// Marks an answer that says nothing but that somebody else has to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere;

/// `POST /v2/models/{m}/infer`.
pub(super) async fn oip<B: Payload>(model: &Model, request: Request<B>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Oip);
    let json = match json_length(&request) {
        Ok(json) => json,
        Err(error) => return refuse(error),
    };
    let liked = body::liked(request.headers());
    let body = match body::read(request, model.max_body).await {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    let parsed = match json {
        None => InferRequest::parse(&body, &model.limits),
        Some(0) => InferRequest::parse_raw(&body, model.plan.inputs()),
        Some(json) => InferRequest::parse_binary(&body, json, &model.limits),
    };
    drop(body);
    let asked = match parsed {
        Ok(asked) => asked,
        Err(error) => return refuse(error),
    };
    let reply = run(model, asked, |asked, outputs| {
        let is_binary = |t: &Tensor| asked.wants_binary(t.name());
        if outputs.iter().any(is_binary) {
            let (body, json) = write_binary_response(&head(model, asked), outputs, is_binary);
            return Written::Binary(body, json);
        }
        Written::Json(write_response(&head(model, asked), outputs))
    });
    body::pack(reply.await, liked).await
}

/// A `ModelInferRequest` as the body of an HTTP request, as a gateway sends it on.
pub(super) async fn message<B: Payload>(model: &Model, request: Request<B>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Oip);
    let body = match body::read(request, model.max_body).await {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    let asked = match GrpcRequest::parse(body, &model.limits) {
        Ok(asked) => asked,
        Err(error) => return refuse(error),
    };
    if let Err(message) = model.is_asked(&asked.model, Some(asked.version.as_str()).filter(|v| !v.is_empty()))
    {
        return failed(StatusCode::NOT_FOUND, &message, Dialect::Oip);
    }
    let GrpcRequest { raw, request, .. } = asked;
    let write = |asked: &InferRequest, outputs: &[Tensor]| {
        Written::Message(grpc::write_response(&head(model, asked), outputs, raw))
    };
    run(model, request, write).await
}

/// Runs a request of the Open Inference Protocol; `write` gives the outputs that it asks for their form.
pub(super) async fn run(
    model: &Model,
    asked: InferRequest,
    write: impl Fn(&InferRequest, &[Tensor]) -> Written,
) -> Reply {
    let mut asked = asked;
    let unknown = asked.outputs.iter().find(|o| !model.outputs.iter().any(|m| m.name == o.name));
    if let Some(unknown) = unknown {
        let message = format!("the model has no output `{}`", shown(&unknown.name));
        return refused(&WireError::bad(message).at("outputs"), Dialect::Oip);
    }
    let inputs = match model.plan.accept(std::mem::take(&mut asked.inputs)) {
        Ok(inputs) => inputs,
        Err(error) => return refused(&error, Dialect::Oip),
    };
    let rows = rows(&inputs);
    match model.pool.run(inputs, rows).await {
        Ok((outputs, took)) => {
            let outputs = if asked.outputs.is_empty() { Ok(outputs) } else { pick(outputs, &asked.outputs) };
            match outputs {
                Ok(outputs) => inferred(write(&asked, &outputs), rows, &outputs, took),
                Err(error) => not_run(&error, Dialect::Oip),
            }
        }
        Err(error) => not_run(&error, Dialect::Oip),
    }
}

fn head<'a>(model: &'a Model, asked: &'a InferRequest) -> ResponseHead<'a> {
    ResponseHead {
        model_name: &model.name,
        model_version: Some(&model.version),
        id: asked.id.as_deref(),
        parameters: &[],
    }
}

/// `POST /invocations`.
pub(super) async fn mlflow<B: Payload>(model: &Model, request: Request<B>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Mlflow);
    let header =
        request.headers().get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let kind = match ContentType::parse(header.as_deref()) {
        Ok(kind) => kind,
        Err(error) => return refuse(error),
    };
    let liked = body::liked(request.headers());
    let body = match body::read(request, model.max_body).await {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    let parsed = Invocation::parse(&body, kind, &model.limits).and_then(|i| model.plan.tensors(&i.payload));
    let inputs = match parsed {
        Ok(inputs) => inputs,
        Err(error) => return refuse(error),
    };
    let rows = rows(&inputs);
    match model.pool.run(inputs, rows).await {
        Ok((outputs, took)) => match write_predictions(&outputs) {
            Ok(body) => body::pack(inferred(Written::Json(body), rows, &outputs, took), liked).await,
            Err(error) => refuse(error),
        },
        Err(error) => not_run(&error, Dialect::Mlflow),
    }
}

/// How many rows inputs hold.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.iter().map(Tensor::rows).max().unwrap_or(0)
}

/// The outputs that were asked for, in the order of the request. A model in Python may say one thing and answer another.
fn pick(mut outputs: Vec<Tensor>, wanted: &[RequestedOutput]) -> Result<Vec<Tensor>, RunError> {
    let picked = wanted.iter().map(|w| {
        let at = outputs.iter().position(|t| t.name() == w.name);
        let missing = || RunError::Model(format!("its answer lacks the output `{}`", shown(&w.name)));
        at.map(|at| outputs.swap_remove(at)).ok_or_else(missing)
    });
    picked.collect()
}

pub(super) fn not_run(error: &RunError, dialect: Dialect) -> Reply {
    match error {
        RunError::Input(message) => refused(&WireError::bad(message.clone()), dialect),
        RunError::Model(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), dialect),
        RunError::Busy => {
            let mut reply = failed(StatusCode::TOO_MANY_REQUESTS, &error.to_string(), dialect);
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            reply
        }
        RunError::Elsewhere => {
            let mut reply = failed(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), dialect);
            reply.extensions_mut().insert(Elsewhere);
            reply
        }
    }
}

/// How much of the body is JSON, where other bytes follow it. Stock clients may send no Content-Type at all.
fn json_length<B: Payload>(request: &Request<B>) -> Result<Option<usize>, WireError> {
    let header = request.headers().get(BINARY_HEADER);
    let json = header.map(|value| header_length(value.as_bytes())).transpose()?;
    let Some(header) = request.headers().get(CONTENT_TYPE) else { return Ok(json) };
    let kind = header.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is = |wanted: &str| kind.eq_ignore_ascii_case(wanted);
    if is("application/json") || is("text/json") || (json.is_some() && is("application/octet-stream")) {
        return Ok(json);
    }
    let expected = if json.is_some() { "`application/octet-stream`" } else { "`application/json`" };
    let message = format!(
        "the Content-Type is `{}`; expected {expected}",
        shown(&String::from_utf8_lossy(header.as_bytes()))
    );
    Err(WireError::unsupported(message))
}
