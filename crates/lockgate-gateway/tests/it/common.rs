//! A gateway, workers of all kinds, and a small HTTP client.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lockgate_core::clock::{Clock, Entropy, Millis};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::plan::Testers;
use lockgate_core::preview::PreviewKey;
use lockgate_core::route::{ModelRoute, RouteTable, Shadow, Split, UnitSource, Variant, WorkerAddress};
use lockgate_gateway::{Deps, Gateway, GatewayOptions, LogRecord, LogSink};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

pub(crate) const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}"#;

pub(crate) struct Time(pub(crate) AtomicU64);

impl Clock for Time {
    fn now_ms(&self) -> Millis {
        1_700_000_000_000 + i64::try_from(self.0.fetch_add(1, Ordering::Relaxed)).unwrap()
    }
}

pub(crate) struct Bytes8(pub(crate) AtomicU64);

impl Entropy for Bytes8 {
    fn fill(&self, buf: &mut [u8]) {
        let seed = self.0.fetch_add(1, Ordering::Relaxed);
        buf.iter_mut().zip(seed.to_le_bytes().into_iter().cycle()).for_each(|(slot, byte)| *slot = byte);
    }
}

pub(crate) fn model() -> ModelName {
    ModelName::new("delay").unwrap()
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// What a worker that we play does with a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Behave {
    /// 200 with this body.
    Answer(String),
    /// 200 with an Open Inference Protocol answer that predicts this, and its hash as workers send it.
    Predict(String),
    /// The same for users; 503 where the request is mirrored.
    PredictOnce(String),
    /// 200 with as many bytes.
    Large(usize),
    /// This status.
    Status(u16),
    /// 200, and a header that says that numbers are not finite.
    Nonfinite,
    /// Nothing for so long, then 200.
    Slow(Duration),
    /// Nothing for a minute; 200 at once where the request is mirrored.
    HangUnlessMirrored,
    /// Closes the connection instead of answering.
    HangUp,
}

/// A worker that we play.
pub(crate) struct Worker {
    pub(crate) address: WorkerAddress,
    pub(crate) requests: Arc<AtomicUsize>,
    /// Requests among them that said that they are mirrored.
    pub(crate) mirrored: Arc<AtomicUsize>,
    pub(crate) behave: Arc<Mutex<Behave>>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(dir: &Path, name: &str, behave: Behave) -> Self {
        let path = dir.join(format!("{name}.sock"));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (requests, behave) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(behave)));
        let mirrored = Arc::new(AtomicUsize::new(0));
        let (count, how, name) = ([requests.clone(), mirrored.clone()], behave.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            // Connections end with the task, as those of a process do.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((io, _)) = listener.accept().await else { return };
                let (count, how, name) = (count.clone(), how.clone(), name.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (count, how, name) = (count.clone(), how.clone(), name.clone());
                        async move { answer(request, &count, &how, &name).await }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(io), service)
                        .await;
                });
            }
        });
        Self {
            address: WorkerAddress::Unix(path.to_str().unwrap().to_owned()),
            requests,
            mirrored,
            behave,
            task,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn now(&self, behave: Behave) {
        *self.behave.lock().unwrap() = behave;
    }

    /// Dies as a process does: all connections break, and nobody listens any more.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        if let WorkerAddress::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn predicted(name: &str, data: &str) -> String {
    format!("{{\"model_name\":\"{name}\",\"outputs\":[{{\"name\":\"y\",\"data\":[{data}]}}]}}")
}

async fn answer(
    request: Request<Incoming>,
    [count, mirrored]: &[Arc<AtomicUsize>; 2],
    how: &Mutex<Behave>,
    name: &str,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let is_mirrored = request.headers().get("x-lockgate-shadow").is_some();
    if is_mirrored {
        mirrored.fetch_add(1, Ordering::SeqCst);
    }
    let length = request.into_body().collect().await.map_or(0, |b| b.to_bytes().len());
    count.fetch_add(1, Ordering::SeqCst);
    let behave = how.lock().unwrap().clone();
    let reply = |status: u16, body: Bytes| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap()
    };
    Ok(match behave {
        Behave::Answer(text) => {
            let body = format!(
                "{{\"worker\":\"{name}\",\"path\":\"{path}\",\"length\":{length},\"said\":\"{text}\"}}"
            );
            reply(200, body.into())
        }
        Behave::PredictOnce(_) if is_mirrored => reply(503, Bytes::from_static(b"{\"error\":\"no\"}")),
        Behave::Predict(data) | Behave::PredictOnce(data) => {
            let mut response = reply(200, predicted(name, &data).into());
            let hash = format!("{:016x}", data.bytes().fold(7_u64, |h, b| h.wrapping_mul(31) + u64::from(b)));
            response.headers_mut().insert("x-lockgate-answer", hash.parse().unwrap());
            response
        }
        Behave::Large(size) => reply(200, vec![b' '; size].into()),
        Behave::Status(status) => reply(status, Bytes::from_static(b"{\"error\":\"no\"}")),
        Behave::Nonfinite => {
            let mut response = reply(200, Bytes::from_static(b"{\"p\":NaN}"));
            response.headers_mut().insert("x-lockgate-nonfinite", 1.into());
            response
        }
        Behave::Slow(time) => {
            tokio::time::sleep(time).await;
            reply(200, Bytes::from_static(b"{}"))
        }
        Behave::HangUnlessMirrored => {
            if !is_mirrored {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            reply(200, predicted(name, "1").into())
        }
        Behave::HangUp => return Err(std::io::Error::other("hung up")),
    })
}

