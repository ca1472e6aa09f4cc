//! One shim: a Python process that has loaded the model, and the socket to it.

use super::frame::{self, FrameError, MAX_RAW};
use crate::session::RunError;
use lockgate_wire::Tensor;
use lockgate_wire::oip::InputSpec;
use serde_json::json;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the shim runs.
const SOURCE: &str = include_str!("../../../../python/shim.py");

/// Reads one frame from standard input, which is the socket, and runs what it holds. So no file has to lie where the model could
/// change it.
const START: &str = "\
import os, socket, struct
SOCKET = socket.socket(fileno=os.dup(0))
def read(n):
    b = b''
    while len(b) < n:
        more = SOCKET.recv(n - len(b))
        if not more:
            raise SystemExit(1)
        b += more
    return b
_, head, source = struct.unpack('<4sIQ', read(16))
OPTIONS = read(head)
exec(compile(read(source), '<lockgate>', 'exec'), {'__name__': '__main__', 'SOCKET': SOCKET, 'OPTIONS': OPTIONS})
";

/// Libraries that would start a thread for each core; a worker has as many as its environment's variables say, one if they say
/// nothing.
const THREADS: [&str; 4] =
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// How a shim is started.
#[derive(Debug, Clone)]
pub struct ShimOptions {
    /// The Python of the model's own environment.
    pub python: PathBuf,
    /// The folder with the model's files.
    pub model_dir: PathBuf,
}

/// Why a shim can't be had, or is lost.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// It can't be started.
    #[error("can't start {}: {source}", .python.display())]
    Start {
        /// The Python.
        python: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// MLflow can't load the model.
    #[error("the model can't be loaded: {0}")]
    Load(String),
    /// What it answers can't be understood, or it doesn't answer.
    #[error("the model's Python process is lost: {0}")]
    Lost(#[from] FrameError),
}

/// Why a call gave no outputs.
#[derive(Debug)]
pub(super) enum CallError {
    /// The model said no; the shim is well.
    Run(RunError),
    /// The shim is lost.
    Lost(FrameError),
}

/// A loaded model. A call needs it alone.
#[derive(Debug)]
pub struct Shim {
    socket: UnixStream,
    next: u64,
    inputs: Vec<InputSpec>,
    outputs: Vec<InputSpec>,
}

impl Shim {
    /// Starts Python and loads the model. The process comes beside it, to be waited for; it ends with this one.
    ///
    /// # Errors
    /// Where Python can't be started or the model not be loaded.
    pub fn start(options: &ShimOptions) -> Result<(Self, Child), ShimError> {
        let failed = |source| ShimError::Start { python: options.python.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = spawn(&options.python, theirs).map_err(failed)?;
        let said = json!({"model": options.model_dir, "parent": std::process::id(), "max_answer": MAX_RAW});
        let mut shim = Self { socket: ours, next: 1, inputs: Vec::new(), outputs: Vec::new() };
        let told = shim.socket.write_all(&frame::frame(&said, SOURCE.as_bytes()));
        told.map_err(|e| ShimError::Lost(e.into()))?;
        let (inputs, outputs) =
            frame::signature(&frame::read(&mut shim.socket)?)?.map_err(|e| ShimError::Load(e.to_string()))?;
        (shim.inputs, shim.outputs) = (inputs, outputs);
        Ok((shim, child))
    }

    /// The model's inputs, in the order of its signature.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The model's outputs as its signature names them.
    #[must_use]
    pub fn outputs(&self) -> &[InputSpec] {
        &self.outputs
    }

    /// Calls the model with the rows of one or more requests.
    pub(super) fn call(&mut self, requests: &[&[Tensor]]) -> Result<Vec<Tensor>, CallError> {
        let id = self.next;
        self.next += 1;
        let lost = |e: std::io::Error| CallError::Lost(e.into());
        self.socket.write_all(&frame::call(id, requests)).map_err(lost)?;
        let answer = frame::read(&mut self.socket).and_then(|frame| frame::answer(frame, id));
        answer.map_err(CallError::Lost)?.map_err(CallError::Run)
    }
}

/// What the model prints goes where this process's own errors go.
fn spawn(python: &Path, socket: UnixStream) -> std::io::Result<Child> {
    let log = std::io::stderr().as_fd().try_clone_to_owned()?;
    let mut command = Command::new(python);
    command.args(["-I", "-c", START]).stdin(OwnedFd::from(socket)).stdout(Stdio::from(log));
    for name in THREADS.iter().filter(|name| std::env::var_os(name).is_none()) {
        command.env(name, "1");
    }
    command.spawn()
}
