//! Inference requests in both dialects.

use super::answer::{Dialect, Reply, failed, inferred, refused};
use super::model::Model;
use crate::session::RunError;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use lockgate_wire::mlflow::{ContentType, Invocation, write_predictions};
use lockgate_wire::oip::{BINARY_HEADER, InferRequest, ResponseHead, binary_refused, write_response};
use lockgate_wire::tensor::shown;
use lockgate_wire::{Tensor, WireError};
use std::time::Duration;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// `POST /v2/models/{m}/infer`.
pub(super) async fn oip(model: &Model, request: Request<Incoming>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Oip);
    if request.headers().contains_key(BINARY_HEADER) {
        return refuse(binary_refused());
    }
    if let Err(error) = json_or_none(&request) {
        return refuse(error);
    }
    let body = match read(request, model.max_body).await {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    let parsed = InferRequest::parse(&body, &model.limits).and_then(|request| {
        if let Some(unknown) = request.outputs.iter().find(|o| !model.outputs.iter().any(|m| m.name == **o)) {
            return Err(WireError::bad(format!("the model has no output `{}`", shown(unknown))).at("outputs"));
        }
        let inputs = model.plan.accept(request.inputs)?;
        Ok((inputs, request.id, request.outputs))
    });
    let (inputs, id, wanted) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(error),
    };
    let rows = rows(&inputs);
    match model.pool.run(inputs, rows).await {
        Ok((outputs, took)) => {
            let outputs = if wanted.is_empty() { outputs } else { pick(outputs, &wanted) };
            let head = ResponseHead {
                model_name: &model.name,
                model_version: Some(&model.version),
                id: id.as_deref(),
                parameters: &[],
            };
            inferred(write_response(&head, &outputs), rows, &outputs, took)
        }
        Err(error) => not_run(&error, Dialect::Oip),
    }
}

/// `POST /invocations`.
pub(super) async fn mlflow(model: &Model, request: Request<Incoming>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Mlflow);
    let header =
        request.headers().get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let kind = match ContentType::parse(header.as_deref()) {
        Ok(kind) => kind,
        Err(error) => return refuse(error),
    };
    let body = match read(request, model.max_body).await {
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
            Ok(body) => inferred(body, rows, &outputs, took),
            Err(error) => refuse(error),
        },
        Err(error) => not_run(&error, Dialect::Mlflow),
    }
}

/// How many rows inputs hold.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.iter().map(Tensor::rows).max().unwrap_or(0)
}

/// The outputs that were asked for, in the order of the request.
fn pick(outputs: Vec<Tensor>, wanted: &[String]) -> Vec<Tensor> {
    let mut outputs = outputs;
    wanted
        .iter()
        .filter_map(|w| outputs.iter().position(|t| t.name() == w).map(|i| outputs.swap_remove(i)))
        .collect()
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
    }
}

/// The Open Inference Protocol is JSON; its stock clients may send no Content-Type at all.
fn json_or_none(request: &Request<Incoming>) -> Result<(), WireError> {
    let Some(header) = request.headers().get(CONTENT_TYPE) else { return Ok(()) };
    let kind = header.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") || kind.eq_ignore_ascii_case("text/json") {
        return Ok(());
    }
    let message = format!(
        "the Content-Type is `{}`; expected `application/json`",
        shown(&String::from_utf8_lossy(header.as_bytes()))
    );
    Err(WireError::unsupported(message))
}

/// Reads a body within the limit of size and time.
pub(super) async fn read(request: Request<Incoming>, limit: usize) -> Result<Bytes, WireError> {
    let too_large = || WireError::too_large(format!("the body is larger than {limit} bytes"));
    let mut body = request.into_body();
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let collect = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| WireError::bad("the connection broke before the body was complete");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(too_large());
            }
            // Most bodies come in one piece, which is then not copied.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.reserve(usize::try_from(announced).unwrap_or(0).max(first.len() + data.len()));
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    match tokio::time::timeout(BODY_TIMEOUT, collect).await {
        Ok(outcome) => outcome,
        Err(_) => Err(WireError { status: 408, ..WireError::bad("the body didn't arrive in time") }),
    }
}
