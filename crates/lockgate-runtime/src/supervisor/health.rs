//! Whether a worker still answers: a process that hangs looks well from outside.

use super::WorkerSpec;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use lockgate_core::route::WorkerAddress;
use lockgate_core::server::refused_peer;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::{TcpStream, UnixStream};

/// The largest answer that is read.
const ANSWER_MAX: usize = 1 << 20;

type Connection = SendRequest<Empty<Bytes>>;

/// What a good answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Its status is enough.
    Ok,
    /// A version of the model is `AVAILABLE`, in TensorFlow Serving's form.
    Available,
    /// A model of this id is listed, in OpenAI's form.
    Listed(String),
}

impl Expect {
    /// Why an answer's body is not what is expected.
    fn lacks(&self, body: &[u8]) -> Option<String> {
        let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let any = |list: &Value, good: &dyn Fn(&Value) -> bool| {
            list.as_array().is_some_and(|items| items.iter().any(good))
        };
        match self {
            Self::Ok => None,
            Self::Available => {
                let found = any(&json()["model_version_status"], &|v| v["state"] == "AVAILABLE");
                (!found).then(|| "no version of the model is AVAILABLE".to_owned())
            }
            Self::Listed(id) => {
                let found = any(&json()["data"], &|v| v["id"] == id.as_str());
                (!found).then(|| format!("it lists no model `{id}`"))
            }
        }
    }
}

/// What came of asking a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is well; and whether it has answered badly just before.
    Well {
        /// Whether it has.
        again: bool,
    },
    /// It says itself that it doesn't have what it is asked for (4xx).
    Refused,
    /// It says nothing, or that it isn't well.
    Missed,
}

/// Asks a worker that is ready again and again.
///
/// Its model runs in threads of its own, so a long inference doesn't keep it from answering. One connection is kept: a worker
/// with as many clients as it takes accepts no new one.
#[derive(Debug)]
pub(super) struct Probe<'s> {
    address: &'s WorkerAddress,
    spec: &'s WorkerSpec,
    connection: Option<Connection>,
    misses: u32,
    /// What it said last where it wasn't well.
    pub(super) last: String,
}

impl<'s> Probe<'s> {
    pub(super) fn new(address: &'s WorkerAddress, spec: &'s WorkerSpec) -> Self {
        Self { address, spec, connection: None, misses: 0, last: String::new() }
    }

    /// Asks the next time, when it is due.
    pub(super) async fn next(&mut self) -> Heard {
        let spec = self.spec;
        tokio::time::sleep(spec.health_every).await;
        let asked = ask(self.address, spec, self.connection.take());
        let unwell = match tokio::time::timeout(spec.health_timeout, asked).await {
            Ok(Ok(kept)) => {
                self.connection = Some(kept);
                return Heard::Well { again: std::mem::take(&mut self.misses) > 0 };
            }
            Ok(Err(unwell)) => unwell,
            Err(_) => Unwell::from("nothing came in time"),
        };
        self.misses += 1;
        let misses = self.misses;
        tracing::warn!(worker = spec.name, misses, "the worker did not answer its health check");
        self.last = unwell.words;
        if unwell.is_refusal { Heard::Refused } else { Heard::Missed }
    }

    /// Whether it has not answered so often in a row that it must be hanging.
    pub(super) fn is_lost(&self) -> bool {
        self.misses >= self.spec.health_misses.max(1)
    }
}

/// Why a worker isn't well.
#[derive(Debug)]
struct Unwell {
    words: String,
    /// Whether it says itself that it doesn't have what it is asked for.
    is_refusal: bool,
}

impl<T: Into<String>> From<T> for Unwell {
    fn from(words: T) -> Self {
        Self { words: words.into(), is_refusal: false }
    }
}

/// Asks once.
///
/// # Errors
/// Why the worker isn't well.
pub(super) async fn once(address: &WorkerAddress, spec: &WorkerSpec) -> Result<(), String> {
    match tokio::time::timeout(spec.health_timeout, ask(address, spec, None)).await {
        Ok(asked) => asked.map(drop).map_err(|unwell| unwell.words),
        Err(_) => Err("nothing came in time".to_owned()),
    }
}

