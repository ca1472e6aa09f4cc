//! What can be said to what goes on running: `up`, and the roles that it starts.

use clap::Args;
use lockgate_blob::BlobPlace;
use std::path::PathBuf;

/// `up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The server's port; environments take the next ones, in order
    #[arg(long, default_value_t = 7600, env = "LOCKGATE_PORT")]
    pub(crate) port: u16,
    /// Go on in the background and return as soon as everything is ready
    #[arg(long, short = 'd')]
    pub(crate) detach: bool,
    /// Stop what a detached `up` started
    #[arg(long, conflicts_with = "detach")]
    pub(crate) stop: bool,
    /// Replace the server and the agents that run by this program's file as it is now, without a lost request
    #[arg(long, conflicts_with_all = ["detach", "stop"])]
    pub(crate) upgrade: bool,
}

/// `server`
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Address to listen on; all others than loopback need --tokens, loopback needs --tokens or --trust-loopback
    #[arg(long, default_value = "127.0.0.1:7600")]
    pub(crate) listen: std::net::SocketAddr,
    /// Folder for the database and artifacts
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// Database URL [default: SQLite in the home folder]
    #[arg(long, env = "LOCKGATE_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Where artifacts rest: a folder, or s3://BUCKET/PREFIX, which all servers over one database share [default: `blobs` in
    /// the home folder]
    #[arg(long, env = "LOCKGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<BlobPlace>,
    /// File of accounts, one a line: `user|service|agent NAME SHA256-OF-TOKEN`
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Believe the name that a loopback client claims (what `lockgate up` uses)
    #[arg(long)]
    pub(crate) trust_loopback: bool,
    /// Stop when standard input ends: whoever started this has gone
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
    /// Let webhooks lead to private addresses and to HTTP: whoever may make one can then reach this server's own network
    #[arg(long, env = "LOCKGATE_WEBHOOKS_ALLOW_PRIVATE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) webhooks_allow_private: bool,
}

/// `agent`
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The environment that this agent is
    #[arg(long)]
    pub(crate) environment: String,
    /// Folder for its database, key, releases and logs
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// Address of its gateway
    #[arg(long, default_value = "127.0.0.1:7610")]
    pub(crate) listen: std::net::SocketAddr,
    /// File with its bearer token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// File with the tokens that `/feedback` takes, one in each line [default: it takes none, and answers everybody]
    #[arg(long, value_name = "FILE")]
    pub(crate) feedback_token_file: Option<PathBuf>,
    /// Folder with the public keys of earlier environments, `<environment>.pem`
    #[arg(long, value_name = "DIR")]
    pub(crate) trust: Option<PathBuf>,
    /// Folder that the paths of its datasets start from
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder that this agent must not look into, beside its own home in it
    #[arg(long, value_name = "DIR")]
    pub(crate) fence: Option<PathBuf>,
    /// Gateway threads [default: one for each core]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// The ONNX Runtime library [default: found, or installed from PyPI]
    #[arg(long, value_name = "FILE", env = "LOCKGATE_ORT_LIB")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Take over from an agent that runs over the same folder, once everything that has traffic is ready here; where none
    /// runs, start as ever
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Stop when standard input ends: whoever started this has gone
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
    /// The listening socket comes over standard input
    #[arg(long, hide = true)]
    pub(crate) given_socket: bool,
}

/// `worker`
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Folder with the release's files
    #[arg(long, value_name = "DIR")]
    pub(crate) model_dir: PathBuf,
    /// The release's manifest
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: PathBuf,
    /// The ONNX Runtime library
    #[arg(long, value_name = "FILE")]
    pub(crate) onnxruntime: PathBuf,
    /// The Python of the release's own environment
    #[arg(long, value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    /// The most rows of several requests in one call of a Python model
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) batch_rows: usize,
    /// How long a call of a Python model may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub(crate) call_limit: u64,
    /// Rows to warm up with
    #[arg(long, value_name = "FILE")]
    pub(crate) warmup: Option<PathBuf>,
    /// Memory limit in bytes; 0 means none
    #[arg(long, default_value_t = 0)]
    pub(crate) memory: u64,
}
