//! One environment at run time: reconciler, gates, rollouts, gateway and workers, with its own disk and its own key.
//!
//! An agent calls the server; nothing calls it. With the server gone it keeps serving, judging and rolling back, and reports
//! what it did when the server is there again.
//!
//! | module | subject |
//! |---|---|
//! | [`home`] | the agent's own folder and key |
//! | [`fence`] | keeping out of other environments' folders |
//! | `journal` | every event, durable before anything follows from it |
//! | `evidence` | verifying what a promotion rests on |
//! | `releases` | releases on the agent's own disk |
//! | `fleet` | workers |
//! | `gates` | running gates, signing what they find |
//! | [`judge`] | from counts to verdicts |
//! | `routing` | from deployments to the gateway's table |
//! | `reconciler` | desired against actual, every few milliseconds |
//! | `link` | the loops that talk to the server |
//! | `handover`, [`descriptor`] | one agent takes over from another without a pause |
//! | `crash` | where tests let it die |
//! | `live` | what is seen right now, for people |
//! | `preview` | the key and the tokens by which testers reach a release |
//! | `predictions`, `bodies` | the prediction log, and what it says of bodies |
//! | [`python`] | Python environments |

mod bodies;
mod caller;
mod crash;
pub mod descriptor;
mod error;
mod evidence;
pub mod fence;
mod fleet;
mod gates;
mod handover;
mod home;
mod journal;
pub mod judge;
mod link;
mod live;
mod predictions;
mod preview;
pub mod python;
mod reconciler;
mod releases;
mod routing;
mod server;

pub use error::AgentError;
pub use evidence::Trust;
pub use home::{Home, write_private};

use fleet::{Fleet, FleetOptions};
use handover::{Door, Predecessor};
use journal::Journal;
use lockgate_blob::BlobStore;
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::gate::PublicKey;
use lockgate_core::id::EnvironmentName;
use lockgate_core::preview::PreviewKey;
use lockgate_core::route::RouteTable;
use lockgate_gateway::{Deps, Gateway, GatewayOptions, LogSink};
use p256::ecdsa::SigningKey;
use predictions::PredictionLog;
use reconciler::Serving;
use releases::Releases;
use server::Server;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How many prediction records may wait for their file; more are dropped and counted.
const LOG_QUEUE: usize = 50_000;

/// How long requests in flight may take when the agent stops.
const DRAIN: Duration = Duration::from_secs(10);

/// How long an agent that is replaced keeps connections that wait for a request: one may be on its way.
const LINGER: Duration = Duration::from_secs(3);

/// How long a successor may take until it serves what its predecessor did: as long as workers may take to be ready, twice.
const SERVE_WITHIN: Duration = Duration::from_secs(120);

/// How often an agent whose successor gave up tries to go on.
const RESUME_EVERY: Duration = Duration::from_millis(100);

/// What an agent needs to run.
#[derive(Debug)]
pub struct AgentOptions {
    /// The environment that it is.
    pub environment: EnvironmentName,
    /// Its own folder.
    pub home: PathBuf,
    /// Where its gateway listens.
    pub listen: SocketAddr,
    /// The listening socket of its gateway, where whoever started it holds one.
    pub listener: Option<TcpListener>,
    /// Whether it takes over from an agent that runs over the same folder.
    pub take_over: bool,
    /// The server's address.
    pub server: String,
    /// Its bearer token.
    pub token: String,
    /// The keys of other environments that it trusts.
    pub trust: Trust,
    /// Where the paths of its datasets start from.
    pub data: PathBuf,
    /// How it is kept apart from other environments, in words.
    pub isolation: String,
    /// Gateway threads.
    pub threads: usize,
    /// The program that workers are started from.
    pub program: PathBuf,
    /// The ONNX Runtime library.
    pub onnxruntime: PathBuf,
}

/// Everything that the agent's parts share.
pub(crate) struct Shared {
    pub(crate) environment: EnvironmentName,
    pub(crate) home: Home,
    pub(crate) key: SigningKey,
    pub(crate) trust: Trust,
    pub(crate) data: PathBuf,
    pub(crate) isolation: String,
    pub(crate) server: Server,
    pub(crate) journal: Journal,
    pub(crate) releases: Releases,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) gateway: Gateway,
    pub(crate) gateway_url: String,
    /// What preview tokens are made with.
    pub(crate) preview_key: PreviewKey,
    pub(crate) predictions: PredictionLog,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Runs an agent until `stop` resolves, or another one has taken over from it.
///
/// # Errors
/// Where it can't start: its folder, its key, its database or its port; and where it was to take over from another agent and
/// does not serve what that one serves. What happens later is handled and logged.
pub async fn run(
    mut options: AgentOptions,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let home = Home::open(&options.home)?;
    let mut before = if options.take_over { Predecessor::find(&home).await? } else { None };
    if let Some(listener) = before.as_mut().and_then(Predecessor::take_listener) {
        options.listener = Some(listener);
    }
    let (shared, table, writer) = open(options, home, before.is_none(), clock, entropy).await?;
    tracing::info!(gateway = shared.gateway_url, "the agent is ready");
    let mut stop = std::pin::pin!(stop);
    let mut tasks = match before {
        None => {
            shared.gateway.open();
            link::start(shared.clone(), table, None).await?
        }
        Some(before) => take_over(&shared, table, before, stop.as_mut()).await?,
    };
    let door = Door::open(&shared.home)?;
    let linger = loop {
        let successor = tokio::select! {
            () = &mut stop => break Duration::ZERO,
            successor = knocks(&shared, &door) => successor?,
        };
        tracing::info!("another agent takes over; this one goes on serving by its last routes");
        tasks.end().await;
        shared.journal.close().await;
        tokio::select! {
            () = &mut stop => return stopped(shared, writer, Duration::ZERO).await,
            replaced = successor.takes_over() => if replaced { return stopped(shared, writer, LINGER).await },
        }
        tracing::warn!("the other agent has given up; this one goes on");
        tasks = tokio::select! {
            () = &mut stop => return stopped(shared, writer, Duration::ZERO).await,
            tasks = resume(&shared) => tasks?,
        };
    };
    tracing::info!("the agent stops");
    tasks.end().await;
    stopped(shared, writer, linger).await
}