pub(crate) fn variant(release: &str, version: u64, workers: &[&Worker]) -> Variant {
    Variant {
        release: digest(release),
        revision: digest(&format!("revision of {release}")),
        model_version: version,
        workers: workers.iter().map(|w| w.address.clone()).collect(),
        server: None,
    }
}

pub(crate) fn route(baseline: Option<Variant>) -> ModelRoute {
    let unit = Some(UnitSource::Header("x-unit".to_owned()));
    ModelRoute {
        baseline,
        split: None,
        backup: None,
        unit,
        timeout_ms: 500,
        testers: Testers::Nobody,
        inline: false,
    }
}

pub(crate) fn with_candidate(baseline: Option<Variant>, candidate: Variant, weight: u32) -> ModelRoute {
    let salt = "pr_1".to_owned();
    let split = Some(Split { salt, candidate, weight, counted: true, shadow: None, preview: false });
    ModelRoute { split, ..route(baseline) }
}

/// A candidate that requests are mirrored to, and whose answers nobody gets.
pub(crate) fn mirroring(baseline: Variant, candidate: Variant, share: u32) -> ModelRoute {
    let mut route = with_candidate(Some(baseline), candidate, 0);
    if let Some(split) = &mut route.split {
        split.shadow = Some(Shadow { share, tolerance: Some(0.05) });
    }
    route
}

/// A candidate that only testers reach.
pub(crate) fn previewing(baseline: Option<Variant>, candidate: Variant) -> ModelRoute {
    let mut route = with_candidate(baseline, candidate, 0);
    if let Some(split) = &mut route.split {
        split.preview = true;
    }
    ModelRoute { testers: Testers::Token, ..route }
}

pub(crate) fn table(epoch: u64, route: ModelRoute) -> RouteTable {
    RouteTable { epoch, models: BTreeMap::from([(model(), route)]) }
}

/// A gateway with what it recorded.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) records: Receiver<LogRecord>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn options() -> GatewayOptions {
    let mut options = GatewayOptions::new("127.0.0.1:0".parse().unwrap(), "production");
    options.threads = 2;
    options.hold = Duration::from_millis(300);
    options.warmup = Duration::ZERO;
    options.preview_key = Some(PreviewKey::new([7; 32]));
    options
}

pub(crate) fn start(options: GatewayOptions) -> World {
    let (log, records) = LogSink::channel(10_000);
    let deps = Deps {
        clock: Arc::new(Time(AtomicU64::new(0))),
        entropy: Arc::new(Bytes8(AtomicU64::new(1))),
        log,
        listener: None,
    };
    let gateway = Gateway::start(options, RouteTable::default(), deps).unwrap();
    gateway.open();
    World { gateway, records, dir: tempfile::tempdir().unwrap() }
}

impl World {
    pub(crate) async fn publish(&self, route: ModelRoute) {
        let epoch = self.gateway.applied_epoch() + 1;
        self.gateway.publish(table(epoch, route)).await.unwrap();
    }

    pub(crate) async fn client(&self) -> Client {
        let io = TcpStream::connect(self.gateway.local_addr()).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What a worker that [answers](Behave::Answer) said.
    pub(crate) fn said(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["said"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Got {
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Got {
        self.send(Request::get(path).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Got {
        self.send(Request::post(path).body(Full::new(body.into())).unwrap()).await
    }

    pub(crate) async fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Got {
        let request = headers.iter().fold(Request::post(path), |r, (name, value)| r.header(*name, *value));
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// A prediction with these headers.
    pub(crate) async fn with(&mut self, path: &str, headers: &[(&str, &str)]) -> Got {
        self.post_with(path, headers, BODY).await
    }

    /// A prediction for one unit.
    pub(crate) async fn infer(&mut self, unit: &str) -> Got {
        let request = Request::post("/v2/models/delay/infer")
            .header("x-unit", unit)
            .header("content-type", "application/json");
        self.send(request.body(Full::new(Bytes::from_static(BODY.as_bytes()))).unwrap()).await
    }
}
