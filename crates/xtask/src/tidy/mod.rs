//! The rules that no compiler checks: DESIGN.md section 4, and what sources must not say.

mod dependencies;
mod scenarios;
mod sources;

use crate::workspace;
use anyhow::{Result, bail};
use std::path::Path;

/// What is wrong, by severity.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Ends the check with an error.
    pub(crate) problems: Vec<String>,
    /// Is only told.
    pub(crate) warnings: Vec<String>,
}

/// Checks the whole workspace and tells.
pub(crate) fn run() -> Result<()> {
    let Findings { problems, warnings } = check(&workspace::root()?)?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    if problems.is_empty() {
        println!("tidy: dependencies, file lengths, words and the page of scenarios are in order");
        return Ok(());
    }
    for problem in &problems {
        eprintln!("untidy: {problem}");
    }
    bail!("tidy found {} problem(s)", problems.len())
}

fn check(root: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    dependencies::check(&workspace::graph(root)?, &mut findings);
    sources::check(root, &mut findings)?;
    scenarios::check(root, &mut findings)?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let findings = check(&workspace::root().unwrap()).unwrap();
        assert!(findings.problems.is_empty(), "\n{}", findings.problems.join("\n"));
    }
}
