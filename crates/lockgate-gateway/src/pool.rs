//! Connections to one worker, one reactor's own.

use crate::body::Stream;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lockgate_core::route::WorkerAddress;
use lockgate_core::server::refused_peer;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_local;

/// How many idle connections are kept.
const IDLE_MAX: usize = 256;

/// After so many time-outs in a row a worker counts as one that hangs.
const TIMEOUTS: u32 = 3;

/// How long a worker that hangs is passed over before one request tries it again.
const HANGS_FOR: Duration = Duration::from_secs(2);

/// One worker as one reactor sees it.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: WorkerAddress,
    host: HeaderValue,
    idle: RefCell<Vec<SendRequest<Stream>>>,
    down_until: Cell<Option<Instant>>,
    timeouts: Cell<u32>,
    /// Requests that nobody waits for any more, whose answers are waited for all the same.
    watched: Cell<u32>,
}

/// Why a request got no answer from a worker.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It never left: the request is given back.
    Unsent(Box<Request<Stream>>),
    /// It may have been worked on.
    Broke,
}

impl Upstream {
    pub(crate) fn new(address: WorkerAddress) -> Self {
        let host = match &address {
            WorkerAddress::Unix(_) => None,
            WorkerAddress::Tcp(address) => HeaderValue::from_str(address).ok(),
        };
        Self {
            address,
            host: host.unwrap_or_else(|| HeaderValue::from_static("worker")),
            idle: RefCell::default(),
            down_until: Cell::new(None),
            timeouts: Cell::new(0),
            watched: Cell::new(0),
        }
    }

    /// What requests to it name as their host.
    pub(crate) fn host(&self) -> HeaderValue {
        self.host.clone()
    }

    /// Whether it could not be reached just now, or hangs.
    pub(crate) fn is_down(&self, now: Instant) -> bool {
        self.down_until.get().is_some_and(|until| now < until)
    }

    /// Takes one of the few places for watching a request that nobody waits for any more: as many as it takes to find out
    /// that the worker hangs.
    pub(crate) fn watch(&self) -> bool {
        let free = self.watched.get() < TIMEOUTS;
        self.watched.set(self.watched.get() + u32::from(free));
        free
    }

    /// Gives the place back.
    pub(crate) fn watched(&self) {
        self.watched.set(self.watched.get().saturating_sub(1));
    }

    /// Passes it over for a while. Idle connections to it are as dead as it is.
    pub(crate) fn evict(&self, until: Instant) {
        self.down_until.set(Some(until));
        self.idle.borrow_mut().clear();
    }

    /// A request is about to be sent to it. Where it hung, that request is the only one that finds out whether it still does.
    pub(crate) fn tried(&self, now: Instant, timeout: Duration) {
        if self.timeouts.get() >= TIMEOUTS {
            self.down_until.set(Some(now + timeout));
        }
    }

    /// A request got no answer in time. One may be dear; several in a row mean that the worker hangs.
    pub(crate) fn timed_out(&self, now: Instant) {
        self.timeouts.set(self.timeouts.get().saturating_add(1));
        if self.timeouts.get() >= TIMEOUTS {
            self.evict(now + HANGS_FOR);
        }
    }

    /// It answered a request of live traffic: it does not hang. Other traffic says nothing of that.
    pub(crate) fn answered(&self) {
        self.down_until.set(None);
        self.timeouts.set(0);
    }

    /// Sends a request over an idle connection or a new one, and waits for the answer's head.
    pub(crate) async fn send(
        &self,
        mut request: Request<Stream>,
        connect_timeout: Duration,
    ) -> Result<(Response<Incoming>, SendRequest<Stream>), Unanswered> {
        loop {
            let Some(mut connection) = self.take_idle() else { break };
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                // The worker closed it while it was idle: no attempt, on to the next connection.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Unanswered::Broke),
                },
            }
        }
        let Some(mut connection) = self.connect(connect_timeout).await else {
            return Err(Unanswered::Unsent(Box::new(request)));
        };
        match connection.try_send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(mut error) => {
                Err(error.take_message().map_or(Unanswered::Broke, |r| Unanswered::Unsent(Box::new(r))))
            }
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Stream>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Takes a connection back whose answer was read to its end.
    pub(crate) fn give_back(&self, connection: SendRequest<Stream>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
    }

    async fn connect(&self, timeout: Duration) -> Option<SendRequest<Stream>> {
        match tokio::time::timeout(timeout, self.open()).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                tracing::debug!(address = ?self.address, %error, "a worker can't be reached");
                None
            }
            Err(_) => {
                tracing::debug!(address = ?self.address, "a worker can't be reached in time");
                None
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Stream>, Box<dyn std::error::Error>> {
        match &self.address {
            WorkerAddress::Unix(path) => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(UnixStream::connect(path).await?)).await?;
                spawn_local(connection);
                Ok(sender)
            }
            WorkerAddress::Tcp(address) => {
                let io = TcpStream::connect(address).await?;
                if let Some(why) = refused_peer(io.peer_addr()?.ip()) {
                    return Err(why.into());
                }
                io.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
                spawn_local(connection);
                Ok(sender)
            }
        }
    }
}
