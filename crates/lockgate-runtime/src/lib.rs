//! Model workers: ONNX Runtime behind the inference protocols, as supervised child processes.
//!
//! | module | subject |
//! |---|---|
//! | [`library`] | find or install the ONNX Runtime library |
//! | [`graph`] | what a graph says about files outside itself |
//! | [`session`] | load and run graphs; the only module that knows `ort` |
//! | [`pool`] | several sessions behind one queue |
//! | [`shim`] | models that run in Python, beside this process |
//! | [`engine`] | either of them |
//! | [`worker`] | the worker: an HTTP server for one release's model |
//! | [`supervisor`] | start workers, watch them, start them again |

pub mod engine;
pub mod graph;
pub mod library;
pub mod pool;
pub mod session;
pub mod shim;
pub mod supervisor;
pub mod worker;

pub use supervisor::{Supervisor, WorkerSpec};
pub use worker::{WorkerError, WorkerOptions};
