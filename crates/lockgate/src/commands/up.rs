//! `up`: the server and every environment's agent on this machine, as processes of their own that talk over HTTP only.

mod process;
mod upgrade;

use crate::cli;
use crate::context::{Context, UpFile, Upgrade};
use crate::exit::Exit;
use crate::lock::{self, Holder, UpLock};
use crate::output::{Tone, table};
use crate::world;
use anyhow::{Context as _, bail};
use lockgate_config::Project;
use lockgate_core::digest::Digest;
use process::{Role, last_lines};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long processes may take to end when they are told to.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// `up`
pub(crate) async fn up(ctx: &Context, args: &cli::Up) -> anyhow::Result<Exit> {
    if args.stop {
        return stop(ctx).await;
    }
    if args.upgrade {
        return upgrade::ask(ctx).await;
    }
    let project = super::project::load(ctx)?;
    let layout = Layout::new(ctx, &project, args.port)?;
    if args.detach {
        return detach(ctx, &layout).await;
    }
    let Some(_lock) = UpLock::take(&layout.state)? else {
        return Err(runs_already(ctx, &layout.state));
    };
    forget_last(&layout.state)?;
    layout.check_ports()?;
    ctx.out.say("preparing ONNX Runtime");
    let library = super::worker::library(&layout.state.join("lib"), &|text| ctx.out.say(text))?;
    layout.prepare()?;
    let mut kept = Vec::new();
    for role in layout.roles(&library)? {
        let mut process = role.start(false)?;
        role.ready(&mut process).await?;
        if role.name == "server" {
            super::project::applied(&layout.context(ctx)).await?;
        }
        kept.push(role.kept(process));
    }
    // Before anybody can know of this process: the signal would end it.
    let mut asked = signal(SignalKind::user_defined1()).context("can't listen for signals")?;
    let mut file = layout.up_file();
    write(&layout.state, &file)?;
    announce(ctx, &project, &file, &layout.state);
    let mut told = std::pin::pin!(world::told_to_stop(false));
    loop {
        tokio::select! {
            () = &mut told => break,
            _ = asked.recv() => {}
        }
        ctx.out.say("upgrading");
        let before = file.upgrade.map_or(0, |upgrade| upgrade.number);
        let upgrade = tokio::select! {
            () = &mut told => break,
            upgrade = upgrade::all(&kept, before) => upgrade,
        };
        file.upgrade = Some(upgrade);
        if let Err(error) = write(&layout.state, &file) {
            tracing::error!(%error, "what became of the upgrade can't be written down");
        }
    }
    ctx.out.say("stopping");
    for process in kept {
        process.stop().await.context("a process could not be stopped")?;
    }
    let _ = std::fs::remove_file(layout.state.join("up.json"));
    Ok(Exit::Done)
}

fn write(state: &Path, file: &UpFile) -> anyhow::Result<()> {
    Ok(lockgate_agent::write_private(&state.join("up.json"), &serde_json::to_vec_pretty(file)?)?)
}

/// Where everything of this project lies and listens.
struct Layout {
    state: PathBuf,
    project_dir: PathBuf,
    server: SocketAddr,
    gateways: Vec<(String, SocketAddr)>,
    /// The files of tokens that environments' `/feedback` takes.
    feedback_tokens: BTreeMap<String, PathBuf>,
}

impl Layout {
    fn new(ctx: &Context, project: &Project, port: u16) -> anyhow::Result<Self> {
        let state = ctx.state_dir()?;
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut gateways = Vec::new();
        for (i, environment) in project.environments.iter().enumerate() {
            let next = u16::try_from(i + 1).ok().and_then(|i| port.checked_add(i));
            let own = environment.port.or(next).context("there are not enough ports above the server's")?;
            gateways.push((environment.name.to_string(), at(own)));
        }
        let project_dir = ctx.project_dir()?;
        let mut feedback_tokens = BTreeMap::new();
        for environment in &project.environments {
            if let Some(file) = &environment.feedback_token_file {
                let path = project_dir.join(file);
                // Told here: an agent that finds out has a log that nobody looks at yet.
                super::agent::feedback_tokens(&path)
                    .with_context(|| format!("`feedback_token_file` of [env.{}]", environment.name))?;
                feedback_tokens.insert(environment.name.to_string(), path);
            }
        }
        Ok(Self { state, project_dir, server: at(port), gateways, feedback_tokens })
    }

