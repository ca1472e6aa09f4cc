//! `demo`: the whole story on real data, by the public commands alone. The only place that knows the example.

mod place;

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Out, Tone, span, table};
use anyhow::{Context as _, bail};
use lockgate_control::view::{PromotionView, StatusView, WhyView};
use lockgate_core::event::Seal;
use lockgate_core::promotion::Stage;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const AUTHOR: &str = "alice@example.com";
const APPROVER: &str = "bob@example.com";

/// Below this rate the guards need longer than a demo lasts; then the demo shows that instead.
const ENOUGH_RPS: f64 = 100.0;

struct Demo {
    out: Out,
    dir: PathBuf,
    state: PathBuf,
    program: PathBuf,
    port: u16,
    begun: Instant,
    facts: Vec<Vec<String>>,
}

/// `demo`
pub(crate) async fn demo(ctx: &Context, args: &cli::Demo) -> anyhow::Result<Exit> {
    if !(args.rps.is_finite() && args.rps > 0.0) {
        bail!("--rps must be a number above 0");
    }
    let base = match (&args.dir, std::env::var_os("HOME")) {
        (Some(dir), _) => std::path::absolute(dir)?,
        (None, Some(home)) => PathBuf::from(home).join(".local/state/lockgate/demo"),
        (None, None) => bail!("HOME is not set\n  hint: name a folder with --dir"),
    };
    let mut demo = Demo {
        out: ctx.out,
        dir: base.join("flight-delays"),
        state: base.join("state"),
        program: std::env::current_exe().context("this program's own file can't be found")?,
        port: args.port,
        begun: Instant::now(),
        facts: Vec::new(),
    };
    demo.begin().await?;
    // What loses its parent becomes a child of this process, so that nothing can be left behind unseen.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let told = tokio::select! {
        told = demo.tell(args.rps) => told,
        () = crate::world::told_to_stop(false) => {
            Err(anyhow::anyhow!("interrupted; what the demo had started is stopped"))
        }
    };
    if !args.keep || told.is_err() {
        let stopped = demo.quietly(&["up", "--stop"]).await;
        crate::processes::kill_children(std::process::id());
        told?;
        stopped.context("the demo's server and agents can't be stopped")?;
    }
    demo.summary(args.keep);
    Ok(Exit::Done)
}

impl Demo {
    fn chapter(&self, number: u32, title: &str) {
        let head = self.out.mark(Tone::Strong, &format!("{number}. {title}"));
        self.out.say(&format!("\n{head}  ({})", span(self.begun.elapsed().as_secs_f64())));
    }

    fn fact(&mut self, what: &str, value: impl Into<String>) {
        self.facts.push(vec![what.to_owned(), value.into()]);
    }

    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .arg("--project")
            .arg(&self.dir)
            .arg("--state")
            .arg(&self.state)
            .arg("--as")
            .arg(user);
        command
            .env_remove("LOCKGATE_SERVER")
            .env_remove("LOCKGATE_TOKEN")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command as a person would, and shows it.
    async fn run_as(&self, user: &str, args: &[&str], expected: Exit) -> anyhow::Result<()> {
        let who = if user == AUTHOR { String::new() } else { format!(" --as {user}") };
        self.out.say(&self.out.mark(Tone::Strong, &format!("$ lockgate {}{who}", args.join(" "))));
        let status =
            self.command(user, args).status().await.context("this program can't be started again")?;
        if status.code() == Some(expected as i32) {
            return Ok(());
        }
        bail!("`lockgate {}` ended with {status}, expected code {}", args.join(" "), expected as i32)
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        self.run_as(AUTHOR, args, Exit::Done).await
    }

