//! `lockgate`: one binary, several roles.
//!
//! | module | subject |
//! |---|---|
//! | `cli` | what can be said |
//! | `commands` | what is done, a file for each group of verbs |
//! | `context` | project, state folder, server, person |
//! | `client` | the native API's client |
//! | `render`, `output` | text for people, JSON for programs |
//! | `exit` | exit codes |
//! | `courier` | messages to other servers |
//! | `git` | what is asked of Git |
//! | `lock` | one `up` for a state folder |
//! | `processes` | processes of this machine |
//! | `world` | the real clock, randomness and signals |

mod cli;
mod client;
mod commands;
mod context;
mod courier;
mod exit;
mod git;
mod lock;
mod output;
mod processes;
mod render;
mod world;

use clap::Parser as _;
use clap::error::ErrorKind;
use cli::{Cli, Command};
use context::Context;
use exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return if asked { Exit::Done.into() } else { Exit::Usage.into() };
        }
    };
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::error(&error);
            Exit::Error.into()
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Exit> {
    let level = if matches!(cli.command, Command::Server(_) | Command::Agent(_)) { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOCKGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    // A worker has a runtime of its own, and an agent is fenced off while it has one thread.
    if let Command::Worker(args) = &cli.command {
        return commands::worker::worker(args);
    }
    world::tls();
    let isolation = match &cli.command {
        Command::Agent(args) => Some(commands::agent::enclose(args)?),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(run(cli, isolation));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    exit
}

async fn run(cli: Cli, isolation: Option<String>) -> anyhow::Result<Exit> {
    let ctx = Context::new(cli.global);
    match &cli.command {
        Command::Init(args) => commands::project::init(&ctx, args),
        Command::Check => commands::project::check(&ctx),
        Command::Apply => commands::project::apply(&ctx).await,
        Command::Up(args) => commands::up::up(&ctx, args).await,
        Command::Server(args) => commands::server::server(args).await,
        Command::Agent(args) => {
            let server = ctx.global.server.clone().unwrap_or_else(|| context::USUAL_SERVER.to_owned());
            commands::agent::agent(args, &server, isolation.unwrap_or_default()).await
        }
        Command::Worker(args) => commands::worker::worker(args),
        Command::Run(args) => commands::run::run(&ctx, args).await,
        Command::Release(args) => commands::release::release(&ctx, args).await,
        Command::Plan(args) => commands::promotion::plan(&ctx, args).await,
        Command::Promote(args) => commands::promotion::promote(&ctx, args).await,
        Command::Approve(args) => commands::promotion::approve(&ctx, args).await,
        Command::Reject(args) => commands::promotion::decide(&ctx, "reject", args).await,
        Command::Pause(args) => commands::promotion::decide(&ctx, "pause", args).await,
        Command::Resume(args) => commands::promotion::decide(&ctx, "resume", args).await,
        Command::Switch(args) => commands::promotion::decide(&ctx, "switch", args).await,
        Command::Preview(args) => commands::preview::preview(&ctx, args).await,
        Command::Abort(args) => commands::promotion::decide(&ctx, "abort", args).await,
        Command::Rollback(args) => commands::promotion::rollback(&ctx, args).await,
        Command::Drill(args) => commands::drill::drill(&ctx, args).await,
        Command::Status => commands::look::status(&ctx).await,
        Command::Watch(args) => commands::promotion::watch(&ctx, args).await,
        Command::Why(which) => commands::promotion::why(&ctx, which).await,
        Command::History(args) => commands::look::history(&ctx, args).await,
        Command::Trace(args) => commands::look::trace(&ctx, args).await,
        Command::Logs(args) => commands::look::logs(&ctx, args).await,
        Command::Audit(args) => commands::look::audit(&ctx, args).await,
        Command::Model(cli::Model::History(args)) => commands::look::model_history(&ctx, args).await,
        Command::Webhooks(args) => commands::look::webhooks(&ctx, args).await,
        Command::Db(args) => commands::db::db(&ctx, args).await,
        Command::Env(args) => commands::look::env(&ctx, args).await,
        Command::Predict(args) => commands::predict::predict(&ctx, args).await,
        Command::Import(cli::Import::Mlflow(args)) => commands::import::import(&ctx, args).await,
        Command::Export(cli::Export::Mlflow(args)) => commands::import::export(&ctx, args).await,
        Command::Demo(args) => commands::demo::demo(&ctx, args).await,
        Command::Completions { shell } => Ok(commands::reference::completions(ctx.out, *shell)),
        Command::Reference { what } => commands::reference::reference(ctx.out, what),
    }
}