    fn home(&self, environment: &str) -> PathBuf {
        self.state.join("env").join(environment)
    }

    fn check_ports(&self) -> anyhow::Result<()> {
        let named = std::iter::once(("the server", self.server))
            .chain(self.gateways.iter().map(|(n, a)| (n.as_str(), *a)));
        for (name, address) in named {
            listen(name, address)?;
        }
        Ok(())
    }

    /// Makes folders, keys, tokens and the trust between environments: each agent gets the others' public keys only.
    fn prepare(&self) -> anyhow::Result<()> {
        let (_, entropy) = world::system();
        let mut accounts = String::new();
        let mut public = BTreeMap::new();
        for dir in ["server", "logs", "env"] {
            std::fs::create_dir_all(self.state.join(dir))
                .with_context(|| format!("can't make {}", self.state.display()))?;
        }
        for (name, _) in &self.gateways {
            let home = lockgate_agent::Home::open(&self.home(name))?;
            home.key(&*entropy)?;
            let pem =
                std::fs::read(home.path("key.pub.pem")).context("the agent's public key can't be read")?;
            public.insert(name.clone(), pem);
            let token = world::new_token();
            lockgate_agent::write_private(&home.path("token"), token.as_bytes())?;
            accounts.push_str(&format!("agent {name} {}\n", Digest::of(token.as_bytes()).hex()));
        }
        lockgate_agent::write_private(&self.state.join("server/accounts"), accounts.as_bytes())?;
        for (name, _) in &self.gateways {
            let trust = self.home(name).join("trust");
            std::fs::create_dir_all(&trust).with_context(|| format!("can't make {}", trust.display()))?;
            for (other, pem) in &public {
                lockgate_agent::write_private(&trust.join(format!("{other}.pem")), pem)?;
            }
        }
        // What a fenced agent may use must be there before it is fenced: uv's cache is made here if it is missing.
        if let Some(home) = std::env::var_os("HOME") {
            let _ = std::fs::create_dir_all(Path::new(&home).join(".cache/uv"));
        }
        Ok(())
    }

    fn roles(&self, library: &Path) -> anyhow::Result<Vec<Role>> {
        let text = |p: PathBuf| p.to_string_lossy().into_owned();
        // Once, at the start: an upgrade puts another file in this one's place.
        let program = std::env::current_exe().context("this program's own file can't be found")?;
        let mut roles = vec![Role {
            program: program.clone(),
            listener: None,
            name: "server".to_owned(),
            args: vec![
                "server".to_owned(),
                "--tied".to_owned(),
                "--trust-loopback".to_owned(),
                "--listen".to_owned(),
                self.server.to_string(),
                "--home".to_owned(),
                text(self.state.join("server")),
                "--tokens".to_owned(),
                text(self.state.join("server/accounts")),
            ],
            health: format!("http://{}/health", self.server),
            log: self.state.join("logs/server.log"),
        }];
        for (name, address) in &self.gateways {
            let home = self.home(name);
            roles.push(Role {
                program: program.clone(),
                listener: Some(listen(name, *address)?),
                name: format!("agent-{name}"),
                args: vec![
                    "agent".to_owned(),
                    "--tied".to_owned(),
                    "--given-socket".to_owned(),
                    "--environment".to_owned(),
                    name.clone(),
                    "--home".to_owned(),
                    text(home.clone()),
                    "--fence".to_owned(),
                    text(self.state.clone()),
                    "--listen".to_owned(),
                    address.to_string(),
                    "--token-file".to_owned(),
                    text(home.join("token")),
                    "--trust".to_owned(),
                    text(home.join("trust")),
                    "--data".to_owned(),
                    text(self.project_dir.clone()),
                    "--onnxruntime".to_owned(),
                    text(self.own_library(&home, library)?),
                    "--server".to_owned(),
                    format!("http://{}", self.server),
                ]
                .into_iter()
                .chain(self.feedback_args(name))
                .collect(),
                health: format!("http://{address}/v2/health/live"),
                log: self.state.join(format!("logs/agent-{name}.log")),
            });
        }
        Ok(roles)
    }

