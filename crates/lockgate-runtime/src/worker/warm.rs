//! Warm-up: rows that the model must answer before the worker is ready.

use super::model::Model;
use super::{WorkerError, infer};
use lockgate_wire::mlflow::{ContentType, Invocation};
use lockgate_wire::oip::InferRequest;
use std::path::Path;

/// How often the rows run: the first run allocates, the later ones tell the pool what a row costs.
const ROUNDS: usize = 4;

/// Runs the rows of a file through the model.
pub(super) fn warm_up(model: &Model, path: &Path) -> Result<(), WorkerError> {
    let failed = |message: String| WorkerError::WarmUp { path: path.to_owned(), message };
    let body = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    for round in 0..ROUNDS {
        let inputs = match InferRequest::parse(&body, &model.limits) {
            Ok(request) => model.plan.accept(request.inputs),
            Err(as_oip) => match Invocation::parse(&body, ContentType::Json, &model.limits) {
                Ok(invocation) => model.plan.tensors(&invocation.payload),
                Err(as_mlflow) => {
                    return Err(failed(format!(
                        "it is no inference request ({as_oip}) and no MLflow body ({as_mlflow})"
                    )));
                }
            },
        };
        let inputs = inputs.map_err(|e| failed(e.text()))?;
        let rows = infer::rows(&inputs);
        if round == 0 {
            model.pool.try_batching(inputs.clone(), rows).map_err(|e| failed(e.to_string()))?;
        }
        model.pool.run_here(inputs, rows).map_err(|e| failed(e.to_string()))?;
    }
    Ok(())
}
