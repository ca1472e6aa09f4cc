//! One thread: its client connections, its worker connections, its reference to the table.

use crate::answer::Reply;
use crate::budget::Budget;
use crate::gateway::Core;
use crate::handle::handle;
use crate::log::LogSink;
use crate::options::GatewayOptions;
use crate::pool::Upstream;
use crate::protocol;
use crate::random::Random;
use crate::stall::Taking;
use crate::table::{Counters, Route, Table};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use lockgate_core::clock::Clock;
use lockgate_core::route::WorkerAddress;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

/// Where a connection hears that it has to end.
pub(crate) type Stopping = watch::Receiver<Option<Instant>>;

/// What a reactor is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve this connection.
    Serve(std::net::TcpStream),
    /// Use this table from now on, and say when it is so.
    Apply(Arc<Table>, oneshot::Sender<()>),
    /// Let connections finish what they are at.
    Stop {
        /// How long a connection that waits for a request is still kept.
        linger: Duration,
    },
}

/// One thread's state.
pub(crate) struct Reactor {
    pub(crate) options: Arc<GatewayOptions>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: LogSink,
    pub(crate) budget: Budget,
    pub(crate) random: Random,
    /// How many mirrored requests are being worked on.
    pub(crate) mirrors: Rc<Cell<usize>>,
    pub(crate) core: Arc<Core>,
    table: RefCell<Arc<Table>>,
    upstreams: RefCell<HashMap<WorkerAddress, Rc<Upstream>>>,
    turn: Cell<usize>,
    /// Says that connections have to end, and from when on they may not wait for a request any more.
    pub(crate) stopping: watch::Sender<Option<Instant>>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    pub(crate) fn new(core: Arc<Core>, table: Arc<Table>, log: LogSink) -> Self {
        Self {
            options: Arc::clone(&core.options),
            counters: Arc::clone(&core.counters),
            clock: Arc::clone(&core.clock),
            log,
            budget: Budget::new(Instant::now()),
            random: Random::new(&*core.entropy),
            mirrors: Rc::default(),
            core,
            table: RefCell::new(table),
            upstreams: RefCell::default(),
            turn: Cell::new(0),
            stopping: watch::Sender::new(None),
        }
    }

    /// A model's route at this moment.
    pub(crate) fn route(&self, model: &str) -> Option<Arc<Route>> {
        self.table.borrow().models.get(model).cloned()
    }

    /// Whether a route is the table's of this moment.
    pub(crate) fn is_current(&self, route: &Arc<Route>) -> bool {
        self.table.borrow().models.get(route.model.as_str()).is_some_and(|now| Arc::ptr_eq(now, route))
    }

    /// The models that are served, by name.
    pub(crate) fn model_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.table.borrow().models.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Whether every model has a worker to go to, and there is one at all.
    pub(crate) fn is_ready(&self) -> bool {
        let table = self.table.borrow();
        !table.models.is_empty() && table.models.values().all(|r| r.sides().any(|s| !s.workers.is_empty()))
    }

    /// The counters as Prometheus text.
    pub(crate) fn metrics(&self) -> String {
        self.core.metrics(&self.table.borrow())
    }

    /// A number that grows, for taking turns.
    pub(crate) fn turn(&self) -> usize {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.turn.get()
    }

    /// This thread's connections to a worker.
    pub(crate) fn upstream(&self, address: &WorkerAddress) -> Rc<Upstream> {
        if let Some(known) = self.upstreams.borrow().get(address) {
            return Rc::clone(known);
        }
        let upstream = Rc::new(Upstream::new(address.clone()));
        self.upstreams.borrow_mut().insert(address.clone(), Rc::clone(&upstream));
        upstream
    }

    fn apply(&self, table: Arc<Table>) {
        self.upstreams.borrow_mut().retain(|address, _| table.has_worker(address));
        *self.table.borrow_mut() = table;
    }
}

