//! A worker's model without a worker's process: for a gateway that runs it in its own threads.
//!
//! It answers by the very functions by which a worker does, so the bytes are the same.

use super::infer::{self, Elsewhere};
use super::model::{self, Model};
use super::{WorkerError, route};
use crate::engine::Engine;
use crate::pool::{Pool, thread_time};
use crate::session::Library;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use lockgate_core::release::{Manifest, Runtime};
use lockgate_wire::mlflow::{ContentType, Invocation};
use lockgate_wire::oip::InputSpec;
use lockgate_wire::tensor::elements;
use lockgate_wire::{Data, Datatype, Tensor};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

/// The largest body that is read. Who asks sees to it that none is as large.
const MAX_BODY: usize = 1 << 20;

/// How often the example runs before it is measured: the first runs allocate.
const ROUNDS: usize = 20;

/// How often it is measured in each copy.
const MEASURED: usize = 100;

/// A row with more elements is no small model's.
const BLANK_MAX: usize = 1 << 16;

/// What there is to load.
#[derive(Debug, Clone)]
pub struct InlineOptions {
    /// The folder with the release's files.
    pub model_dir: PathBuf,
    /// The release. The graph's file must have the digest that it lists.
    pub manifest: Manifest,
    /// The ONNX Runtime library. A process loads one, once.
    pub library: PathBuf,
    /// How many threads may run the model at the same time, each with its own copy of it.
    pub copies: usize,
    /// One row that the model knows, as MLflow's JSON: what it takes is measured by it. Without one, by a row of zeros.
    pub example: Option<Bytes>,
}

/// One native release's model.
#[derive(Debug)]
pub struct Inline(Model);

impl Inline {
    /// Verifies the files against the manifest, loads the model, warms it up and measures it: the second number is the 99th
    /// percentile of the time that it keeps a thread busy for one row. This blocks its thread.
    ///
    /// # Errors
    /// As for a worker that can't start; or the release is not native.
    pub fn load(options: &InlineOptions) -> Result<(Self, Duration), WorkerError> {
        options.manifest.validate()?;
        let Runtime::Onnx { entry } = &options.manifest.runtime else { return Err(WorkerError::NotNative) };
        let path = model::checked(&options.manifest, &options.model_dir, entry)?;
        let library = Library::shared(&options.library)?;
        let sessions = model::sessions(&library, &path, options.copies)?;
        let make = |sessions| Ok(Pool::without_threads(sessions));
        let model = Model::of(&options.manifest, sessions, MAX_BODY, make)?;
        let p99 = measure(&model, options.example.as_ref())
            .map_err(|message| WorkerError::WarmUp { path: Path::new("one row").to_owned(), message })?;
        Ok((Self(model), p99))
    }

    /// Answers a request as the release's worker would, and says how long that kept the thread busy; none where a worker has to
    /// answer.
    pub async fn answer(&self, request: Request<Full<Bytes>>) -> Option<(Response<Full<Bytes>>, Duration)> {
        let mut work = pin!(route::answer(&self.0, true, request));
        let mut busy = Duration::ZERO;
        let reply = poll_fn(|context| {
            let before = thread_time();
            let polled = work.as_mut().poll(context);
            busy += thread_time().saturating_sub(before);
            polled
        });
        let reply = reply.await;
        reply.extensions().get::<Elsewhere>().is_none().then_some((reply, busy))
    }
}

/// The 99th percentile of the time that a thread is busy with the example.
fn measure(model: &Model, example: Option<&Bytes>) -> Result<Duration, String> {
    let Engine::Onnx(pool) = &model.pool else { return Err("the model is not native".to_owned()) };
    let inputs = match example {
        Some(example) => {
            let invocation = Invocation::parse(example, ContentType::Json, &model.limits);
            let inputs = invocation.and_then(|i| model.plan.tensors(&i.payload));
            inputs.map_err(|e| e.text())?
        }
        None => model.plan.inputs().iter().map(blank).collect::<Result<_, _>>()?,
    };
    let rows = infer::rows(&inputs);
    let mut times = Vec::with_capacity(MEASURED);
    for round in 0..ROUNDS + MEASURED {
        let before = thread_time();
        let copies = pool.run_all(&inputs, rows).map_err(|e| e.to_string())?;
        let each = thread_time().saturating_sub(before) / u32::try_from(copies).unwrap_or(1).max(1);
        if round >= ROUNDS {
            times.push(each);
        }
    }
    times.sort_unstable();
    times.get(MEASURED - 1 - MEASURED / 100).copied().ok_or_else(|| "nothing was measured".to_owned())
}

/// A row of zeros or empty texts for an input; an axis of any length has the length 1.
fn blank(input: &InputSpec) -> Result<Tensor, String> {
    let shape: Vec<usize> = input.shape.iter().map(|length| length.unwrap_or(1)).collect();
    let n = elements(&shape).filter(|n| *n <= BLANK_MAX).ok_or("one row of it is too large")?;
    let data = match input.datatype {
        Datatype::Bool => Data::Bool(vec![false; n]),
        Datatype::Uint8 => Data::Uint8(vec![0; n]),
        Datatype::Uint16 => Data::Uint16(vec![0; n]),
        Datatype::Uint32 => Data::Uint32(vec![0; n]),
        Datatype::Uint64 => Data::Uint64(vec![0; n]),
        Datatype::Int8 => Data::Int8(vec![0; n]),
        Datatype::Int16 => Data::Int16(vec![0; n]),
        Datatype::Int32 => Data::Int32(vec![0; n]),
        Datatype::Int64 => Data::Int64(vec![0; n]),
        Datatype::Fp16 => Data::Fp16(vec![half::f16::ZERO; n]),
        Datatype::Bf16 => Data::Bf16(vec![half::bf16::ZERO; n]),
        Datatype::Fp32 => Data::Fp32(vec![0.0; n]),
        Datatype::Fp64 => Data::Fp64(vec![0.0; n]),
        Datatype::Bytes => Data::Bytes(vec![String::new(); n]),
    };
    Tensor::new(input.name.clone(), shape, data).map_err(|e| e.to_string())
}