async fn knocks(shared: &Shared, door: &Door) -> Result<handover::Successor, AgentError> {
    let listener =
        shared.gateway.listener().map_err(|e| AgentError::io("share", &shared.home.path("run"), e))?;
    Ok(door.successor(&listener).await)
}

/// Everything that an agent is made of. `alone` is whether no other agent lives in its folder.
async fn open(
    options: AgentOptions,
    home: Home,
    alone: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<Shared>, RouteTable, JoinHandle<()>), AgentError> {
    let key = home.key(&*entropy)?;
    let mut trust = options.trust;
    let public = PublicKey::of(&key).map_err(|e| AgentError::Key(e.to_string()))?;
    trust.add(options.environment.clone(), public);
    let journal =
        Journal::open(&home.path("agent.db"), options.environment.clone(), clock.clone(), entropy.clone())
            .await?;
    let sockets = home.sockets(alone, &*entropy)?;
    let blobs = BlobStore::open(home.path("blobs")).await?;
    let (sink, records) = LogSink::channel(LOG_QUEUE);
    let (predictions, writer) = PredictionLog::start(home.path("predictions"), records);
    let table = routing::saved(&home)?;
    let preview_key = preview::key(&home, &*entropy)?;
    let gateway_options = GatewayOptions {
        threads: options.threads,
        preview_key: Some(preview_key.clone()),
        ..GatewayOptions::new(options.listen, options.environment.to_string())
    };
    let deps = Deps { clock: clock.clone(), entropy: entropy.clone(), log: sink, listener: options.listener };
    let gateway = Gateway::start(gateway_options, table.clone(), deps)?;
    let gateway_url = format!("http://{}", gateway.local_addr());
    let fleet = Arc::new(Fleet::new(FleetOptions {
        home: options.home.clone(),
        program: options.program,
        onnxruntime: options.onnxruntime,
        sockets,
        logs: home.path("logs"),
    }));
    let shared = Arc::new(Shared {
        server: Server::new(&options.server, options.token, options.environment.clone())?,
        environment: options.environment,
        releases: Releases::new(blobs, home.path("releases")),
        home,
        key,
        trust,
        data: options.data,
        isolation: options.isolation,
        journal,
        fleet,
        gateway,
        gateway_url,
        preview_key,
        predictions,
        clock,
    });
    Ok((shared, table, writer))
}

/// Starts beside the agent that runs, and takes connections as soon as everything serves that has traffic.
async fn take_over(
    shared: &Arc<Shared>,
    table: RouteTable,
    before: Predecessor,
    stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Result<link::Tasks, AgentError> {
    let serving = watch::Sender::new(Serving::NotYet);
    let mut heard = serving.subscribe();
    let tasks = link::start(shared.clone(), table, Some(serving)).await?;
    let why = tokio::select! {
        heard = tokio::time::timeout(SERVE_WITHIN, heard.wait_for(|serving| *serving != Serving::NotYet)) => {
            match heard.map(|heard| heard.map(|serving| serving.clone())) {
                Ok(Ok(Serving::Yes)) => None,
                Ok(Ok(Serving::Never(why))) => Some(why),
                _ => Some(format!("its workers were not ready within {} s", SERVE_WITHIN.as_secs())),
            }
        }
        () = stop => Some("it was told to stop".to_owned()),
    };
    let Some(why) = why else {
        shared.gateway.open();
        before.replaced().await;
        tracing::info!("took over from the agent that ran before");
        return Ok(tasks);
    };
    // The other agent hears the end of the connection, and needs the journal then.
    tasks.end().await;
    shared.journal.close().await;
    shared.fleet.retire(&[]).await;
    Err(AgentError::Worker(format!("this agent doesn't take over, and the one that runs goes on: {why}")))
}

/// Goes on after a successor gave up, as soon as its journal is free.
async fn resume(shared: &Arc<Shared>) -> Result<link::Tasks, AgentError> {
    while let Err(error) = shared.journal.reopen().await {
        tracing::warn!(%error, "the journal is not free yet");
        tokio::time::sleep(RESUME_EVERY).await;
    }
    // The successor may have kept routes of its own; their epochs are used.
    let table = routing::saved(&shared.home)?;
    link::start(shared.clone(), table, None).await
}

/// Lets requests finish and ends everything.
async fn stopped(shared: Arc<Shared>, writer: JoinHandle<()>, linger: Duration) -> Result<(), AgentError> {
    let report = shared.gateway.shutdown(DRAIN, linger).await;
    tracing::info!(?report, "the gateway is drained");
    shared.fleet.retire(&[]).await;
    shared.fleet.leave();
    shared.journal.close().await;
    drop(shared);
    // The thread ends when the gateway's end of the channel is gone; a minute is longer than any file takes.
    tokio::task::spawn_blocking(move || writer.join()).await.ok();
    Ok(())
}
