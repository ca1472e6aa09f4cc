//! The model that a worker serves, with everything that answers need.

use super::{WorkerError, WorkerOptions};
use crate::engine::Engine;
use crate::graph::check_external_files;
use crate::pool::Pool;
use crate::session::{Library, Session};
use bytes::Bytes;
use lockgate_core::digest::Digest;
use lockgate_core::release::{Manifest, Runtime};
use lockgate_core::schema::ColumnType;
use lockgate_wire::Limits;
use lockgate_wire::oip::{InputSpec, model_config, model_metadata};
use lockgate_wire::table::{ColumnKind, ColumnSpec, Plan};
use lockgate_wire::tensor::shown;
use std::path::{Path, PathBuf};

/// One loaded model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) plan: Plan,
    pub(super) outputs: Vec<InputSpec>,
    pub(super) pool: Engine,
    pub(super) metadata: Bytes,
    pub(super) config: Bytes,
    pub(super) limits: Limits,
    pub(super) max_body: usize,
}

impl Model {
    /// Verifies the files against the manifest, loads the model, and fits the feature schema to it.
    pub(super) fn load(options: &WorkerOptions) -> Result<Self, WorkerError> {
        options.manifest.validate()?;
        match &options.manifest.runtime {
            Runtime::Onnx { entry } => Self::onnx(options, entry),
            Runtime::Python { .. } => super::python::load(options),
            Runtime::Process(_) | Runtime::Http(_) => Err(WorkerError::Server),
        }
    }

    fn onnx(options: &WorkerOptions, entry: &str) -> Result<Self, WorkerError> {
        let path = checked(&options.manifest, &options.model_dir, entry)?;
        let library = Library::load(&options.library)?;
        let sessions = sessions(&library, &path, options.instances)?;
        let make = |sessions| Pool::new(sessions, options.queue);
        Self::of(&options.manifest, sessions, options.max_body, make)
    }

    /// A model of sessions, with the pool that is made of them.
    pub(super) fn of(
        manifest: &Manifest,
        sessions: Vec<Session>,
        max_body: usize,
        pool: impl FnOnce(Vec<Session>) -> std::io::Result<Pool>,
    ) -> Result<Self, WorkerError> {
        let (inputs, outputs) =
            sessions.first().map(|s| (s.inputs().to_vec(), s.outputs().to_vec())).unwrap_or_default();
        let columns: Vec<ColumnSpec> = manifest.feature_schema.inputs.iter().map(column).collect();
        let plan = Plan::new(&columns, &inputs).map_err(WorkerError::Schema)?;
        let name = manifest.model.as_str().to_owned();
        let version = manifest.model_version.to_string();
        let metadata = model_metadata(&name, Some(&version), "onnxruntime_onnx", &inputs, &outputs).into();
        let config = model_config(&name, "onnxruntime_onnx", &inputs, &outputs).into();
        let pool = pool(sessions).map_err(WorkerError::io("can't start a thread for the model"))?;
        let (pool, limits) = (Engine::Onnx(pool), Limits::default());
        Ok(Self { name, version, plan, outputs, pool, metadata, config, limits, max_body })
    }
}

/// The graph's file, once it and all that it names have the digests that the manifest lists.
pub(super) fn checked(manifest: &Manifest, folder: &Path, entry: &str) -> Result<PathBuf, WorkerError> {
    let path = folder.join(entry);
    let bytes = verified(manifest, folder, entry)?;
    check_external_files(&bytes, path.parent().unwrap_or(folder))?;
    for name in crate::graph::external_files(&bytes)? {
        let beside = Path::new(entry).parent().unwrap_or(Path::new("")).join(name);
        verified(manifest, folder, &beside.to_string_lossy())?;
    }
    Ok(path)
}

/// Copies of a graph, each for one caller at a time.
pub(super) fn sessions(library: &Library, path: &Path, count: usize) -> Result<Vec<Session>, WorkerError> {
    (0..count.clamp(1, 64)).map(|_| Ok(Session::load(library, path)?)).collect()
}

impl Model {
    /// Whether a request for this model and version is for this worker; a sentence where it is not.
    pub(super) fn is_asked(&self, model: &str, version: Option<&str>) -> Result<(), String> {
        let (name, here) = (&self.name, &self.version);
        if model != name {
            return Err(format!("there is no model `{}` here; this worker serves `{name}`", shown(model)));
        }
        match version {
            Some(version) if version != here => Err(format!(
                "model `{name}` has no version `{}` here; this worker serves version {here}",
                shown(version)
            )),
            _ => Ok(()),
        }
    }
}

pub(super) fn column(column: &lockgate_core::schema::Column) -> ColumnSpec {
    let kind = match column.kind {
        ColumnType::Boolean => ColumnKind::Boolean,
        ColumnType::Integer => ColumnKind::Integer,
        ColumnType::Long => ColumnKind::Long,
        ColumnType::Float => ColumnKind::Float,
        ColumnType::Double => ColumnKind::Double,
        ColumnType::String => ColumnKind::String,
        ColumnType::Datetime => ColumnKind::Datetime,
        ColumnType::Binary => ColumnKind::Binary,
    };
    ColumnSpec { name: column.name.clone(), kind, required: column.required }
}

/// Reads a file of the release and checks it against the manifest.
fn verified(manifest: &Manifest, folder: &Path, name: &str) -> Result<Vec<u8>, WorkerError> {
    let bytes = std::fs::read(folder.join(name))
        .map_err(WorkerError::io(format!("can't read the release's file `{name}`")))?;
    let found = Digest::of(&bytes);
    let listed = manifest.files.iter().find(|f| f.path == name).map(|f| f.sha256);
    if listed == Some(found) {
        return Ok(bytes);
    }
    let expected = listed.map_or_else(|| "nothing of it".to_owned(), |d| d.to_string());
    Err(WorkerError::Digest { path: name.to_owned(), found: found.to_string(), expected })
}
