//! TensorFlow Serving's REST API, for this worker's model.

use super::answer::{Dialect, Reply, Written, failed, inferred, json, refused};
use super::body::{self, Payload};
use super::infer::{not_run, rows};
use super::model::Model;
use super::route::wrong_method;
use hyper::{Method, Request, StatusCode};
use lockgate_wire::tensor::shown;
use lockgate_wire::tfs::{
    Form, Pick, Predict, Served, TfsPath, TfsVerb, examples, metadata, status, write_classes, write_outputs,
    write_regressions, write_rows,
};
use lockgate_wire::{Tensor, WireError};

/// Answers a path below `/v1/models/`.
pub(super) async fn answer<B: Payload>(model: &Model, ready: bool, request: Request<B>) -> Reply {
    let verb = match of_model(model, request.uri().path()) {
        Ok(verb) => verb,
        Err(message) => return failed(StatusCode::NOT_FOUND, &message, Dialect::Oip),
    };
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match verb {
        TfsVerb::Status | TfsVerb::Metadata if !get => wrong_method("GET", Dialect::Oip),
        TfsVerb::Status => {
            let version = model.version.parse().unwrap_or_default();
            json(StatusCode::OK, status(&model.name, &[Served { version, ready }]))
        }
        TfsVerb::Metadata => {
            let body = metadata(&model.name, &model.version, model.plan.inputs(), &model.outputs);
            json(StatusCode::OK, body)
        }
        _ if request.method() != Method::POST => wrong_method("POST", Dialect::Oip),
        verb => infer(model, verb, request).await,
    }
}

/// What a path asks of this worker's model; a sentence where it is another one's. Labels mean something to a gateway alone.
fn of_model(model: &Model, path: &str) -> Result<TfsVerb, String> {
    let asked = TfsPath::parse(path)?;
    let (name, here) = (&model.name, &model.version);
    if asked.model != *name {
        return Err(format!("there is no model `{}` here; this worker serves `{name}`", shown(&asked.model)));
    }
    match asked.pick {
        Pick::Any => Ok(asked.verb),
        Pick::Version(version) if version.to_string() == *here => Ok(asked.verb),
        Pick::Version(version) => {
            Err(format!("model `{name}` has no version `{version}` here; this worker serves version {here}"))
        }
        Pick::Label(label) => Err(format!("model `{name}` has no label `{}` here", shown(&label))),
    }
}

async fn infer<B: Payload>(model: &Model, verb: TfsVerb, request: Request<B>) -> Reply {
    let refuse = |e: WireError| refused(&e, Dialect::Oip);
    let liked = body::liked(request.headers());
    let body = match body::read(request, model.max_body).await {
        Ok(body) => body,
        Err(error) => return refuse(error),
    };
    let parsed = match verb {
        TfsVerb::Predict => Predict::parse(&body, &model.limits).map(|p| (p.payload, p.form)),
        _ => examples(&body, &model.limits).map(|payload| (payload, Form::Rows)),
    };
    let parsed = parsed.and_then(|(payload, form)| Ok((model.plan.tensors(&payload)?, form)));
    let (inputs, form) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(error),
    };
    let rows = rows(&inputs);
    match model.pool.run(inputs, rows).await {
        Ok((outputs, took)) => match write(verb, form, &outputs) {
            Ok(body) => body::pack(inferred(Written::Json(body), rows, &outputs, took), liked).await,
            Err(error) => refuse(error),
        },
        Err(error) => not_run(&error, Dialect::Oip),
    }
}

fn write(verb: TfsVerb, form: Form, outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    match (verb, form) {
        (TfsVerb::Classify, _) => write_classes(outputs),
        (TfsVerb::Regress, _) => write_regressions(outputs),
        (_, Form::Columns) => write_outputs(outputs),
        (_, Form::Rows) => write_rows(outputs),
    }
}
