//! Which HTTP a connection speaks: both are served on one port.

use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When a connection that began like HTTP/2 is looked at for more: soon, then less and less often.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_LATER: Duration = Duration::from_secs(1);

/// Requests that one connection may have under way.
const STREAMS: u32 = 128;

/// How much of one request's body, and of all bodies of a connection, may be under way.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// Looks at a connection's first bytes, without taking them.
pub(crate) async fn of(stream: &TcpStream, timeout: Duration) -> io::Result<Http> {
    let give_up = Instant::now() + timeout;
    let mut start = [0; PREFACE.len()];
    let mut pause = LOOK_AGAIN;
    loop {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "nothing was sent");
        let length =
            tokio::time::timeout_at(give_up, stream.peek(&mut start)).await.map_err(|_| late())??;
        let seen = start.get(..length).unwrap_or_default();
        // The end of a connection is for HTTP/1.1 to see.
        if seen.is_empty() || !PREFACE.starts_with(seen) {
            return Ok(Http::One);
        }
        if length == PREFACE.len() {
            return Ok(Http::Two);
        }
        // What is there stays there, so nothing says when more comes.
        if Instant::now() >= give_up {
            return Err(late());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_LATER);
    }
}

/// How HTTP/2 is served. Peers that are gone are found out by pings.
pub(crate) fn http2(timeout: Duration) -> http2::Builder<Local> {
    let mut http = http2::Builder::new(Local);
    http.timer(TokioTimer::new())
        .keep_alive_interval(timeout)
        .keep_alive_timeout(timeout)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(128 << 10)
        .max_header_list_size(64 << 10);
    http
}

/// Runs what a connection needs on its own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