    async fn quietly(&self, args: &[&str]) -> anyhow::Result<String> {
        let output =
            self.command(AUTHOR, args).output().await.context("this program can't be started again")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        bail!("`lockgate {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())
    }

    async fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut all = args.to_vec();
        all.push("--json");
        let output =
            self.command(AUTHOR, &all).output().await.context("this program can't be started again")?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("`lockgate {}` said: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    async fn tell(&mut self, rps: f64) -> anyhow::Result<()> {
        self.chapter(1, "A project on real data: 336,776 flights of 2013 from New York");
        self.unpack()?;
        self.chapter(2, "One server and four environments, each with its own folder, key and process");
        let port = self.port.to_string();
        self.run(&["up", "--detach", "--port", &port]).await?;
        self.chapter(3, "The pipeline in dev, with the stock MLflow client");
        self.run(&["run"]).await?;
        self.run(&["run"]).await?;
        self.chapter(4, "Releases: one for the model, one for the rule of thumb that is its backup");
        self.run(&["release", "create", "delay@rules"]).await?;
        let first = self.release("delay@candidate").await?;
        self.chapter(5, "Through testing and staging, by evidence alone");
        self.run(&["promote", &first, "--env", "testing", "--wait"]).await?;
        self.run(&["promote", &first, "--env", "staging", "--wait"]).await?;
        self.chapter(6, "Into production: a plan, a second person, a canary under live traffic");
        let rate = rps.to_string();
        self.run_as(AUTHOR, &["plan", &first, "--env", "production", "--rps", &rate], Exit::Pending).await?;
        self.run_as(AUTHOR, &["promote", &first, "--env", "production"], Exit::AwaitingApproval).await?;
        self.run_as(AUTHOR, &["approve", "--env", "production"], Exit::Error).await?;
        self.run_as(APPROVER, &["approve", "--env", "production"], Exit::Done).await?;
        let mut traffic = self.traffic(rps, 0).await?;
        if rps < ENOUGH_RPS {
            return self.too_quiet(traffic).await;
        }
        self.run(&["watch", "--env", "production", "--timeout", "4m"]).await?;
        let at =
            lockgate_core::clock::rfc3339(lockgate_core::clock::Clock::now_ms(&crate::world::SystemClock));
        self.bad_successor().await?;
        let report = stop_traffic(&mut traffic).await?;
        self.fact(
            "live traffic during both rollouts",
            format!("{} requests, {} answered well", report["sent"], report["ok"]),
        );
        self.silent_fault().await?;
        self.kill_worker(rps).await?;
        self.explain(&at).await
    }

    /// Makes sure that both folders are the demo's, and that no earlier demo still runs in them.
    async fn begin(&self) -> anyhow::Result<()> {
        for dir in [&self.dir, &self.state] {
            place::is_ours(dir)?;
        }
        if self.state.exists() {
            self.quietly(&["up", "--stop"]).await.context("an earlier demo can't be stopped")?;
        }
        [&self.dir, &self.state].into_iter().try_for_each(|dir| place::claim(dir))
    }

    /// Unpacks the example into a fresh Git repository. A second demo begins anew.
    fn unpack(&self) -> anyhow::Result<()> {
        place::empty_project(&self.dir)?;
        place::empty_state(&self.state)?;
        place::unpack(&self.dir, AUTHOR)?;
        self.out.say(&format!("unpacked into {}", self.dir.display()));
        Ok(())
    }

    async fn release(&self, model: &str) -> anyhow::Result<String> {
        self.run(&["release", "create", model]).await?;
        let view = self.json(&["release", "create", model]).await?;
        let digest = view["digest"].as_str().context("the release has no digest")?;
        Ok(digest.trim_start_matches("sha256:").chars().take(12).collect())
    }

    async fn promotion(&self, environment: &str) -> anyhow::Result<PromotionView> {
        let view = self.json(&["why", "--env", environment]).await?;
        serde_json::from_value(view["promotion"].clone()).context("the promotion can't be read")
    }

    async fn gateway(&self, environment: &str) -> anyhow::Result<String> {
        let status: StatusView = serde_json::from_value(self.json(&["status"]).await?)?;
        let found = status.environments.into_iter().find(|e| e.name.as_str() == environment);
        found.and_then(|e| e.gateway).with_context(|| format!("the gateway of {environment} is not known"))
    }

    fn python(&self) -> anyhow::Result<PathBuf> {
        let venvs =
            std::fs::read_dir(self.state.join("venvs")).context("the Python environment is missing")?;
        let found = venvs.flatten().map(|e| e.path()).find(|p| p.join(".lockgate-complete").is_file());
        Ok(found.context("the Python environment is missing")?.join("bin/python"))
    }

    /// Starts the example's traffic generator once production answers. 0 seconds means until it is stopped.
    async fn traffic(&self, rps: f64, seconds: u32) -> anyhow::Result<Child> {
        let url = self.gateway("production").await?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let begun = Instant::now();
        while !http
            .get(format!("{url}/v2/models/delay/ready"))
            .send()
            .await
            .is_ok_and(|r| r.status().is_success())
        {
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("production does not serve after 60 s\n  hint: lockgate logs agent production");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (rate, seconds) = (rps.to_string(), seconds.to_string());
        self.out.say(&self.out.mark(
            Tone::Strong,
            &format!("$ python traffic.py {url} --rps {rate} --rotate-months   (in the background)"),
        ));
        Command::new(self.python()?)
            .current_dir(&self.dir)
            .args(["traffic.py", &url, "--rps", &rate, "--seconds", &seconds, "--rotate-months", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("the traffic generator can't be started")
    }

    /// What a team with little traffic sees: no verdict, no promotion, and a way that could decide.
    async fn too_quiet(&mut self, mut traffic: Child) -> anyhow::Result<()> {
        let ended =
            self.command(AUTHOR, &["watch", "--env", "production", "--timeout", "40s"]).status().await?;
        self.out.say(&format!("watch ended with {ended}: at this rate nothing is proven, so nothing is promoted; see the plan's advice above"));
        self.run(&["why", "--env", "production"]).await?;
        self.run(&["abort", "--env", "production", "--reason", "not enough traffic to decide"]).await?;
        let report = stop_traffic(&mut traffic).await?;
        self.fact("live traffic", format!("{} requests, {} answered well", report["sent"], report["ok"]));
        self.fact("outcome", "unknown, so held and taken back by a person: no evidence, no promotion");
        Ok(())
    }

    async fn variant(&self, name: &str) -> anyhow::Result<String> {
        let param = format!("VARIANT={name}");
        self.run(&["run", "--param", &param]).await?;
        self.release(&format!("delay@{name}")).await
    }

    async fn bad_successor(&mut self) -> anyhow::Result<()> {
        let served: WhyView = serde_json::from_value(self.json(&["why", "--env", "production"]).await?)?;
        let proof = proof(&served).context("the first canary's record holds no evidence")?;
        self.fact("first canary", format!("{}, because it was shown to be", served.promotion.stage_name));
        proof.split("); ").for_each(|part| self.fact("", part.trim_end_matches(')').replacen(" (", ": ", 1)));
        self.chapter(7, "A successor that passes every offline gate, and fails on routes that it never saw");
        let second = self.variant("unseen").await?;
        self.run(&["promote", &second, "--env", "testing", "--wait"]).await?;
        self.run(&["promote", &second, "--env", "staging", "--wait"]).await?;
        self.run_as(AUTHOR, &["promote", &second, "--env", "production"], Exit::AwaitingApproval).await?;
        self.run_as(APPROVER, &["approve", "--env", "production"], Exit::Done).await?;
        let begun = Instant::now();
        self.run_as(AUTHOR, &["watch", "--env", "production", "--timeout", "3m"], Exit::RolledBack).await?;
        let after = begun.elapsed().as_secs_f64();
        let p = self.promotion("production").await?;
        let Stage::RolledBack {
            seal: Seal { last_request_ms, verified_ms, candidate_requests, candidate_errors, .. },
            ..
        } = &p.stage
        else {
            bail!("the bad successor was not rolled back but is {}", p.stage_name);
        };
        self.fact("bad successor", format!("caught and rolled back {} after its approval", span(after)));
        self.fact(
            "bad answers that users saw",
            format!("{candidate_errors} of {candidate_requests} answered by it"),
        );
        self.fact(
            "rollback",
            format!(
                "last request to it {last_request_ms} ms after the decision, verified after {verified_ms} ms"
            ),
        );
        Ok(())
    }

    async fn silent_fault(&mut self) -> anyhow::Result<()> {
        self.chapter(8, "A silent fault: two columns swapped in the export");
        let third = self.variant("swapped").await?;
        self.run_as(AUTHOR, &["promote", &third, "--env", "testing", "--wait"], Exit::GateFailed).await?;
        let p = self.promotion("testing").await?;
        let failed: Vec<String> = p
            .gates
            .iter()
            .filter(|g| g.outcome.is_some_and(|o| o != lockgate_core::gate::Outcome::Pass))
            .map(|g| g.gate.to_string())
            .collect();
        self.fact("silent fault", format!("stopped in testing by gate {}", failed.join(", ")));
        Ok(())
    }

    async fn kill_worker(&mut self, rps: f64) -> anyhow::Result<()> {
        self.chapter(9, "kill -9 of a production worker under traffic");
        let mut traffic = self.traffic(rps, 10).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pid = self.serving_worker("production").await?;
        self.out.say(&self.out.mark(Tone::Strong, &format!("$ kill -9 {pid}")));
        let status = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .await
            .context("`kill` can't be started")?;
        if !status.success() {
            bail!("process {pid} can't be killed");
        }
        let report = end_of_traffic(&mut traffic).await?;
        self.out.say(&format!(
            "{} requests sent, {} answered well, {} failed",
            report["sent"], report["ok"], report["bad"]
        ));
        self.fact("kill -9 of a worker", format!("{} of {} requests failed", report["bad"], report["sent"]));
        let log = self.quietly(&["audit", "log", "--json", "--limit", "100000"]).await?;
        let back = log
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok())
            .filter(|e| e["event"]["what"] == "back")
            .filter_map(|e| e["event"]["after_ms"].as_i64())
            .next_back();
        let back = back.map_or_else(|| "not back yet".to_owned(), |ms| format!("back after {ms} ms"));
        self.fact("that worker", back);
        Ok(())
    }

    /// The process of the first worker of what serves.
    async fn serving_worker(&self, environment: &str) -> anyhow::Result<u32> {
        let p = self.promotion_serving(environment).await?;
        let marker = self.state.join("env").join(environment).join("run");
        let release = p.trim_start_matches("sha256:").to_owned();
        for entry in std::fs::read_dir("/proc").context("/proc can't be read")?.flatten() {
            let Some(pid) = entry.file_name().to_string_lossy().parse::<u32>().ok() else { continue };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(" worker ")
                && words.contains(&*marker.to_string_lossy())
                && words.contains(&release)
            {
                return Ok(pid);
            }
        }
        bail!("no worker of {environment} was found")
    }

    /// The release that has most of an environment's traffic.
    async fn promotion_serving(&self, environment: &str) -> anyhow::Result<String> {
        let status: StatusView = serde_json::from_value(self.json(&["status"]).await?)?;
        let found = status.environments.iter().find(|e| e.name.as_str() == environment);
        let sides = found.into_iter().flat_map(|e| e.models.values()).flat_map(|m| &m.sides);
        let most = sides.max_by(|a, b| a.share.total_cmp(&b.share)).context("nothing serves")?;
        Ok(most.release.to_string())
    }

    async fn explain(&mut self, at: &str) -> anyhow::Result<()> {
        self.chapter(10, "Afterwards: why, when, from what, and proof");
        self.run(&["why", "--env", "production"]).await?;
        self.run(&["history", "production", "--at", at]).await?;
        let row = self.dir.join("row.json");
        std::fs::write(&row, self.one_row()?).context("the row can't be written")?;
        let arg = format!("@{}", row.display());
        let answer = self.json(&["predict", "--env", "production", &arg]).await?;
        let id = answer["prediction"].as_str().context("the answer has no prediction id")?.to_owned();
        self.run(&["trace", &id]).await?;
        self.run(&["audit", "verify"]).await?;
        let audit = self.json(&["audit", "verify"]).await?;
        self.fact("audit log", format!("{} entries, verified", audit["entries"]));
        Ok(())
    }

    /// The first recorded request of staging.
    fn one_row(&self) -> anyhow::Result<String> {
        let path = self.dir.join("data/staging-requests.jsonl");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        text.lines().next().map(str::to_owned).context("there are no recorded requests")
    }

    fn summary(&self, kept: bool) {
        let mut text = format!("\n{}\n", self.out.mark(Tone::Strong, "What this run measured"));
        text.push_str(&crate::render::indent(&table(&self.facts)));
        text.push_str(&format!("  all of it took {}\n", span(self.begun.elapsed().as_secs_f64())));
        text.push_str(&format!(
            "\nthe project   {}\nits state     {}\n",
            self.dir.display(),
            self.state.display()
        ));
        if kept {
            let flags = format!("--project {} --state {}", self.dir.display(), self.state.display());
            text.push_str(&format!(
                "the server    http://127.0.0.1:{} (also MLFLOW_TRACKING_URI)\nlook          lockgate status {flags}\nstop          lockgate up --stop {flags}\n",
                self.port
            ));
        } else {
            text.push_str("everything is stopped; `lockgate demo --keep` leaves it running to look around\n");
        }
        text.push_str("your own model: docs/quickstart.md\n");
        self.out.say(&text);
    }
}

/// What the last larger step rested on, as its entry in the record says.
fn proof(view: &WhyView) -> Option<String> {
    let steps = view.timeline.iter().rev().filter(|t| t.what.starts_with("step "));
    steps.filter_map(|t| t.what.split_once("; ")).map(|(_, proof)| proof.to_owned()).next()
}

/// Tells the generator to stop and reads its report.
async fn stop_traffic(traffic: &mut Child) -> anyhow::Result<Value> {
    let pid = traffic.id().context("the traffic generator has ended by itself")?;
    Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status()
        .await
        .context("`kill` can't be started")?;
    end_of_traffic(traffic).await
}

async fn end_of_traffic(traffic: &mut Child) -> anyhow::Result<Value> {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    if let Some(stdout) = &mut traffic.stdout {
        stdout.read_to_string(&mut text).await.context("the traffic generator's report can't be read")?;
    }
    traffic.wait().await.context("the traffic generator can't be waited for")?;
    let last = text.trim().lines().next_back().context("the traffic generator said nothing")?;
    serde_json::from_str(last).context("the traffic generator's report can't be read")
}
