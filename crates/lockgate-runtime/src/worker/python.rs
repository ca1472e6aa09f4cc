//! Loading a model that runs in Python.

use super::model::{Model, column};
use super::{WorkerError, WorkerOptions};
use crate::engine::Engine;
use crate::shim::queue::{Queue, QueueOptions};
use crate::shim::{Shim, ShimOptions};
use lockgate_core::release::Manifest;
use lockgate_wire::Limits;
use lockgate_wire::oip::{model_config, model_metadata};
use lockgate_wire::table::{ColumnSpec, Plan};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;

/// Verifies all files, for any of them may be code, and starts the shims.
pub(super) fn load(options: &WorkerOptions) -> Result<Model, WorkerError> {
    let manifest = &options.manifest;
    verify(manifest, &options.model_dir)?;
    let python = options.python.clone().ok_or(WorkerError::NoPython)?;
    let how = ShimOptions { python, model_dir: options.model_dir.clone() };
    let count = options.instances.clamp(1, 64);
    let shims = (0..count).map(|_| Shim::start(&how)).collect::<Result<Vec<_>, _>>()?;
    let (inputs, outputs) =
        shims.first().map(|(s, _)| (s.inputs().to_vec(), s.outputs().to_vec())).unwrap_or_default();
    let columns: Vec<ColumnSpec> = manifest.feature_schema.inputs.iter().map(column).collect();
    let plan = Plan::new(&columns, &inputs).map_err(WorkerError::Schema)?.with_missing_texts();
    let name = manifest.model.as_str().to_owned();
    let version = manifest.model_version.to_string();
    let metadata = model_metadata(&name, Some(&version), "mlflow_pyfunc", &inputs, &outputs).into();
    let config = model_config(&name, "mlflow_pyfunc", &inputs, &outputs).into();
    let queue = QueueOptions {
        waiting: options.queue,
        batch_rows: options.batch_rows,
        call_limit: options.call_limit,
    };
    let queue = Queue::new(shims, queue).map_err(WorkerError::io("can't start a thread for the model"))?;
    let (pool, limits) = (Engine::Python(queue), Limits::default());
    Ok(Model { name, version, plan, outputs, pool, metadata, config, limits, max_body: options.max_body })
}

fn verify(manifest: &Manifest, folder: &Path) -> Result<(), WorkerError> {
    for file in &manifest.files {
        let read = || format!("can't read the release's file `{}`", file.path);
        let found = sha256(&folder.join(&file.path)).map_err(WorkerError::io(read()))?;
        if found != file.sha256.hex() {
            let (path, expected) = (file.path.clone(), file.sha256.to_string());
            return Err(WorkerError::Digest { path, found: format!("sha256:{found}"), expected });
        }
    }
    Ok(())
}

/// Piece by piece: a model can be larger than what a worker may take.
fn sha256(path: &Path) -> std::io::Result<String> {
    let mut from = std::fs::File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}
