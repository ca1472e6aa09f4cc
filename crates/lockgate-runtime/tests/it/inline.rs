//! A model in this process answers as its worker does.

use crate::common::{Client, release, socket};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request};
use lockgate_core::release::Runtime;
use lockgate_core::schema::ColumnType::Double;
use lockgate_core::server::{HttpServer, Server, ServerProtocol};
use lockgate_runtime::WorkerError;
use lockgate_runtime::worker::{Inline, InlineOptions, header};
use std::time::Duration;

const ROW: &str = r#"{"dataframe_split":{"columns":["a","b","c","d"],"data":[[1,3,1,-2]]}}"#;

fn all_but_time(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::INFER_US, "content-length", "date"] {
        headers.remove(name);
    }
    headers
}

#[tokio::test]
async fn its_answers_and_refusals_are_the_worker_s() {
    let release = release("logreg.onnx", &[("a", Double), ("b", Double), ("c", Double), ("d", Double)]);
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let options = InlineOptions {
        model_dir: release.path("model"),
        manifest: release.manifest.clone(),
        library: crate::common::library(),
        copies: 2,
        example: Some(ROW.into()),
    };
    let (inline, p99) = Inline::load(&options).unwrap();
    assert!(p99 > Duration::ZERO && p99 < Duration::from_millis(50), "{p99:?}");
    let tensor = |n: usize| {
        let data = vec!["1.5"; n * 4].join(",");
        format!(r#"{{"inputs":[{{"name":"features","shape":[{n},4],"datatype":"FP32","data":[{data}]}}]}}"#)
    };
    let oip = "/v2/models/delay/infer";
    let asked = [
        (oip, tensor(1)),
        (oip, tensor(3)),
        (oip, tensor(1).replace("FP32", "INT8")),
        (oip, tensor(1).replace("[1,4]", "[2,4]")),
        (oip, "{".to_owned()),
        ("/v2/models/delay/versions/8/infer", tensor(1)),
        ("/invocations", ROW.to_owned()),
        ("/invocations", "[]".to_owned()),
        ("/v1/models/delay:predict", r#"{"instances":[[1,2,3,4]]}"#.to_owned()),
        ("/v1/models/delay:predict", r#"{"instances":[[1]]}"#.to_owned()),
    ];
    for (path, body) in asked {
        let request = || {
            let request = Request::post(path).header("content-type", "application/json");
            request.body(Full::from(body.clone())).unwrap()
        };
        let theirs = client.send(request()).await.unwrap();
        let (ours, busy) = inline.answer(request()).await.unwrap();
        assert!(busy > Duration::ZERO);
        let (head, ours) = (ours.clone().into_parts().0, ours.collect().await.unwrap().to_bytes());
        assert_eq!((head.status, &ours), (theirs.status, &theirs.body), "{path} {body}");
        assert_eq!(all_but_time(head.headers), all_but_time(theirs.headers), "{path} {body}");
    }
    // What would take long, by what a row takes, is not for this lane.
    let many = Request::post(oip).body(Full::from(tensor(30_000))).unwrap();
    assert!(inline.answer(many).await.is_none());
    // A second model in the same process, measured without an example.
    Inline::load(&InlineOptions { example: None, ..options.clone() }).unwrap();
    worker.stop(Duration::from_secs(5)).await;
}

#[test]
fn only_what_the_manifest_lists_is_loaded_and_only_native_releases_are() {
    let mut release = release("logreg.onnx", &[("a", Double), ("b", Double), ("c", Double), ("d", Double)]);
    let options = |release: &crate::common::Release| InlineOptions {
        model_dir: release.path("model"),
        manifest: release.manifest.clone(),
        library: crate::common::library(),
        copies: 1,
        example: None,
    };
    std::fs::write(release.path("model/model.onnx"), b"another").unwrap();
    assert!(matches!(Inline::load(&options(&release)), Err(WorkerError::Digest { .. })));
    let server = Server {
        protocol: ServerProtocol::Oip,
        model: "delay".to_owned(),
        version: None,
        health: None,
        stream_ms: 1,
    };
    let addresses = vec!["http://host:1".to_owned()];
    release.manifest.runtime = Runtime::Http(Box::new(HttpServer { server, addresses }));
    assert!(matches!(Inline::load(&options(&release)), Err(WorkerError::NotNative)));
}
