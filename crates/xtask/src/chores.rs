//! Runs of other tools, in order, each with its name and time; the first failure ends the run.

use crate::{generate, tidy, workspace};
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Everything that needs no test to run.
pub(crate) fn lint() -> Result<()> {
    step("fmt", || cargo(&["fmt", "--all", "--check"]))?;
    step("tidy", tidy::run)?;
    step("deny", || {
        if !exists("deny") {
            bail!("cargo-deny is missing or too old: run `make tools`");
        }
        cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])
    })?;
    step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])
    })
}

/// Plays the simulated scenarios, thousands of worlds: that takes an optimised program.
pub(crate) fn scenarios(check: bool, scenario: Option<&str>) -> Result<()> {
    let mut arguments =
        vec!["run", "--release", "--locked", "--package", "lockgate-testkit", "--example", "scenarios", "--"];
    arguments.extend(check.then_some("--check"));
    arguments.extend(scenario);
    step("scenarios", || cargo(&arguments))
}

/// What CI runs: all in the dev profile, so that nothing is built twice.
pub(crate) fn ci() -> Result<()> {
    lint()?;
    step("build", || cargo(&["build", "--workspace", "--locked"]))?;
    step("test", || {
        if exists("nextest") {
            return cargo(&["nextest", "run", "--workspace", "--locked"]);
        }
        eprintln!(
            "cargo-nextest is missing; `cargo test` runs instead (slower, and no limit of time for a test)"
        );
        cargo(&["test", "--workspace", "--locked", "--no-fail-fast"])
    })?;
    step("generate --check", || generate::run(true))
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("── {name}");
    let start = Instant::now();
    work().with_context(|| format!("{name} failed"))?;
    println!("── {name}: ok ({:.0} s)", start.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = command(arguments)?.status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("`cargo {}` failed: {status}", arguments.join(" ")) }
}

fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = workspace::cargo();
    command.args(arguments).current_dir(workspace::root()?);
    Ok(command)
}

/// Whether cargo knows a subcommand.
fn exists(subcommand: &str) -> bool {
    let Ok(mut command) = command(&[subcommand, "--version"]) else { return false };
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