/// Asks once. What comes back is the connection.
async fn ask(
    address: &WorkerAddress,
    spec: &WorkerSpec,
    kept: Option<Connection>,
) -> Result<Connection, Unwell> {
    let health = &spec.health;
    let mut connection = match kept.filter(|c| !c.is_closed()) {
        Some(kept) => kept,
        None => connect(address, spec.not_at).await?,
    };
    let broke = |e: hyper::Error| format!("it broke off: {e}");
    connection.ready().await.map_err(broke)?;
    let host = match address {
        WorkerAddress::Unix(_) => "worker",
        WorkerAddress::Tcp(host) => host.as_str(),
    };
    let request = Request::get(&health.path).header(header::HOST, host).body(Empty::new());
    let answer = connection.send_request(request.map_err(|e| e.to_string())?).await.map_err(broke)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|e| format!("its answer can't be read: {e}"))?.to_bytes();
    if !status.is_success() {
        let words = format!("GET {} was answered {}", health.path, status.as_u16());
        // To come too often is no reason not to be there.
        let is_refusal = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
        return Err(Unwell { words, is_refusal });
    }
    match health.expect.lacks(&body) {
        None => Ok(connection),
        Some(why) => Err(Unwell { words: format!("GET {}: {why}", health.path), is_refusal: true }),
    }
}

async fn connect(address: &WorkerAddress, not_at: Option<SocketAddr>) -> Result<Connection, String> {
    let away = |e: std::io::Error| format!("it takes no connections: {e}");
    let broke = |e: hyper::Error| format!("it broke off: {e}");
    // Each connection ends with its sender.
    match address {
        WorkerAddress::Unix(path) => {
            let io = TokioIo::new(UnixStream::connect(path).await.map_err(away)?);
            let (sender, connection) = handshake(io).await.map_err(broke)?;
            tokio::spawn(connection);
            Ok(sender)
        }
        WorkerAddress::Tcp(address) => {
            let io = TcpStream::connect(address).await.map_err(away)?;
            let (peer, own) = (io.peer_addr().map_err(away)?, io.local_addr().map_err(away)?);
            if let Some(why) = refused_peer(peer.ip()) {
                return Err(format!("{address}: {why}"));
            }
            if not_at.is_some_and(|gateway| is_at(gateway, peer, own)) {
                return Err(format!("{address} is this environment's own gateway"));
            }
            let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(broke)?;
            tokio::spawn(connection);
            Ok(sender)
        }
    }
}

/// Whether a connection from `own` to `peer` has reached whoever listens at `listens`.
fn is_at(listens: SocketAddr, peer: SocketAddr, own: SocketAddr) -> bool {
    let (at, peer_ip) = (listens.ip().to_canonical(), peer.ip().to_canonical());
    // What a machine sends to itself comes from where it goes to.
    let here = peer_ip.is_loopback() || peer_ip == own.ip().to_canonical();
    listens.port() == peer.port() && (at == peer_ip || (at.is_unspecified() && here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_say_what_is_expected_of_it() {
        let available =
            br#"{"model_version_status":[{"version":"3","state":"LOADING"},{"state":"AVAILABLE"}]}"#;
        assert_eq!(Expect::Available.lacks(available), None);
        for body in [&b"{}"[..], b"x", br#"{"model_version_status":[{"state":"LOADING"}]}"#] {
            assert!(Expect::Available.lacks(body).is_some());
        }
        let listed = Expect::Listed("a".to_owned());
        assert_eq!(listed.lacks(br#"{"data":[{"id":"b"},{"id":"a"}]}"#), None);
        assert!(listed.lacks(br#"{"data":[{"id":"ab"}]}"#).unwrap().contains("`a`"));
        assert_eq!(Expect::Ok.lacks(b""), None);
    }

    #[test]
    fn an_address_is_known_as_the_gateway_s_by_whatever_name_it_was_reached() {
        let of = |listens: &str, peer: &str, own: &str| {
            is_at(listens.parse().unwrap(), peer.parse().unwrap(), own.parse().unwrap())
        };
        assert!(of("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:5000"));
        assert!(of("0.0.0.0:80", "127.0.0.1:80", "127.0.0.1:5000"));
        assert!(of("[::]:80", "127.0.0.1:80", "127.0.0.1:5000"));
        assert!(of("0.0.0.0:80", "10.0.0.5:80", "10.0.0.5:5000"));
        assert!(!of("0.0.0.0:80", "10.0.0.6:80", "10.0.0.5:5000"));
        assert!(!of("127.0.0.1:80", "127.0.0.1:81", "127.0.0.1:5000"));
        assert!(!of("10.0.0.5:80", "127.0.0.1:80", "127.0.0.1:5000"));
    }
}
