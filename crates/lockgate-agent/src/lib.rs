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
//! | [`look`] | what is judged, and by which counts |
//! | `routing` | from deployments to the gateway's table |
//! | `reconciler` | desired against actual, every few milliseconds |
//! | `link` | the loops that talk to the server |
//! | `crash` | where tests let it die |
//! | `live` | what is seen right now, for people |
//! | `predictions`, `bodies` | the prediction log, and what it says of bodies |
//! | [`python`] | Python environments |

mod bodies;
mod caller;
mod crash;
mod error;
mod evidence;
pub mod fence;
mod fleet;
mod gates;
mod home;
mod journal;
pub mod judge;
mod link;
mod live;
pub mod look;
mod predictions;
pub mod python;
mod reconciler;
mod releases;
mod routing;
mod server;

pub use error::AgentError;
pub use evidence::Trust;
pub use home::{Home, write_private};

use fleet::{Fleet, FleetOptions};
use journal::Journal;
use lockgate_blob::BlobStore;
use lockgate_core::clock::{Clock, Entropy};
use lockgate_core::gate::PublicKey;
use lockgate_core::id::EnvironmentName;
use lockgate_gateway::{Deps, Gateway, GatewayOptions, LogSink};
use p256::ecdsa::SigningKey;
use predictions::PredictionLog;
use releases::Releases;
use server::Server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many prediction records may wait for their file; more are dropped and counted.
const LOG_QUEUE: usize = 50_000;

/// How long requests in flight may take when the agent stops.
const DRAIN: Duration = Duration::from_secs(10);

/// What an agent needs to run.
#[derive(Debug)]
pub struct AgentOptions {
    /// The environment that it is.
    pub environment: EnvironmentName,
    /// Its own folder.
    pub home: PathBuf,
    /// Where its gateway listens.
    pub listen: SocketAddr,
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
    pub(crate) predictions: PredictionLog,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Runs an agent until `stop` resolves.
///
/// # Errors
/// Where it can't start: its folder, its key, its database or its port. What happens later is handled and logged.
pub async fn run(
    options: AgentOptions,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let home = Home::open(&options.home)?;
    let key = home.key(&*entropy)?;
    let mut trust = options.trust;
    let public = PublicKey::of(&key).map_err(|e| AgentError::Key(e.to_string()))?;
    trust.add(options.environment.clone(), public);
    let journal =
        Journal::open(&home.path("agent.db"), options.environment.clone(), clock.clone(), entropy.clone())
            .await?;
    let blobs = BlobStore::open(home.path("blobs")).await?;
    let (sink, records) = LogSink::channel(LOG_QUEUE);
    let (predictions, writer) = PredictionLog::start(home.path("predictions"), records);
    let table = routing::saved(&home)?;
    let gateway_options = GatewayOptions {
        threads: options.threads,
        ..GatewayOptions::new(options.listen, options.environment.to_string())
    };
    let deps = Deps { clock: clock.clone(), entropy: entropy.clone(), log: sink };
    let gateway = Gateway::start(gateway_options, table.clone(), deps)?;
    let gateway_url = format!("http://{}", gateway.local_addr());
    let fleet = Arc::new(Fleet::new(FleetOptions {
        home: options.home.clone(),
        program: options.program,
        onnxruntime: options.onnxruntime,
        sockets: home.path("run"),
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
        predictions,
        clock,
    });
    tracing::info!(gateway = shared.gateway_url, "the agent is ready");
    let tasks = link::start(shared.clone(), table).await?;
    stop.await;
    tracing::info!("the agent stops");
    tasks.end().await;
    let report = shared.gateway.shutdown(DRAIN).await;
    tracing::info!(?report, "the gateway is drained");
    shared.fleet.retire(&[]).await;
    shared.journal.close().await;
    drop(shared);
    // The thread ends when the gateway's end of the channel is gone; a minute is longer than any file takes.
    tokio::task::spawn_blocking(move || writer.join()).await.ok();
    Ok(())
}