    /// What tells an agent which tokens its `/feedback` takes.
    fn feedback_args(&self, environment: &str) -> Vec<String> {
        let file = self.feedback_tokens.get(environment);
        file.into_iter()
            .flat_map(|path| ["--feedback-token-file".to_owned(), path.to_string_lossy().into_owned()])
            .collect()
    }

    /// The library inside the agent's own folder, as it may look nowhere else in the state folder: a hard link.
    fn own_library(&self, home: &Path, library: &Path) -> anyhow::Result<PathBuf> {
        if !library.starts_with(&self.state) {
            return Ok(library.to_owned());
        }
        let own = home.join("lib").join(library.file_name().context("the library has no name")?);
        std::fs::create_dir_all(home.join("lib"))
            .with_context(|| format!("can't make {}", home.display()))?;
        if !own.is_file() {
            std::fs::hard_link(library, &own)
                .or_else(|_| std::fs::copy(library, &own).map(|_| ()))
                .context("can't place the library")?;
        }
        Ok(own)
    }

    fn up_file(&self) -> UpFile {
        UpFile {
            pid: std::process::id(),
            server: format!("http://{}", self.server),
            gateways: self.gateways.iter().map(|(n, a)| (n.clone(), format!("http://{a}"))).collect(),
            upgrade: Some(Upgrade::default()),
        }
    }

    /// The same context, talking to this server.
    fn context(&self, ctx: &Context) -> Context {
        let mut ctx = ctx.clone();
        ctx.global.server = Some(format!("http://{}", self.server));
        ctx
    }
}

/// Listens for a process that is not there yet, or not there for a moment: connections wait meanwhile.
fn listen(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|e| {
        anyhow::anyhow!("{name} can't listen on {address}: {e}\n  hint: choose another port with --port, or [env.…] port = …")
    })
}

fn announce(ctx: &Context, project: &Project, file: &UpFile, state: &Path) {
    let mut rows =
        vec![vec!["server".to_owned(), file.server.clone(), "also MLFLOW_TRACKING_URI".to_owned()]];
    for environment in &project.environments {
        let name = environment.name.to_string();
        let address = file.gateways.get(&name).cloned().unwrap_or_default();
        rows.push(vec![name, address, "gateway".to_owned()]);
    }
    ctx.out.say(&format!(
        "{}  project {}\n{}state in {}\nstop with Ctrl-C, or `lockgate up --stop`{}",
        ctx.out.mark(Tone::Good, "ready"),
        project.name,
        table(&rows),
        state.display(),
        crate::render::next(ctx.out, "lockgate run   (in another terminal; or `lockgate status`)")
    ));
}

/// Why a second `up` over the same state folder is refused.
fn runs_already(ctx: &Context, state: &Path) -> anyhow::Error {
    let who = match lock::holder(state) {
        Holder::Process(pid) => format!(" (process {pid})"),
        Holder::Nobody | Holder::Unseen => String::new(),
    };
    let place = ctx.up_file().map_or_else(String::new, |file| format!(" at {}", file.server));
    anyhow::anyhow!("it is running already{who}{place}\n  hint: `lockgate up --stop` stops it")
}

