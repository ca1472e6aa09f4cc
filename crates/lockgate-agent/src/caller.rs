//! Calls a worker directly, over one kept connection, as gates do.

use crate::AgentError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use lockgate_core::route::WorkerAddress;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// How long one answer may take when a gate asks.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One connection to one worker.
#[derive(Debug)]
pub(crate) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// A worker's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) nonfinite: u64,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The error's words, where the answer is one.
    pub(crate) fn words(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = value["error"].as_str().or(value["message"].as_str());
        text.map_or_else(|| String::from_utf8_lossy(&self.body).chars().take(200).collect(), str::to_owned)
    }
}

impl Caller {
    pub(crate) async fn open(address: &WorkerAddress) -> Result<Self, AgentError> {
        let failed =
            |e: std::io::Error| AgentError::Worker(format!("the worker does not take connections: {e}"));
        let shaken = |e: hyper::Error| AgentError::Worker(format!("the worker does not answer: {e}"));
        let sender = match address {
            WorkerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(shaken)?;
                tokio::spawn(connection);
                sender
            }
            WorkerAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(shaken)?;
                tokio::spawn(connection);
                sender
            }
        };
        let host = match address {
            WorkerAddress::Unix(_) => "worker".to_owned(),
            WorkerAddress::Tcp(host) => host.clone(),
        };
        Ok(Self { sender, host })
    }

    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        self.ask("POST", path, body).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply, AgentError> {
        self.ask("GET", path, Bytes::new()).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        let lost = |what: String| AgentError::Worker(format!("the worker did not answer: {what}"));
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| lost(e.to_string()))?;
        let answer = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let header = response.headers().get("x-lockgate-nonfinite");
            let nonfinite = header.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()).unwrap_or(0);
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Reply { status, nonfinite, body })
        };
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(e)) => Err(lost(e.to_string())),
            Err(_) => Err(lost(format!("nothing came within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }
}
