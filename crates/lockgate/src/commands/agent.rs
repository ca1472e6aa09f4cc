//! `agent`: one environment. Fenced off before anything else is started.

use crate::cli;
use crate::exit::Exit;
use crate::world;
use anyhow::Context as _;
use lockgate_agent::{AgentOptions, Trust};
use lockgate_core::bearer::Tokens;
use lockgate_core::id::EnvironmentName;
use std::path::Path;

/// What has to happen while the process has one thread only.
pub(crate) fn enclose(args: &cli::Agent) -> anyhow::Result<String> {
    std::fs::create_dir_all(&args.home).with_context(|| format!("can't make {}", args.home.display()))?;
    let secrets = std::iter::once(&args.token_file)
        .chain(&args.trust)
        .chain(&args.feedback_token_file)
        .filter_map(|p| std::path::absolute(p).ok());
    lockgate_agent::fence::hide(secrets.collect());
    match &args.fence {
        None => Ok(format!("own folder, own key, own process; {}", lockgate_agent::fence::gates())),
        Some(fence) => lockgate_agent::fence::enclose(fence, &args.home)
            .map_err(|e| anyhow::anyhow!("the environment can't be fenced off: {e}")),
    }
}

/// The tokens that `/feedback` takes. Where they can't be read nothing starts, for it would answer everybody.
pub(crate) fn feedback_tokens(path: &Path) -> anyhow::Result<Tokens> {
    let what = || format!("the file of feedback tokens {}", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", what()))?;
    Tokens::parse(&text).with_context(|| format!("{} is not right", what()))
}

/// `agent`
pub(crate) async fn agent(args: &cli::Agent, server: &str, isolation: String) -> anyhow::Result<Exit> {
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("the token file {} can't be read", args.token_file.display()))?;
    let feedback_tokens = args.feedback_token_file.as_deref().map(feedback_tokens).transpose()?;
    let trust = match &args.trust {
        Some(dir) => Trust::read(dir)?,
        None => Trust::default(),
    };
    let (clock, entropy) = world::system();
    let onnxruntime = match &args.onnxruntime {
        Some(path) => path.clone(),
        None => super::worker::library(&args.home.join("lib"), &|text| tracing::info!("{text}"))?,
    };
    let listener = if args.given_socket {
        let given = lockgate_agent::descriptor::receive(std::io::stdin());
        Some(given.context("no listening socket comes over standard input")?)
    } else {
        None
    };
    let options = AgentOptions {
        environment: EnvironmentName::new(args.environment.clone())?,
        home: args.home.clone(),
        listen: args.listen,
        listener,
        take_over: args.take_over,
        server: server.to_owned(),
        token: token.trim().to_owned(),
        feedback_tokens,
        trust,
        data: args.data.clone().unwrap_or_else(|| Path::new(".").to_owned()),
        isolation,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        // This very program, also after another file was put in its place: its workers must be of one kind with it.
        program: "/proc/self/exe".into(),
        onnxruntime,
    };
    lockgate_agent::run(options, clock, entropy, world::told_to_stop(args.tied)).await?;
    Ok(Exit::Done)
}