/// Removes what an `up` that was killed wrote down: it is true no longer.
fn forget_last(state: &Path) -> anyhow::Result<()> {
    let path = state.join("up.json");
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn detach(ctx: &Context, layout: &Layout) -> anyhow::Result<Exit> {
    if lock::holder(&layout.state) != Holder::Nobody {
        return Err(runs_already(ctx, &layout.state));
    }
    layout.check_ports()?;
    forget_last(&layout.state)?;
    std::fs::create_dir_all(layout.state.join("logs"))
        .with_context(|| format!("can't make {}", layout.state.display()))?;
    let log_path = layout.state.join("logs/up.log");
    let log =
        std::fs::File::create(&log_path).with_context(|| format!("can't write {}", log_path.display()))?;
    let program = std::env::current_exe().context("this program's own file can't be found")?;
    let mut command = std::process::Command::new(program);
    command.arg("up").arg("--port").arg(layout.server.port().to_string());
    command.arg("--project").arg(&layout.project_dir).arg("--state").arg(&layout.state);
    for setting in &ctx.global.set {
        command.arg("--set").arg(setting);
    }
    if let Some(user) = ctx.user() {
        command.arg("--as").arg(user);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let interrupted = world::told_to_stop(false);
    tokio::pin!(interrupted);
    let mut child = command.spawn().context("`up` can't be started in the background")?;
    let begun = Instant::now();
    // Making the runtime ready may include a download the first time.
    let limit = Duration::from_secs(300);
    loop {
        if let Some(file) = ctx.up_file().filter(|f| f.pid == child.id()) {
            let project = super::project::load(ctx)?;
            ctx.out.show(&file, || {
                let rows: Vec<Vec<String>> = std::iter::once(vec!["server".to_owned(), file.server.clone()])
                    .chain(project.environments.iter().map(|e| {
                        vec![
                            e.name.to_string(),
                            file.gateways.get(e.name.as_str()).cloned().unwrap_or_default(),
                        ]
                    }))
                    .collect();
                format!(
                    "{} in the background (process {})\n{}{}",
                    ctx.out.mark(Tone::Good, "ready"),
                    file.pid,
                    table(&rows),
                    crate::render::next(ctx.out, "lockgate run   (stop with `lockgate up --stop`)")
                )
            })?;
            return Ok(Exit::Done);
        }
        if let Some(status) = child.try_wait()? {
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            bail!("`up` ended: {status}\n{}", text.trim_end());
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            bail!("`up` was not ready in time\n{}", last_lines(&log_path));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = &mut interrupted => {
                // What it started is tied to it and ends with it.
                let _ = child.kill();
                bail!("interrupted before everything was ready, so it was stopped");
            }
        }
    }
}

async fn stop(ctx: &Context) -> anyhow::Result<Exit> {
    let state = ctx.state_dir()?;
    let pid = match lock::holder(&state) {
        Holder::Process(pid) => pid,
        Holder::Nobody => {
            forget_last(&state)?;
            ctx.out.say("nothing is running for this project");
            return Ok(Exit::Done);
        }
        Holder::Unseen => bail!(
            "an `up` holds {}, but its process can't be seen from here\n  hint: stop it where it was started: by that person, in that container",
            state.join("up.lock").display()
        ),
    };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("this is no process")?;
    kill_process(process, Signal::TERM).with_context(|| format!("process {pid} can't be stopped"))?;
    let begun = Instant::now();
    while [Holder::Process(pid), Holder::Unseen].contains(&lock::holder(&state)) {
        if begun.elapsed() > 3 * STOP_WITHIN {
            bail!(
                "process {pid} has not ended yet\n  hint: its log is {}",
                state.join("logs/up.log").display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One that was told before it was ready ends without tidying up.
    forget_last(&state)?;
    ctx.out.show(&serde_json::json!({"pid": pid, "state": state}), || "stopped\n".to_owned())?;
    Ok(Exit::Done)
}
