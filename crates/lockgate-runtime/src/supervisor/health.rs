//! Whether a worker still answers: a process that hangs looks well from outside.

use super::WorkerSpec;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::path::Path;
use tokio::net::UnixStream;

type Connection = SendRequest<Empty<Bytes>>;

/// Returns when the worker at `socket` has not answered so often in a row that it must be hanging.
///
/// Its model runs in threads of its own, so a long inference doesn't keep it from answering. One connection is kept: a worker
/// with as many clients as it takes accepts no new one.
pub(super) async fn lost(socket: &Path, spec: &WorkerSpec) {
    let mut connection = None;
    let mut misses = 0;
    while misses < spec.health_misses.max(1) {
        tokio::time::sleep(spec.health_every).await;
        connection = match tokio::time::timeout(spec.health_timeout, ask(socket, connection)).await {
            Ok(Some(kept)) => {
                misses = 0;
                Some(kept)
            }
            Ok(None) | Err(_) => {
                misses += 1;
                tracing::warn!(worker = spec.name, misses, "the worker did not answer its health check");
                None
            }
        };
    }
}

/// Asks once. What comes back is the connection; nothing where the worker isn't well.
async fn ask(socket: &Path, kept: Option<Connection>) -> Option<Connection> {
    let mut connection = match kept.filter(|c| !c.is_closed()) {
        Some(kept) => kept,
        None => {
            let io = TokioIo::new(UnixStream::connect(socket).await.ok()?);
            let (sender, connection) = handshake(io).await.ok()?;
            // It ends with its sender.
            tokio::spawn(connection);
            sender
        }
    };
    connection.ready().await.ok()?;
    let request = Request::get("/v2/health/ready").header(header::HOST, "worker").body(Empty::new()).ok()?;
    let answer = connection.send_request(request).await.ok()?;
    let well = answer.status().is_success();
    answer.into_body().collect().await.ok()?;
    well.then_some(connection)
}
