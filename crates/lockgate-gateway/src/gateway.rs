//! Starting, publishing tables, reading counts, stopping: the gateway as its agent holds it.

use crate::breaker::OpenBreaker;
use crate::hops::Name;
use crate::inline::{LaneState, Runner};
use crate::large::Large;
use crate::log::LogSink;
use crate::meter::SideTotals;
use crate::options::GatewayOptions;
use crate::random::Random;
use crate::reactor::{self, Command, Reactor};
use crate::readings::Readings;
use crate::rollout::{LatencyThresholds, RolloutStats};
use crate::table::{Counters, Table};
use crate::{GatewayError, metrics};
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::route::RouteTable;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// How often draining looks whether all connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a gateway needs from outside.
pub struct Deps {
    /// The time of predictions.
    pub clock: Arc<dyn Clock>,
    /// Seeds for ids and draws.
    pub entropy: Arc<dyn Entropy>,
    /// Where predictions are recorded.
    pub log: LogSink,
    /// A socket that listens already; without one the gateway makes its own.
    pub listener: Option<std::net::TcpListener>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

/// How a gateway stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the time was over; their requests were cut off.
    pub cut_off: usize,
}

/// What all reactors and the gateway's holder share.
pub(crate) struct Core {
    pub(crate) options: Arc<GatewayOptions>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) connections: AtomicUsize,
    pub(crate) refused: AtomicU64,
    pub(crate) large: Large,
    /// What it is called among gateways.
    pub(crate) name: Name,
    /// Says how many records were dropped, without keeping the log's channel open.
    pub(crate) dropped: Arc<AtomicU64>,
    /// What processes took when it was read last.
    pub(crate) readings: Mutex<Readings>,
}

impl Core {
    pub(crate) fn metrics(&self, table: &Table) -> String {
        metrics::text(self, table)
    }
}

