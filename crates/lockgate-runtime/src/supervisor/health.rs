//! Whether a worker still answers: a process that hangs looks well from outside.

use super::{Health, WorkerSpec};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use lockgate_core::route::WorkerAddress;
use serde_json::Value;
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

/// Returns when the worker at `address` has not answered so often in a row that it must be hanging, with what it said last.
///
/// Its model runs in threads of its own, so a long inference doesn't keep it from answering. One connection is kept: a worker
/// with as many clients as it takes accepts no new one.
pub(super) async fn lost(address: &WorkerAddress, spec: &WorkerSpec) -> String {
    let mut connection = None;
    let mut misses = 0;
    let mut last = String::new();
    while misses < spec.health_misses.max(1) {
        tokio::time::sleep(spec.health_every).await;
        let asked = ask(address, &spec.health, connection);
        connection = match tokio::time::timeout(spec.health_timeout, asked).await {
            Ok(Ok(kept)) => {
                misses = 0;
                Some(kept)
            }
            other => {
                misses += 1;
                tracing::warn!(worker = spec.name, misses, "the worker did not answer its health check");
                last =
                    other.map_or_else(|_| "nothing came in time".to_owned(), |e| e.err().unwrap_or_default());
                None
            }
        };
    }
    last
}

/// Asks once.
///
/// # Errors
/// Why the worker isn't well.
pub(super) async fn once(address: &WorkerAddress, spec: &WorkerSpec) -> Result<(), String> {
    match tokio::time::timeout(spec.health_timeout, ask(address, &spec.health, None)).await {
        Ok(asked) => asked.map(drop),
        Err(_) => Err("nothing came in time".to_owned()),
    }
}

/// Asks once. What comes back is the connection.
async fn ask(
    address: &WorkerAddress,
    health: &Health,
    kept: Option<Connection>,
) -> Result<Connection, String> {
    let mut connection = match kept.filter(|c| !c.is_closed()) {
        Some(kept) => kept,
        None => connect(address).await?,
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
        return Err(format!("GET {} was answered {}", health.path, status.as_u16()));
    }
    match health.expect.lacks(&body) {
        None => Ok(connection),
        Some(why) => Err(format!("GET {}: {why}", health.path)),
    }
}

async fn connect(address: &WorkerAddress) -> Result<Connection, String> {
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
            let io = TokioIo::new(TcpStream::connect(address).await.map_err(away)?);
            let (sender, connection) = handshake(io).await.map_err(broke)?;
            tokio::spawn(connection);
            Ok(sender)
        }
    }
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
}
