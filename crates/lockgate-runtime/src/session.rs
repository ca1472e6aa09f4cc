//! Load and run graphs. The only module that knows `ort`.

use crate::graph::{GraphError, check_external_files};
use lockgate_wire::oip::InputSpec;
use lockgate_wire::{Data, Datatype, Tensor};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet, TensorElementType, ValueType};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Why a graph can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library can't be loaded.
    #[error("can't load ONNX Runtime from {}: {message}", .path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// The graph's file can't be read.
    #[error("can't read the model {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The graph names files that it may not read, or is no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// ONNX Runtime refuses the graph.
    #[error("ONNX Runtime can't load the model: {0}")]
    Runtime(String),
    /// An input or output has a type that can't be served.
    #[error("the model's {side} `{name}` has the type {kind}, which can't be served; {hint}")]
    Type {
        /// `input` or `output`.
        side: &'static str,
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Why a run gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The input can't be given to the model.
    #[error("{0}")]
    Input(String),
    /// The model failed. The text holds no paths.
    #[error("the model failed: {0}")]
    Model(String),
    /// The queue before the model is full.
    #[error("the model's queue is full; try again later")]
    Busy,
    /// It would take long, and there is no thread here that may wait for it.
    #[error("the model can't answer this here")]
    Elsewhere,
}

/// ONNX Runtime, loaded once in a process.
#[derive(Debug, Clone)]
pub struct Library(Environment);

impl Library {
    /// Loads the library, telemetry off. A process can do this once.
    ///
    /// # Errors
    /// Where the file is no ONNX Runtime, or one is loaded already.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let failed = |message: String| LoadError::Library { path: path.to_owned(), message };
        let builder = ort::init_from(path).map_err(|e| failed(e.to_string()))?;
        let environment = builder.with_name("lockgate").with_telemetry(false).build();
        environment.map(Self).map_err(|e| failed(e.to_string()))
    }

    /// The library of this process: loaded by the first call, whatever path a later one names.
    ///
    /// # Errors
    /// As [`Library::load`]; then the next call tries again.
    pub fn shared(path: &Path) -> Result<Self, LoadError> {
        static LOADED: Mutex<Option<Library>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*loaded {
            return Ok(library.clone());
        }
        let library = Self::load(path)?;
        *loaded = Some(library.clone());
        Ok(library)
    }
}

/// One loaded graph. A run needs it alone.
#[derive(Debug)]
pub struct Session {
    inner: ort::session::Session,
    inputs: Vec<InputSpec>,
    outputs: Vec<InputSpec>,
}

impl Session {
    /// Loads a graph: one thread, no spinning, no files outside the graph's folder.
    ///
    /// # Errors
    /// Where the graph can't be read, names files outside its folder, or holds types that can't be served.
    pub fn load(library: &Library, path: &Path) -> Result<Self, LoadError> {
        let bytes =
            std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let external = check_external_files(&bytes, folder)?;
        let runtime = |e: ort::Error| LoadError::Runtime(without_paths(e.message()));
        let mut builder = configure(&library.0).map_err(runtime)?;
        // The bytes that were checked are the bytes that are loaded, unless the data beside them are needed too.
        let inner = if external.is_empty() {
            builder.commit_from_memory(&bytes)
        } else {
            builder.commit_from_file(path)
        };
        let inner = inner.map_err(runtime)?;
        let inputs = specs(inner.inputs(), "input")?;
        let outputs = specs(inner.outputs(), "output")?;
        Ok(Self { inner, inputs, outputs })
    }

    /// The graph's inputs, in its order.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The graph's outputs, in its order.
    #[must_use]
    pub fn outputs(&self) -> &[InputSpec] {
        &self.outputs
    }

    /// Runs the graph on inputs by name.
    ///
    /// # Errors
    /// Where an input can't be given to the model, or the model fails.
    pub fn run(&mut self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let (name, shape, data) = tensor.into_parts();
            let value = to_value(shape, data).map_err(|e| RunError::Input(format!("{name}: {e}")))?;
            values.push((Cow::Owned(name), value.into()));
        }
        let failed = |e: ort::Error| RunError::Model(without_paths(e.message()));
        let answer = self.inner.run(values).map_err(failed)?;
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for (spec, value) in self.outputs.iter().zip(answer.values()) {
            let (shape, data) = extract(&value, spec.datatype).map_err(failed)?;
            let shape = shape.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
            let shape = shape
                .map_err(|_| RunError::Model(format!("the output `{}` has a negative axis", spec.name)))?;
            let tensor = Tensor::new(spec.name.clone(), shape, data);
            outputs.push(tensor.map_err(|e| RunError::Model(format!("the output `{}`: {e}", spec.name)))?);
        }
        Ok(outputs)
    }
}

