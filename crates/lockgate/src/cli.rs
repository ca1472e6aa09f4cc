//! The command line: what can be said, in clap's terms, without any behaviour.

mod db;
mod moving;
mod registry;
mod roles;

pub(crate) use db::{Db, DbPlace, GcOptions};
pub(crate) use moving::{Export, ExportMlflow, Import, ImportMlflow};
pub(crate) use registry::{Model, ModelHistory, Webhooks};
pub(crate) use roles::{Agent, Server, Up, Worker};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Carries machine-learning models through environments: no evidence, no promotion.
#[derive(Debug, Parser)]
#[command(name = "lockgate", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Start here:  lockgate demo   or, in your own repository:  lockgate init && lockgate up"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where the server is [default: the one that `lockgate up` started for this project; outside any project http://127.0.0.1:7600]
    #[arg(long, global = true, env = "LOCKGATE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Who you are, for servers without login [default: Git's user.email]
    #[arg(long = "as", global = true, env = "LOCKGATE_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// A bearer token, for servers with login
    #[arg(long, global = true, env = "LOCKGATE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The project's folder [default: the nearest folder upwards with a lockgate.toml]
    #[arg(long, short = 'C', global = true, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
    /// Where this project's server and agents keep their state [default: ~/.local/state/lockgate/<project>-<hash>]
    #[arg(long, global = true, env = "LOCKGATE_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Override one value of lockgate.toml, for example env.production.vars.THRESHOLD=0.4
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a lockgate.toml for this repository
    Init(Init),
    /// Check lockgate.toml without a server
    Check,
    /// Give the server this lockgate.toml (promote and release create do it by themselves)
    Apply,
    /// Start the server and every environment's agent on this machine
    Up(Up),
    /// Run the server (control plane) alone
    Server(Server),
    /// Run one environment's agent
    Agent(Agent),
    /// Run one model worker (agents start these)
    Worker(Worker),
    /// Run the pipeline's stages whose inputs changed
    Run(Run),
    /// Make and look at releases
    #[command(subcommand)]
    Release(Release),
    /// Show what a promotion would do and how long it would take
    Plan(Plan),
    /// Take a release into an environment
    Promote(Promote),
    /// Say yes to a promotion
    Approve(Approve),
    /// Say no to a promotion
    Reject(Decision),
    /// Show environments, promotions and what to do next
    Status,
    /// Follow a promotion until it ends
    Watch(Watch),
    /// Stop a rollout's forward move; its guards go on
    Pause(Decision),
    /// Let a paused rollout go on
    Resume(Decision),
    /// Let a preview go on that waits for a person: all users, or the next step
    Switch(Decision),
    /// Get an address and a token that lead to a release which has no users yet
    Preview(crate::commands::preview::Args),
    /// Send a rollout's traffic back to the baseline
    Abort(Decision),
    /// Send an environment's traffic back to what served before
    Rollback(Rollback),
    /// Rehearse the way back under real traffic: all of it goes there for a moment, and home again
    Drill(crate::commands::drill::Args),
    /// Explain where a promotion stands: numbers, evidence, people
    Why(Which),
    /// Show what an environment served, and when
    History(History),
    /// Look at the model registry
    #[command(subcommand)]
    Model(Model),
    /// Show what was told to webhooks, and what couldn't be
    Webhooks(Webhooks),
    /// Show how one prediction came about
    Trace(Trace),
    /// Show the log of a stage, gate or worker
    Logs(Logs),
    /// Verify or read the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Check, back up and restore a server's database
    #[command(subcommand)]
    Db(Db),
    /// Look at environments
    #[command(subcommand)]
    Env(Env),
    /// Ask a model for predictions
    Predict(Predict),
    /// Take in a whole store of tracking data: experiments, runs, artifacts, the model registry
    #[command(subcommand)]
    Import(Import),
    /// Write everything that the server holds of tracking data to a folder
    #[command(subcommand)]
    Export(Export),
    /// Run the whole story on real data: train, promote, break, roll back
    Demo(Demo),
    /// Print a completion script for your shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print reference texts for the documentation
    #[command(hide = true)]
    Reference {
        /// `cli` or `config-schema`
        what: String,
    },
}

/// `init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Overwrite an existing lockgate.toml
    #[arg(long)]
    pub(crate) force: bool,
}

/// `run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Only these stages and what they need
    pub(crate) stages: Vec<String>,
    /// Run the named stages, or all, even if nothing changed
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Say what would run, and why, and run nothing
    #[arg(long)]
    pub(crate) explain: bool,
    /// Set a parameter, as an environment variable of the stages
    #[arg(long, short = 'p', value_name = "NAME=VALUE")]
    pub(crate) param: Vec<String>,
}

