//! What the tests of workers share: the library, releases from fixtures, a client.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lockgate_core::digest::Digest;
use lockgate_core::id::{ModelName, ProjectName};
use lockgate_core::release::{File, Manifest, Runtime};
use lockgate_core::route::WorkerAddress;
use lockgate_core::schema::{Column, ColumnType, FeatureSchema};
use lockgate_runtime::library::{InstallOptions, LocateOptions, install, locate};
use lockgate_runtime::{Supervisor, WorkerSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// The ONNX Runtime library: `LOCKGATE_ORT_LIB`, or one that the tests install once below the target folder.
pub(crate) fn library() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lockgate-home");
    let explicit = std::env::var_os("LOCKGATE_ORT_LIB").map(PathBuf::from);
    if let Ok(path) = locate(&LocateOptions { explicit, home: home.clone(), site_packages: vec![] }) {
        return path;
    }
    // Tests run in several processes: one installs, the others wait.
    std::fs::create_dir_all(&home).unwrap();
    let lock = std::fs::File::create(home.join("install.lock")).unwrap();
    lock.lock().unwrap();
    install(&InstallOptions { home, python: "python3".into() }, &mut |_| {}).unwrap()
}

/// A release in a folder of its own, made of one fixture.
pub(crate) struct Release {
    pub(crate) folder: TempDir,
    pub(crate) manifest: Manifest,
}

pub(crate) fn release(graph: &str, columns: &[(&str, ColumnType)]) -> Release {
    let folder = tempfile::Builder::new().prefix("lg").tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(graph);
    let bytes = std::fs::read(fixture).unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("model/model.onnx"), &bytes).unwrap();
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        kind: *kind,
        required: true,
        range: None,
    };
    let manifest = Manifest {
        v: 1,
        project: ProjectName::new("demo").unwrap(),
        model: ModelName::new("delay").unwrap(),
        model_version: 7,
        run_id: None,
        files: vec![File {
            path: "model.onnx".to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        }],
        code: None,
        data: vec![],
        params: BTreeMap::new(),
        feature_schema: FeatureSchema { inputs: columns.iter().map(column).collect(), outputs: vec![] },
        runtime: Runtime::Onnx { entry: "model.onnx".to_owned() },
        golden: None,
        optimised: None,
    };
    let release = Release { folder, manifest };
    release.save();
    release
}

impl Release {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the manifest.
    pub(crate) fn save(&self) {
        std::fs::write(self.path("manifest.json"), serde_json::to_vec(&self.manifest).unwrap()).unwrap();
    }

    /// How to start workers of this release.
    pub(crate) fn spec(&self, more: &[(&str, &str)]) -> WorkerSpec {
        let mut args = Vec::new();
        let library = library();
        for (name, path) in [
            ("--model-dir", self.path("model")),
            ("--manifest", self.path("manifest.json")),
            ("--library", library),
        ] {
            args.extend([name.into(), path.into_os_string()]);
        }
        more.iter().for_each(|(name, value)| args.extend([name.into(), value.into()]));
        let socket_dir = self.path("s");
        let mut spec = WorkerSpec::new(program(), args, socket_dir, self.path("log"), "w".to_owned());
        spec.pause = Duration::from_millis(20);
        spec.ready_within = Duration::from_secs(30);
        spec
    }

    /// Starts one worker and waits until it is ready.
    pub(crate) async fn serve(&self, more: &[(&str, &str)]) -> Supervisor {
        let supervisor = Supervisor::spawn(&self.spec(more), 1).unwrap();
        supervisor.ready(Duration::from_secs(30)).await.unwrap();
        supervisor
    }
}

/// The example program that is a worker, beside this test's own.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/onnx_worker")
}

pub(crate) fn socket(supervisor: &Supervisor) -> PathBuf {
    match &supervisor.addresses()[0] {
        WorkerAddress::Unix(path) => path.into(),
        WorkerAddress::Tcp(_) => unreachable!("supervised workers listen on Unix sockets"),
    }
}

/// One keep-alive connection.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(path: &Path) -> Self {
        let io = TokioIo::new(UnixStream::connect(path).await.unwrap());
        let (sender, connection) = handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        self.0.ready().await?;
        let answer: Response<_> = self.0.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Full::default()).unwrap()).await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub(crate) async fn infer(&mut self, body: impl Into<Bytes>) -> Answer {
        self.post("/v2/models/delay/infer", body).await
    }
}
