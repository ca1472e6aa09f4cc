//! Plays scenarios of docs/scenarios.md many times and writes what was measured into that page:
//! `cargo xtask scenarios`, or `… -- --check` to compare only. The same seeds give the same numbers.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports on the terminal")]

mod cases;
mod measure;
#[path = "../../tests/it/parts.rs"]
mod parts;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_check = arguments.iter().any(|a| a == "--check");
    let only = arguments.iter().find(|a| !a.starts_with("--"));
    let mut rows = Vec::new();
    for case in cases::all().iter().filter(|c| only.is_none_or(|o| c.scenario == o)) {
        let begun = Instant::now();
        let found = measure::measure(case)?;
        let row = table::row(case, &found);
        println!("{row}  ({:.1} s)", begun.elapsed().as_secs_f64());
        rows.push(row);
    }
    if only.is_some() {
        return Ok(());
    }
    let path = page();
    let text = std::fs::read_to_string(&path).map_err(|e| format!("can't read {}: {e}", path.display()))?;
    let new = table::put(&text, &rows)?;
    if is_check {
        return if new == text {
            Ok(())
        } else {
            Err("docs/scenarios.md says other numbers: run `cargo xtask scenarios`".to_owned())
        };
    }
    std::fs::write(&path, new).map_err(|e| format!("can't write {}: {e}", path.display()))
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scenarios.md")
}