/// Runs a reactor until it is told to stop and its connections have ended, or nobody can tell it anything any more.
pub(crate) async fn run(reactor: Rc<Reactor>, mut commands: mpsc::UnboundedReceiver<Command>) {
    // Every connection holds one end of this channel: when all are gone, the other end hears it.
    let (alive, mut all_done) = mpsc::channel::<()>(1);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Apply(table, done) => {
                reactor.apply(table);
                let _ = done.send(());
            }
            Command::Serve(stream) => {
                spawn_local(connection(Rc::clone(&reactor), stream, alive.clone()));
            }
            Command::Stop { linger } => {
                reactor.stopping.send_replace(Some(Instant::now() + linger));
                break;
            }
        }
    }
    // Where nobody can tell it anything any more, connections end at once.
    reactor
        .stopping
        .send_if_modified(|until| std::mem::replace(until, until.or(Some(Instant::now()))).is_none());
    drop(alive);
    let tables = async {
        // A table that is published while the gateway drains still has to be applied.
        while let Some(command) = commands.recv().await {
            if let Command::Apply(table, done) = command {
                reactor.apply(table);
                let _ = done.send(());
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = all_done.recv() => {}
        () = tables => {}
    }
}

async fn connection(reactor: Rc<Reactor>, stream: std::net::TcpStream, alive: mpsc::Sender<()>) {
    let core = Arc::clone(&reactor.core);
    let served = async {
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        let mut stopped = reactor.stopping.subscribe();
        let found = tokio::select! {
            biased;
            found = protocol::of(&stream, reactor.options.header_timeout) => found?,
            () = over(&mut stopped) => return Ok(()),
        };
        match found {
            protocol::Http::One => one(reactor, stream).await,
            protocol::Http::Two => two(reactor, stream).await,
        }
    };
    if let Err(error) = served.await {
        // Half a request, or a peer that went away: its own matter.
        tracing::debug!(%error, "a connection ended early");
    }
    core.connections.fetch_sub(1, Ordering::AcqRel);
    drop(alive);
}

/// Serves a connection as HTTP/1.1.
async fn one(reactor: Rc<Reactor>, stream: TcpStream) -> std::io::Result<()> {
    let timeout = reactor.options.header_timeout;
    let service = service_fn(|request: Request<Incoming>| answered(&reactor, request));
    let mut http = http1::Builder::new();
    http.half_close(false).timer(TokioTimer::new()).header_read_timeout(timeout);
    let io = TokioIo::new(Taking::new(stream, reactor.options.send_timeout));
    drain(&reactor, http.serve_connection(io, service), over).await
}

/// Serves a connection as HTTP/2, which gRPC is spoken over.
async fn two(reactor: Rc<Reactor>, stream: TcpStream) -> std::io::Result<()> {
    let http = protocol::http2(reactor.options.header_timeout);
    let of = Rc::clone(&reactor);
    let service = service_fn(move |request: Request<Incoming>| answered(&of, request));
    let io = TokioIo::new(Taking::new(stream, reactor.options.send_timeout));
    // A connection of HTTP/2 says which requests it took, so it need not linger.
    drain(&reactor, http.serve_connection(io, service), told).await
}

/// Waits until the gateway stops.
async fn told(stopping: &mut Stopping) {
    let _ = stopping.wait_for(Option::is_some).await;
}

/// Waits until the gateway stops and has lingered.
pub(crate) async fn over(stopping: &mut Stopping) {
    let until = stopping.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    if let Some(until) = until {
        tokio::time::sleep_until(until.into()).await;
    }
}

fn answered(
    reactor: &Rc<Reactor>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Reply, Infallible>> + use<> {
    let reactor = Rc::clone(reactor);
    async move {
        let is_one = request.version() < Version::HTTP_2;
        let mut reply = handle(Rc::clone(&reactor), request).await;
        if is_one && reactor.stopping.borrow().is_some() {
            // The client's next request goes to whoever listens then.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(reply)
    }
}

/// Lets a connection run to its end; when `end` says so it takes no further requests.
async fn drain<C>(
    reactor: &Reactor,
    connection: C,
    end: impl AsyncFnOnce(&mut Stopping),
) -> std::io::Result<()>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut stopped = reactor.stopping.subscribe();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = end(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(std::io::Error::other)
}
