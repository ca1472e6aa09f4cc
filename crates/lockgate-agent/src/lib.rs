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
//! | [`judge`], [`goals`] | from counts to verdicts; what outcomes that came later say |
//! | [`look`] | what is judged, and by which counts |
//! | `outcomes` | feedback: taken, kept, and found again |
//! | `routing` | from deployments to the gateway's table |
//! | `reconciler` | desired against actual, every few milliseconds |
//! | `link` | the loops that talk to the server |
//! | `handover`, [`descriptor`] | one agent takes over from another without a pause |
//! | `crash` | where tests let it die |
//! | `live` | what is seen right now, for people |
//! | `outbox` | what smoke tests wrote, until the server has it |
//! | `readings` | what workers take of the machine |
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
pub mod goals;
mod handover;
mod home;
mod inline;
mod journal;
pub mod judge;
mod link;
mod live;
pub mod look;
pub mod optimise;
mod outbox;
mod outcomes;
mod predictions;
mod preview;
pub mod python;
mod readings;
mod reconciler;
mod releases;
mod routing;
mod server;
#[cfg(test)]
mod testing;

pub use error::AgentError;
pub use evidence::Trust;
pub use home::{Home, write_private};

use fleet::{Fleet, FleetOptions};
use handover::{Door, Predecessor, SERVE_WITHIN};
use journal::Journal;
use lockgate_blob::BlobStore;
use lockgate_core::bearer::Tokens;
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::gate::PublicKey;
use lockgate_core::id::EnvironmentName;
use lockgate_core::preview::PreviewKey;
use lockgate_core::route::RouteTable;
use lockgate_gateway::{Deps, Gateway, GatewayOptions, LogSink};
use outbox::Outbox;
use outcomes::Outcomes;
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

/// How long requests in flight may take when another agent has taken over; nobody waits for the end of this one.
const LONG_DRAIN: Duration = Duration::from_secs(180);

/// How long an agent that is replaced keeps connections that wait for a request: one may be on its way.
const LINGER: Duration = Duration::from_secs(3);

/// How often an agent whose successor gave up tries to go on.
const RESUME_EVERY: Duration = Duration::from_millis(200);

/// How long the last file of the prediction log may take.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

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
    /// The tokens that `/feedback` takes, where it takes none without.
    pub feedback_tokens: Option<Tokens>,
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
    /// The models that run inside the gateway.
    pub(crate) inside: inline::Inside,
    pub(crate) gateway_url: String,
    /// What preview tokens are made with.
    pub(crate) preview_key: PreviewKey,
    pub(crate) predictions: PredictionLog,
    pub(crate) outcomes: Arc<Outcomes>,
    /// What workers take of the machine.
    pub(crate) taking: readings::Taking,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Arc<dyn Clock>,
    /// Says that this life's sockets are in use.
    _alive: std::fs::File,
}

impl Shared {
    /// Lets go of the databases, for another agent.
    async fn let_go(&self) {
        self.journal.close().await;
        self.outcomes.close().await;
    }
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
    let key = home.key(&*entropy)?;
    let mut before = None;
    if options.take_over {
        before = Predecessor::find(&home, &key, options.listen).await?;
    }
    if let Some(listener) = before.as_mut().and_then(Predecessor::take_listener) {
        options.listener = Some(listener);
    }
    let (shared, table, writer) = open(options, home, key, clock, entropy.clone()).await?;
    let mut stop = std::pin::pin!(stop);
    let tasks = match before {
        None => {
            shared.gateway.open();
            link::start(shared.clone(), table, None).await?
        }
        Some(before) => take_over(&shared, table, before, stop.as_mut()).await?,
    };
    tracing::info!(gateway = shared.gateway_url, "the agent is ready");
    let end = in_office(&shared, tasks, &*entropy, stop).await;
    tracing::info!(?end, "the agent stops");
    stopped(shared, writer, end).await
}

/// Why an agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Told,
    Replaced,
}

