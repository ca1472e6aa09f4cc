//! Sessions behind their queue, in this process.

use crate::common::release;
use lockgate_runtime::pool::Pool;
use lockgate_runtime::session::{Library, RunError, Session};
use lockgate_wire::{Data, Tensor};

const ROWS: usize = 1_000_000;

fn column() -> Vec<Tensor> {
    vec![Tensor::new("x", vec![ROWS, 1], Data::Fp32(vec![1.0; ROWS])).unwrap()]
}

/// The only test that may load the library: a process can do it once.
#[tokio::test]
async fn a_full_queue_is_said_at_once_and_what_was_taken_is_answered() {
    let release = release("log.onnx", &[]);
    let library = Library::load(&crate::common::library()).unwrap();
    assert!(Library::load(&crate::common::library()).is_err());
    let session = Session::load(&library, &release.path("model/model.onnx")).unwrap();
    let pool = Pool::new(vec![session], 1).unwrap();
    let inputs: Vec<_> = (0..12).map(|_| column()).collect();
    let answers = futures_util::future::join_all(inputs.into_iter().map(|i| pool.run(i, ROWS))).await;
    let busy = answers.iter().filter(|a| **a == Err(RunError::Busy)).count();
    let answered: Vec<_> = answers.iter().filter_map(|a| a.as_ref().ok()).collect();
    assert!(busy >= 1 && !answered.is_empty() && busy + answered.len() == 12, "{busy} busy");
    assert!(answered.iter().all(|(outputs, _)| outputs[0].data() == &Data::Fp32(vec![0.0; ROWS])));
    assert!(pool.run(column(), ROWS).await.is_ok(), "and it takes work again");
}
