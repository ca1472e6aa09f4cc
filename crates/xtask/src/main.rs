//! Chores of the workspace: `cargo xtask tidy | generate [--check] | scenarios [--check] | lint | ci`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers speaks on the terminal"
)]

mod chores;
mod generate;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the workspace")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check who depends on whom, how long files are, and what sources must not say
    Tidy,
    /// Write docs/reference from the program itself
    Generate {
        /// Compare only, and fail if a page is out of date
        #[arg(long)]
        check: bool,
    },
    /// Play the scenarios many times and write what was measured into docs/scenarios.md
    Scenarios {
        /// Compare only, and fail if the page says something else
        #[arg(long)]
        check: bool,
        /// Play one scenario (S1, S2, …) and write nothing
        scenario: Option<String>,
    },
    /// Format, clippy, tidy, licences: everything that needs no test to run
    Lint,
    /// Lint, build, test, generate --check
    Ci,
}

fn main() -> ExitCode {
    let done = run(Arguments::parse().chore);
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Tidy => tidy::run(),
        Chore::Generate { check } => generate::run(check),
        Chore::Scenarios { check, scenario } => chores::scenarios(check, scenario.as_deref()),
        Chore::Lint => chores::lint(),
        Chore::Ci => chores::ci(),
    }
}