/// Serves, and lets others take over, until one has or the agent is told to stop.
async fn in_office(
    shared: &Arc<Shared>,
    tasks: link::Tasks,
    entropy: &dyn Entropy,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> End {
    let mut tasks = Some(tasks);
    // Without a door nobody can take over; that is no reason not to serve.
    let door =
        Door::open(&shared.home).inspect_err(|error| tracing::error!(%error, "nobody can take over")).ok();
    let knocks = || async {
        match &door {
            Some(door) => door.successor(&shared.key, entropy, || shared.gateway.listener()).await,
            None => std::future::pending().await,
        }
    };
    let end = loop {
        let successor = tokio::select! {
            () = &mut stop => break End::Told,
            successor = knocks() => successor,
            resumed = resume(shared), if tasks.is_none() => {
                tasks = Some(resumed);
                tracing::info!("this agent judges again");
                continue;
            }
        };
        if tasks.as_ref().is_some_and(|tasks| !tasks.is_settled()) {
            tracing::warn!(
                "a drill is under way, or a way back not written down yet, so nobody may take over now"
            );
            successor.refuse().await;
            continue;
        }
        tracing::info!("another agent takes over; this one goes on serving by its last routes");
        if let Some(tasks) = tasks.take() {
            tasks.end().await;
        }
        shared.let_go().await;
        tokio::select! {
            () = &mut stop => break End::Told,
            replaced = successor.takes_over(|| shared.gateway.open_breakers()) => if replaced { break End::Replaced },
        }
        tracing::warn!("the other agent has given up; this one goes on");
    };
    if let Some(tasks) = tasks {
        tasks.end().await;
    }
    end
}

/// Everything that an agent is made of.
async fn open(
    options: AgentOptions,
    home: Home,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<Shared>, RouteTable, JoinHandle<()>), AgentError> {
    let mut trust = options.trust;
    let public = PublicKey::of(&key).map_err(|e| AgentError::Key(e.to_string()))?;
    trust.add(options.environment.clone(), public);
    let journal =
        Journal::open(&home.path("agent.db"), options.environment.clone(), clock.clone(), entropy.clone())
            .await?;
    let (sockets, alive) = home.sockets(&*entropy)?;
    let blobs = BlobStore::open(home.path("blobs")).await?;
    let (sink, records) = LogSink::channel(LOG_QUEUE);
    let (sink, calls) = sink.with_feedback();
    let outcomes = Arc::new(Outcomes::open(&home.path("feedback.db"), clock.clone()).await?);
    let (predictions, writer) =
        PredictionLog::start(home.path("predictions"), records, Some(outcomes.clone()));
    // It ends with the gateway, whose calls it answers.
    drop(tokio::spawn(outcomes.clone().keep(calls, predictions.clone())));
    let table = routing::saved(&home)?;
    let preview_key = preview::key(&home, &*entropy)?;
    let gateway_options = GatewayOptions {
        threads: options.threads,
        preview_key: Some(preview_key.clone()),
        feedback_tokens: options.feedback_tokens,
        ..GatewayOptions::new(options.listen, options.environment.to_string())
    };
    let deps = Deps { clock: clock.clone(), entropy: entropy.clone(), log: sink, listener: options.listener };
    let gateway = Gateway::start(gateway_options, table.clone(), deps)?;
    let gateway_url = format!("http://{}", gateway.local_addr());
    let inside = inline::Inside::new(options.onnxruntime.clone(), gateway.threads());
    let fleet = Arc::new(Fleet::new(FleetOptions {
        home: options.home.clone(),
        program: options.program,
        onnxruntime: options.onnxruntime,
        sockets,
        logs: home.path("logs"),
        gateway: gateway.local_addr(),
    }));
    let shared = Arc::new(Shared {
        server: Server::new(&options.server, options.token, options.environment.clone())?,
        environment: options.environment,
        releases: Releases::new(blobs, home.path("releases")),
        outbox: Outbox::open(&home)?,
        home,
        key,
        trust,
        data: options.data,
        isolation: options.isolation,
        journal,
        fleet,
        gateway,
        inside,
        gateway_url,
        preview_key,
        predictions,
        outcomes,
        taking: readings::Taking::default(),
        clock,
        _alive: alive,
    });
    drop(tokio::spawn(readings::keep(Arc::downgrade(&shared))));
    Ok((shared, table, writer))
}

/// Starts beside the agent that runs, and takes connections as soon as everything serves that has traffic.
async fn take_over(
    shared: &Arc<Shared>,
    table: RouteTable,
    mut before: Predecessor,
    stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Result<link::Tasks, AgentError> {
    let serving = watch::Sender::new(Serving::NotYet);
    let mut heard = serving.subscribe();
    let tasks = link::start(shared.clone(), table, Some(serving)).await?;
    let mut why = tokio::select! {
        heard = tokio::time::timeout(SERVE_WITHIN, heard.wait_for(|serving| *serving != Serving::NotYet)) => {
            match heard.map(|heard| heard.map(|serving| serving.clone())) {
                Ok(Ok(Serving::Yes)) => None,
                Ok(Ok(Serving::Never(why))) => Some(why),
                _ => Some(format!("not everything was ready within {} s", SERVE_WITHIN.as_secs())),
            }
        }
        () = stop => Some("it was told to stop".to_owned()),
        () = before.stays() => Some("that one did not want to wait any longer".to_owned()),
    };
    if why.is_none() {
        if let Some(breakers) = before.replace().await {
            for open in breakers.iter().filter(|open| shared.gateway.open_breaker(open)) {
                tracing::warn!(?open, "the agent before had opened a breaker, and it stays open");
            }
            shared.gateway.open();
            tracing::info!("took over from the agent that ran before");
            return Ok(tasks);
        }
        why = Some("that one did not want to wait any longer".to_owned());
    }
    // The other agent hears the end of the connection, and needs the journal then.
    tasks.end().await;
    shared.let_go().await;
    shared.fleet.retire(&[]).await;
    shared.fleet.leave();
    let why = why.unwrap_or_default();
    Err(AgentError::Worker(format!("this agent doesn't take over, and the one that runs goes on: {why}")))
}

/// Goes on after a successor gave up, as soon as its journal is free. One that a newer program has changed can't be gone on
/// with: then this agent serves by its last routes until the newer one comes again.
async fn resume(shared: &Arc<Shared>) -> link::Tasks {
    let mut said = String::new();
    loop {
        tokio::time::sleep(RESUME_EVERY).await;
        let tasks = async {
            shared.outcomes.reopen().await?;
            shared.journal.reopen().await?;
            // The successor may have kept routes of its own; their epochs are used.
            let table = routing::saved(&shared.home)?;
            link::start(shared.clone(), table, None).await
        };
        match tasks.await {
            Ok(tasks) => return tasks,
            Err(error) => {
                let words = error.to_string();
                if words != said {
                    tracing::error!(
                        error = words,
                        "this agent serves, and can't judge or write: start the newer one again"
                    );
                    said = words;
                }
            }
        }
    }
}

/// Lets requests finish and ends everything.
async fn stopped(shared: Arc<Shared>, writer: JoinHandle<()>, end: End) -> Result<(), AgentError> {
    let (grace, linger) = match end {
        End::Told => (DRAIN, Duration::ZERO),
        End::Replaced => (LONG_DRAIN, LINGER),
    };
    let report = shared.gateway.shutdown(grace, linger).await;
    tracing::info!(?report, "the gateway is drained");
    shared.fleet.retire(&[]).await;
    shared.fleet.leave();
    shared.predictions.drain();
    shared.let_go().await;
    drop(shared);
    // The thread ends when the gateway's end of the channel is gone, unless a client that reads nothing holds it.
    let until = tokio::time::Instant::now() + WRITE_WITHIN;
    while !writer.is_finished() && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