fn configure(environment: &Environment) -> ort::Result<SessionBuilder> {
    Ok(ort::session::Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        // A failing run is told to the caller; a line in the log for each bad row would only fill it.
        .with_log_level(LogLevel::Fatal)?)
}

fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

fn specs(outlets: &[Outlet], side: &'static str) -> Result<Vec<InputSpec>, LoadError> {
    let mut found = Vec::with_capacity(outlets.len());
    for outlet in outlets {
        let refuse = |hint| LoadError::Type {
            side,
            name: outlet.name().to_owned(),
            kind: format!("{:?}", outlet.dtype()).chars().take(120).collect(),
            hint,
        };
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
            return Err(refuse(
                "export the model so that it gives tensors (skl2onnx: options={\"zipmap\": False})",
            ));
        };
        let datatype = datatype(*ty).ok_or_else(|| refuse("convert it to FP32 in the graph"))?;
        let shape = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
        found.push(InputSpec { name: outlet.name().to_owned(), datatype, shape });
    }
    Ok(found)
}

fn to_value(shape: Vec<usize>, data: Data) -> Result<DynValue, String> {
    use ort::value::Tensor as Value;
    match data {
        Data::Bool(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Uint8(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Uint16(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Uint32(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Uint64(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Int8(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Int16(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Int32(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Int64(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Fp16(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Bf16(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Fp32(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Fp64(v) => Value::from_array((shape, v)).map(Value::into_dyn),
        Data::Bytes(v) => {
            if v.iter().any(|text| text.contains('\0')) {
                return Err("a string holds the character NUL, which the model can't take".to_owned());
            }
            Value::from_string_array((shape, v.as_slice())).map(Value::into_dyn)
        }
    }
    .map_err(|e: ort::Error| without_paths(e.message()))
}

fn extract(value: &DynValue, datatype: Datatype) -> ort::Result<(Vec<i64>, Data)> {
    macro_rules! numbers {
        ($t:ty, $wrap:expr) => {{
            let (shape, values) = value.try_extract_tensor::<$t>()?;
            (shape.to_vec(), $wrap(values.to_vec()))
        }};
    }
    Ok(match datatype {
        Datatype::Bool => numbers!(bool, Data::Bool),
        Datatype::Uint8 => numbers!(u8, Data::Uint8),
        Datatype::Uint16 => numbers!(u16, Data::Uint16),
        Datatype::Uint32 => numbers!(u32, Data::Uint32),
        Datatype::Uint64 => numbers!(u64, Data::Uint64),
        Datatype::Int8 => numbers!(i8, Data::Int8),
        Datatype::Int16 => numbers!(i16, Data::Int16),
        Datatype::Int32 => numbers!(i32, Data::Int32),
        Datatype::Int64 => numbers!(i64, Data::Int64),
        Datatype::Fp16 => numbers!(half::f16, Data::Fp16),
        Datatype::Bf16 => numbers!(half::bf16, Data::Bf16),
        Datatype::Fp32 => numbers!(f32, Data::Fp32),
        Datatype::Fp64 => numbers!(f64, Data::Fp64),
        Datatype::Bytes => {
            let (shape, values) = value.try_extract_strings()?;
            (shape.to_vec(), Data::Bytes(values))
        }
    })
}

/// An error text without paths of this machine (or of the machine that built ONNX Runtime), and not too long.
pub(crate) fn without_paths(text: &str) -> String {
    let words =
        text.split_whitespace().filter(|w| !w.contains('/') && !w.contains("(const") && !w.contains("::"));
    words.collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_out_of_error_texts() {
        let text = "Status Message: /onnxruntime_src/core/gather.cc:117 onnxruntime::Prepare(const Tensor*) idx=9 must be within [-4,3]";
        assert_eq!(without_paths(text), "Status Message: Tensor*) idx=9 must be within [-4,3]");
    }
}
