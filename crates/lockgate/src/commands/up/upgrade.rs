//! `up --upgrade`: what runs is replaced by this program's file as it is now, one process after the other.

use super::process::Kept;
use crate::context::{Context, Upgrade};
use crate::exit::Exit;
use crate::lock::{self, Holder};
use crate::output::Tone;
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// How long an upgrade may take: each agent waits until its models are ready, some of them for minutes.
const WITHIN: Duration = Duration::from_secs(3600);

/// Upgrades every process. One that can't be leaves the others as they are to be.
pub(super) async fn all(kept: &[Kept], number: u64) -> Upgrade {
    let mut upgrade = Upgrade { number: number + 1, ..Upgrade::default() };
    for process in kept {
        if let Err(why) = process.upgrade().await {
            tracing::error!(role = process.name, why, "not upgraded");
            upgrade.failed.insert(process.name.clone(), why);
        }
    }
    upgrade
}

/// Asks the `up` that runs to upgrade, and waits until it has.
pub(super) async fn ask(ctx: &Context) -> anyhow::Result<Exit> {
    let state = ctx.state_dir()?;
    let Holder::Process(pid) = lock::holder(&state) else {
        bail!(
            "no `up` of this project can be seen here, so there is nothing to upgrade\n  hint: `lockgate up` starts one"
        );
    };
    let Some(before) = ctx.up_file().and_then(|file| file.upgrade) else {
        bail!(
            "the `up` that runs is not ready, or is of a version that can't be upgraded\n  hint: `lockgate up --stop`, then `lockgate up`"
        );
    };
    let lock = state.join("upgrade.lock");
    let lock = std::fs::File::create(&lock).with_context(|| format!("can't write {}", lock.display()))?;
    if lock.try_lock().is_err() {
        bail!("an upgrade is under way already\n  hint: `lockgate status` says what the agents are doing");
    }
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("this is no process")?;
    ctx.out.say("upgrading");
    kill_process(process, Signal::USR1).with_context(|| format!("process {pid} can't be asked"))?;
    let begun = Instant::now();
    let upgrade = loop {
        let now = ctx.up_file().and_then(|file| file.upgrade);
        if let Some(after) = now.filter(|now| now.number > before.number) {
            break after;
        }
        if lock::holder(&state) != Holder::Process(pid) {
            bail!(
                "the `up` that was to upgrade has ended\n  hint: its log is {}",
                state.join("logs/up.log").display()
            );
        }
        if begun.elapsed() > WITHIN {
            bail!(
                "the upgrade is not over after {} minutes\n  hint: `lockgate status` says what the agents are doing",
                WITHIN.as_secs() / 60
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ctx.out.show(&upgrade, || {
        let mut text = String::new();
        for (name, why) in &upgrade.failed {
            text.push_str(&format!("{}  {name}: {why}\n", ctx.out.mark(Tone::Bad, "not upgraded")));
        }
        if upgrade.failed.is_empty() {
            text = format!(
                "{} in {:.1} s\n",
                ctx.out.mark(Tone::Good, "upgraded"),
                begun.elapsed().as_secs_f32()
            );
        }
        text
    })?;
    Ok(if upgrade.failed.is_empty() { Exit::Done } else { Exit::Error })
}
