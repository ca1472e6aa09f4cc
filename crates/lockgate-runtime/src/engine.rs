//! What runs a worker's model: graphs in this process, or Python beside it.

use crate::pool::{Answer, Pool};
use crate::session::RunError;
use crate::shim::queue::Queue;
use lockgate_wire::Tensor;

/// One loaded model, whatever runs it.
#[derive(Debug)]
pub enum Engine {
    /// ONNX Runtime.
    Onnx(Pool),
    /// Python.
    Python(Queue),
}

impl Engine {
    /// Runs the model.
    ///
    /// # Errors
    /// Where too many wait, an input can't be given to the model, or the model fails.
    pub async fn run(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        match self {
            Self::Onnx(pool) => pool.run(tensors, rows).await,
            Self::Python(queue) => queue.run(tensors, rows).await,
        }
    }

    /// Runs the model and blocks this thread until it has answered.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_here(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        match self {
            Self::Onnx(pool) => pool.run_here(tensors, rows),
            Self::Python(queue) => queue.run_here(tensors, rows),
        }
    }

    /// Finds out whether requests may be put together, where they would be.
    ///
    /// # Errors
    /// Where the model fails.
    pub fn try_batching(&self, tensors: Vec<Tensor>, rows: usize) -> Result<(), RunError> {
        match self {
            Self::Onnx(_) => Ok(()),
            Self::Python(queue) => queue.try_batching(tensors, rows),
        }
    }

    /// Whether the model has stopped answering.
    #[must_use]
    pub fn hangs(&self) -> bool {
        matches!(self, Self::Python(queue) if queue.hangs())
    }

    /// Waits until the model is lost, and says how. One that runs in this process is never lost without it.
    pub async fn lost(&self) -> String {
        match self {
            Self::Onnx(_) => std::future::pending().await,
            Self::Python(queue) => queue.lost().await,
        }
    }
}
