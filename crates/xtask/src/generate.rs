//! Reference pages that the program writes about itself, so that they can't lag behind it.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Page, and what `lockgate reference` is asked for.
const PAGES: &[(&str, &str)] =
    &[("docs/reference/cli.md", "cli"), ("docs/reference/lockgate.schema.json", "config-schema")];

/// Writes the pages, or only compares.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = workspace::root()?;
    let program = build(&root)?;
    let mut stale = Vec::new();
    for (page, what) in PAGES {
        let text = ask(&program, what)?;
        let path = root.join(page);
        if is_current(&path, &text)? {
            continue;
        }
        if check {
            stale.push(*page);
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {page}"))?;
        println!("generate: wrote {page}");
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask generate` and commit what it writes", stale.join(", "));
    }
    println!("generate: {} pages are up to date", PAGES.len());
    Ok(())
}

fn is_current(path: &Path, text: &str) -> Result<bool> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes == text.as_bytes()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Builds the program as the tests do, with what the whole workspace asks of each crate (a package alone has fewer features, and all
/// its crates would be built anew), and says where it is: beside us, as the same cargo built us.
fn build(root: &Path) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--quiet", "--locked", "--workspace"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.current_dir(root).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the program can't be built: {status}");
    }
    let own = std::env::current_exe().context("no path of our own")?;
    Ok(own.with_file_name("lockgate"))
}

/// What the binary prints, wherever it is run: nothing of the caller's settings or terminal shows in it.
fn ask(program: &Path, what: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["reference", what]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOCKGATE_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").env("COLUMNS", "100");
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("`lockgate reference {what}` failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("`lockgate reference {what}` isn't UTF-8"))?;
    if text.trim().is_empty() {
        bail!("`lockgate reference {what}` printed nothing");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_byte_for_byte() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = std::fs::read_to_string(&own).unwrap();
        assert!(is_current(&own, &text).unwrap());
        assert!(!is_current(&own, text.trim_end()).unwrap());
        assert!(!is_current(&own.with_file_name("missing"), &text).unwrap());
    }
}