/// `release …`
#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// Make a release of a registered model version: of any flavour of MLflow, with a signature; ONNX is preferred
    #[command(visible_alias = "build")]
    Create {
        /// `model@alias`, `model:version`, or `model` for its latest version
        model: String,
        /// Make it although this folder may not be what made the model, and say why (goes on record)
        #[arg(long, value_name = "WHY", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        anyway: Option<String>,
        /// Serve a scikit-learn, XGBoost or LightGBM model as an ONNX graph, where the graph is shown to answer alike; `require`
        /// makes no release where it is not
        #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "try")]
        optimise: Option<Optimise>,
        /// The largest difference between two numbers that are alike: this much, and this much of the model's own number
        #[arg(long, value_name = "N", default_value = "1e-5", value_parser = tolerance, requires = "optimise")]
        tolerance: f64,
    },
    /// Show a release
    Show {
        /// The release's digest, or its beginning
        release: String,
    },
    /// List releases, newest first
    List,
    /// Show what differs between two releases
    Diff {
        /// The older one
        old: String,
        /// The newer one
        new: String,
    },
}

/// What becomes of a model that no graph can be shown to stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Optimise {
    /// It is released as it is, and why is said
    Try,
    /// No release is made
    Require,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("it must be 0 or more".to_owned()) }
}

/// `plan`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The release's digest, or its beginning; `latest` for the newest
    #[arg(default_value = "latest")]
    pub(crate) release: String,
    /// The environment to enter
    #[arg(long, short, alias = "to", value_name = "NAME")]
    pub(crate) env: String,
    /// Expected requests per second [default: measured]
    #[arg(long, value_name = "N")]
    pub(crate) rps: Option<f64>,
}

/// `promote`
#[derive(Debug, Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// Follow it until it ends or waits for people
    #[arg(long, short)]
    pub(crate) wait: bool,
    /// Give up waiting after this long, for example 10m (the promotion goes on)
    #[arg(long, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Option<String>,
    /// Why a release that its guards rolled back before may enter again
    #[arg(long, value_name = "WHY")]
    pub(crate) lift_quarantine: Option<String>,
}

/// Which promotion
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The promotion's id, or its end; without it the latest one
    pub(crate) promotion: Option<String>,
    /// The latest promotion into this environment
    #[arg(long, short, value_name = "NAME")]
    pub(crate) env: Option<String>,
}

/// `approve`
#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The plan that you saw, as `lockgate why` shows it; needed where its terms changed
    #[arg(long, value_name = "HASH")]
    pub(crate) plan: Option<String>,
}

/// A decision about a promotion
#[derive(Debug, Args)]
pub(crate) struct Decision {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Why
    #[arg(long, short, default_value = "")]
    pub(crate) reason: String,
}

/// `watch`
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Stop after this long, for example 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
}

/// `rollback`
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The environment
    pub(crate) environment: String,
    /// The model, where the environment serves several
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Why
    #[arg(long, short, default_value = "")]
    pub(crate) reason: String,
    /// Follow it until it is verified
    #[arg(long, short)]
    pub(crate) wait: bool,
}

/// `history`
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The environment
    pub(crate) environment: String,
    /// What served at this time, for example 2026-11-24T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Only this model
    #[arg(long)]
    pub(crate) model: Option<String>,
}

/// `trace`
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The prediction's id, from the answer's x-lockgate-prediction-id header
    pub(crate) prediction: String,
    /// Look in this environment only
    #[arg(long, short, value_name = "NAME")]
    pub(crate) env: Option<String>,
}

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// What: `run` (the pipeline's last one, all stages), `stage NAME`, `gate NAME`, `worker ENVIRONMENT`,
    /// `promotion [ID]` (all its gates), `server`, `agent ENVIRONMENT`
    #[arg(value_parser = ["run", "stage", "gate", "worker", "promotion", "server", "agent"])]
    pub(crate) what: String,
    /// Its name
    pub(crate) name: Option<String>,
    /// The promotion that a gate belongs to [default: the latest]
    #[arg(long)]
    pub(crate) promotion: Option<String>,
    /// At most this many kilobytes of the end
    #[arg(long, default_value_t = 64)]
    pub(crate) tail: u64,
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check the hash chain, and that the tables follow from the log
    Verify,
    /// Print the log's entries, the newest unless you say where to begin
    Log {
        /// From this entry on [default: where the newest begin]
        #[arg(long)]
        from: Option<u64>,
        /// How many
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
}

/// `env …`
#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// List environments, in order
    List,
    /// Show one environment
    Show {
        /// Its name
        environment: String,
    },
}

/// `predict`
#[derive(Debug, Args)]
pub(crate) struct Predict {
    /// The environment to ask
    #[arg(long, short, value_name = "NAME")]
    pub(crate) env: String,
    /// The model, where the environment serves several
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Rows as JSON: an object, a list of objects, an Open Inference or MLflow body; @FILE reads a file, - standard input
    pub(crate) rows: String,
    /// The unit's value for the configured header
    #[arg(long)]
    pub(crate) unit: Option<String>,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Requests per second of the traffic generator
    #[arg(long, default_value_t = 250.0)]
    pub(crate) rps: f64,
    /// Where the example is unpacked [default: a folder in your state folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave server and agents running at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// The server's port
    #[arg(long, default_value_t = 7600)]
    pub(crate) port: u16,
}