/// A running gateway. Dropping it stops it at once; [`Gateway::shutdown`] lets requests finish.
pub struct Gateway {
    core: Arc<Core>,
    address: SocketAddr,
    reactors: Vec<mpsc::UnboundedSender<Command>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The listening socket, for a successor; none once it takes no connections any more.
    listener: Mutex<Option<std::net::TcpListener>>,
    /// Resolves when the door is closed.
    closed: Mutex<Option<oneshot::Receiver<()>>>,
    opening: Mutex<Option<oneshot::Sender<()>>>,
    accepting: Mutex<Option<oneshot::Sender<()>>>,
    /// The newest table that was accepted, and the newest that all reactors use.
    accepted: Mutex<u64>,
    applied: Arc<AtomicU64>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts a gateway with its first table. It listens when this returns, and takes connections from [`Gateway::open`] on;
    /// until then they wait, or go to whoever else listens at the same socket.
    ///
    /// # Errors
    /// A setting or the table makes no sense, the address can't be had, or a thread can't be started.
    pub fn start(options: GatewayOptions, table: RouteTable, deps: Deps) -> Result<Self, GatewayError> {
        options.check()?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let counters = Arc::new(Counters::new(Instant::now()));
        let compiled = Arc::new(Table::compile(&table, &counters, &options)?);
        let bind = |source| GatewayError::Bind { address: options.listen, source };
        let listener = match deps.listener {
            Some(given) => taken(given).map_err(bind)?,
            None => listen(options.listen)?,
        };
        let address = listener.local_addr().map_err(bind)?;
        let own = listener.try_clone().map_err(bind)?;
        let core = Arc::new(Core {
            large: Large::new(options.max_body),
            name: Name::new(Random::new(&*deps.entropy).next()),
            options: Arc::new(options),
            counters,
            clock: deps.clock,
            entropy: deps.entropy,
            connections: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            dropped: deps.log.drops(),
            readings: Mutex::default(),
        });
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
        let (opening, opened) = oneshot::channel();
        let (accepting, stop_accepting) = oneshot::channel();
        let (closing, closed) = oneshot::channel();
        let mut door = Some(Door {
            listener,
            reactors: senders.clone(),
            opened,
            stop: stop_accepting,
            _closing: closing,
        });
        let mut handles = Vec::with_capacity(threads);
        for (number, commands) in receivers.into_iter().enumerate() {
            let (core, table, log, door) = (core.clone(), compiled.clone(), deps.log.clone(), door.take());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(GatewayError::Thread)?;
            let work = move || {
                let reactor = Rc::new(Reactor::new(core.clone(), table, log));
                let local = tokio::task::LocalSet::new();
                if let Some(door) = door {
                    local.spawn_local(door.run(core));
                }
                local.block_on(&runtime, reactor::run(reactor, commands));
            };
            let name = format!("gateway-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(work).map_err(GatewayError::Thread)?;
            handles.push(thread);
        }
        Ok(Self {
            core,
            address,
            reactors: senders,
            threads: Mutex::new(handles),
            listener: Mutex::new(Some(own)),
            closed: Mutex::new(Some(closed)),
            opening: Mutex::new(Some(opening)),
            accepting: Mutex::new(Some(accepting)),
            accepted: Mutex::new(table.epoch),
            applied: Arc::new(AtomicU64::new(table.epoch)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many threads answer requests.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.reactors.len()
    }

    /// Takes connections from now on.
    pub fn open(&self) {
        if let Some(opening) = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = opening.send(());
        }
    }

    /// The listening socket once more: whoever gets it shares its queue of connections, so that none is refused while one
    /// gateway takes over from another.
    ///
    /// # Errors
    /// Where the system has no file descriptor left, or the gateway is being shut down.
    pub fn listener(&self) -> std::io::Result<std::net::TcpListener> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || std::io::Error::other("the gateway is being shut down");
        listener.as_ref().ok_or_else(gone)?.try_clone()
    }

    /// The newest table's epoch that every reactor uses.
    #[must_use]
    pub fn applied_epoch(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Publishes a table and waits until every reactor uses it: after that no request starts by an older one.
    ///
    /// # Errors
    /// The epoch is not larger than every one before, the table makes no sense (then the one before stays), or a reactor has
    /// ended.
    pub async fn publish(&self, table: RouteTable) -> Result<(), GatewayError> {
        let compiled = {
            let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
            if table.epoch <= *accepted {
                return Err(GatewayError::Epoch { offered: table.epoch, applied: *accepted });
            }
            let compiled = Arc::new(Table::compile(&table, &self.core.counters, &self.core.options)?);
            *accepted = table.epoch;
            compiled
        };
        let mut acks = Vec::with_capacity(self.reactors.len());
        for reactor in &self.reactors {
            let (done, ack) = oneshot::channel();
            // One that has ended shows below, where its answer is missing; the others get the table all the same.
            let _ = reactor.send(Command::Apply(compiled.clone(), done));
            acks.push(ack);
        }
        for (number, ack) in acks.into_iter().enumerate() {
            ack.await.map_err(|_| GatewayError::Gone(number))?;
        }
        self.applied.fetch_max(table.epoch, Ordering::AcqRel);
        Ok(())
    }

    /// Counts of a model's newest rollout, also after its end.
    #[must_use]
    pub fn stats(&self, model: &ModelName) -> Option<RolloutStats> {
        self.core.counters.stats(model)
    }

    /// Sets what is slow in a model's newest rollout, for requests from now on.
    ///
    /// # Errors
    /// The thresholds make no sense; those before stay.
    pub fn set_thresholds(
        &self,
        model: &ModelName,
        thresholds: LatencyThresholds,
    ) -> Result<(), GatewayError> {
        thresholds.check().map_err(|reason| GatewayError::Thresholds { model: model.clone(), reason })?;
        self.core.counters.set_thresholds(model, thresholds);
        Ok(())
    }

    /// What `/metrics` says of processes from now on.
    pub fn set_readings(&self, readings: Readings) {
        *self.core.readings.lock().unwrap_or_else(PoisonError::into_inner) = readings;
    }

    /// The newest rollouts whose breakers are open, for a gateway that takes this one's place.
    #[must_use]
    pub fn open_breakers(&self) -> Vec<OpenBreaker> {
        self.core.counters.open_breakers()
    }

    /// Opens the breaker of a model's newest rollout, as it is at the gateway whose place this one takes. Whether this one
    /// knows the rollout.
    pub fn open_breaker(&self, open: &OpenBreaker) -> bool {
        self.core.counters.open_breaker(open)
    }

    /// What was assigned to each side of a model since the start.
    #[must_use]
    pub fn totals(&self, model: &ModelName) -> Vec<SideTotals> {
        self.core.counters.meters.totals(model)
    }

    /// Makes a lane for a revision, whose `runner` answers in the gateway's own threads. Requests take it from the next table on
    /// that says so. One that there is already is replaced, and so forgets why it was left.
    pub fn bring_inline(&self, revision: Digest, model: ModelName, release: Digest, runner: Arc<dyn Runner>) {
        self.core.counters.lanes.add(revision, model, release, runner);
    }

    /// Lets go of all lanes but those of these revisions.
    pub fn keep_inline(&self, revisions: &[Digest]) {
        self.core.counters.lanes.keep(revisions);
    }

    /// How a revision's lane stands; none where it has none.
    #[must_use]
    pub fn inline(&self, revision: &Digest) -> Option<LaneState> {
        self.core.counters.lanes.state(revision)
    }

    /// How many requests a revision's workers are working on.
    #[must_use]
    pub fn inflight(&self, revision: &Digest) -> u64 {
        self.core.counters.meters.inflight(revision)
    }

    /// How long ago a request was last sent to a revision; none where it never was.
    #[must_use]
    pub fn last_sent(&self, revision: &Digest) -> Option<Duration> {
        self.core.counters.meters.last_sent(revision).map(|at| at.elapsed())
    }

    /// Stops taking connections, lets requests finish for at most `grace`, and ends. For the time `linger` of it, each connection
    /// is ended by an answer that says so, and none while it waits for a request, which could be on its way.
    pub async fn shutdown(&self, grace: Duration, linger: Duration) -> Drained {
        if let Some(stop) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stop.send(());
        }
        // What waits is refused, or goes to whoever else listens; and what was accepted has reached its reactor by then.
        drop(self.listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closed) = closed {
            let _ = closed.await;
        }
        for reactor in &self.reactors {
            let _ = reactor.send(Command::Stop { linger });
        }
        let until = Instant::now() + grace;
        let ended = || {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.iter().all(JoinHandle::is_finished)
        };
        while !ended() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Drained { cut_off: if ended() { 0 } else { self.core.connections.load(Ordering::Acquire) } }
    }
}

/// How many connections may wait for the gateway.
const BACKLOG: i32 = 4096;

/// A listening socket of somebody else, as the gateway wants it.
fn taken(given: std::net::TcpListener) -> std::io::Result<std::net::TcpListener> {
    socket2::SockRef::from(&given).listen(BACKLOG)?;
    given.set_nonblocking(true)?;
    Ok(given)
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, GatewayError> {
    let open = || -> std::io::Result<std::net::TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        // A gateway that starts again must not wait for its old connections to be forgotten.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| GatewayError::Bind { address, source })
}

/// Accepts connections and hands them to the reactors in turn. (`SO_REUSEPORT` would pin a few long connections to one.)
struct Door {
    listener: std::net::TcpListener,
    reactors: Vec<mpsc::UnboundedSender<Command>>,
    opened: oneshot::Receiver<()>,
    stop: oneshot::Receiver<()>,
    /// Dropped with the door.
    _closing: oneshot::Sender<()>,
}

impl Door {
    async fn run(self, core: Arc<Core>) {
        let Self { listener, reactors, opened, mut stop, _closing } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the gateway can't listen");
                return;
            }
        };
        tokio::select! {
            biased;
            _ = &mut stop => return,
            opened = opened => if opened.is_err() { return },
        }
        for turn in (0..reactors.len()).cycle() {
            let accepted = tokio::select! {
                biased;
                _ = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, or the peer has gone already: neither is a reason to stop serving.
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            if core.connections.fetch_add(1, Ordering::AcqRel) >= core.options.max_connections {
                core.connections.fetch_sub(1, Ordering::AcqRel);
                core.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let told = reactors.get(turn).map(|r| r.send(Command::Serve(stream)));
            if !matches!(told, Some(Ok(()))) {
                core.connections.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}
