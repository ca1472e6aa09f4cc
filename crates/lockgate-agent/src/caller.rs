//! Calls a worker directly, over one kept connection, as gates do. What a server that a team brings answers is looked at as the
//! gateway looks at it: a gate must not pass what users' traffic would roll back.

use crate::AgentError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use lockgate_core::route::WorkerAddress;
use lockgate_core::server::{Server, refused_peer};
use lockgate_gateway::examine;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// How long one answer may take when a gate asks.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const ANSWER_MAX: usize = 256 << 20;

/// How often a worker that is busy is asked again, and after how long at first; each pause is twice the one before.
const AGAIN: u32 = 6;
const PAUSE: Duration = Duration::from_millis(250);

/// Says that an answer was no answer for now.
const BUSY: [u16; 4] = [429, 502, 503, 504];

type Connection = SendRequest<Full<Bytes>>;

/// One connection to one worker.
#[derive(Debug)]
pub(crate) struct Caller {
    address: WorkerAddress,
    /// What it speaks, where it is a server that the team brings.
    server: Option<Server>,
    /// None where it has to be made anew.
    connection: Option<Connection>,
    /// How often it is asked again while it is busy.
    patience: u32,
}

/// A worker's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// What is wrong with it though its status may be good.
    fault: Option<String>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The error's words, where the answer is one.
    pub(crate) fn words(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text =
            value["error"].as_str().or(value["error"]["message"].as_str()).or(value["message"].as_str());
        text.map_or_else(|| String::from_utf8_lossy(&self.body).chars().take(200).collect(), str::to_owned)
    }

    /// Why it is no good answer; none where it is one.
    pub(crate) fn wrong(&self) -> Option<String> {
        match (self.status, &self.fault) {
            (200, fault) => fault.clone(),
            (status, _) => Some(format!("{status} {}", self.words())),
        }
    }

    fn is_busy(&self) -> bool {
        BUSY.contains(&self.status)
    }
}

impl Caller {
    pub(crate) async fn open(address: &WorkerAddress, server: Option<&Server>) -> Result<Self, AgentError> {
        let connection = Some(connect(address).await?);
        Ok(Self { address: address.clone(), server: server.cloned(), connection, patience: 0 })
    }

    /// The same, which asks a worker that is busy again, a few times: one refusal because of that says nothing of a release.
    pub(crate) fn patient(self) -> Self {
        Self { patience: AGAIN, ..self }
    }

    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        self.ask("POST", path, body).await
    }

    /// The same; where the worker says that it can't answer now, that is an error of its own.
    pub(crate) async fn post_unless_busy(&mut self, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        self.ask_unless_busy("POST", path, body).await
    }

    /// Asks for what a worker says of itself, unless it is busy.
    pub(crate) async fn get_unless_busy(&mut self, path: &str) -> Result<Reply, AgentError> {
        self.ask_unless_busy("GET", path, Bytes::new()).await
    }

    async fn ask_unless_busy(&mut self, method: &str, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        let mut pause = PAUSE;
        for _ in 0..self.patience {
            let reply = self.ask(method, path, body.clone()).await?;
            if !reply.is_busy() {
                return Ok(reply);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let reply = self.ask(method, path, body).await?;
        if reply.is_busy() {
            return Err(AgentError::Busy(format!("it answered with {} {}", reply.status, reply.words())));
        }
        Ok(reply)
    }

    async fn ask(&mut self, method: &str, path: &str, body: Bytes) -> Result<Reply, AgentError> {
        let host = match &self.address {
            WorkerAddress::Unix(_) => "worker",
            WorkerAddress::Tcp(host) => host,
        };
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-type", "application/json");
        if self.server.is_some() {
            request = request.header("accept-encoding", "identity");
        }
        let request = request.body(Full::new(body)).map_err(|e| lost(&e))?;
        // It comes back where the answer was read to its end.
        let mut connection = match self.connection.take().filter(|c| !c.is_closed()) {
            Some(kept) => kept,
            None => connect(&self.address).await?,
        };
        let head = async {
            connection.ready().await?;
            connection.send_request(request).await
        };
        let response = match tokio::time::timeout(ANSWER_WITHIN, head).await {
            Ok(answered) => answered.map_err(|e| lost(&e))?,
            Err(_) => return Err(lost(&format!("nothing came within {} s", ANSWER_WITHIN.as_secs()))),
        };
        let (parts, body) = response.into_parts();
        let (body, fault) = match self.read(&parts.headers, body).await {
            Ok(body) => {
                self.connection = Some(connection);
                let fault = self.fault(parts.status.as_u16(), &parts.headers, &body);
                (body, fault)
            }
            Err(why) => (Bytes::new(), Some(why)),
        };
        Ok(Reply { status: parts.status.as_u16(), fault, body })
    }

    /// All of an answer's body, or what is wrong with it.
    async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Bytes, String> {
        // A stream has a limit of its own.
        let server = self.server.as_ref().filter(|_| examine::is_events(headers));
        let limit = server.map_or(ANSWER_WITHIN, |server| Duration::from_millis(server.stream_ms));
        let read = tokio::time::timeout(limit, Limited::new(body, ANSWER_MAX).collect()).await;
        let read = read.map_err(|_| format!("the answer was not over within {} s", limit.as_secs_f32()))?;
        read.map(http_body_util::Collected::to_bytes).map_err(|error| {
            if error.is::<LengthLimitError>() {
                format!("the answer is larger than {ANSWER_MAX} bytes")
            } else {
                "the answer broke off".to_owned()
            }
        })
    }

    /// What an answer that is there says of itself.
    fn fault(&self, status: u16, headers: &HeaderMap, body: &Bytes) -> Option<String> {
        if let Some(server) = self.server.as_ref().filter(|_| status == 200) {
            return examine::fault(server.protocol, headers, body);
        }
        let said = headers.get("x-lockgate-nonfinite").filter(|_| self.server.is_none());
        let count: u64 = said.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()).unwrap_or(0);
        (count > 0).then(|| format!("{count} numbers of the answer are not finite"))
    }
}

fn lost(what: &dyn std::fmt::Display) -> AgentError {
    AgentError::Worker(format!("the worker did not answer: {what}"))
}

async fn connect(address: &WorkerAddress) -> Result<Connection, AgentError> {
    let failed = |e: std::io::Error| AgentError::Worker(format!("the worker does not take connections: {e}"));
    let shaken = |e: hyper::Error| AgentError::Worker(format!("the worker does not answer: {e}"));
    match address {
        WorkerAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(shaken)?;
            tokio::spawn(connection);
            Ok(sender)
        }
        WorkerAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            if let Some(why) = refused_peer(stream.peer_addr().map_err(failed)?.ip()) {
                return Err(AgentError::Gate(format!("the server's address {address}: {why}")));
            }
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(shaken)?;
            tokio::spawn(connection);
            Ok(sender)
        }
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
