//! Looks at a repository and proposes a `lockgate.toml`: short, commented, and right as it is.

mod dvc;
mod find;
mod write;

use std::path::Path;

/// A proposed file and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The file's text; it parses without errors.
    pub text: String,
    /// What was found, and what wasn't, as sentences.
    pub findings: Vec<String>,
}

/// Looks at the folder `dir` (never outside it, never through symbolic links) and proposes a file.
///
/// # Errors
/// Where the folder can't be read.
pub fn propose(dir: &Path) -> std::io::Result<Proposal> {
    let found = find::find(dir)?;
    let proposal = write::write(&found);
    // What was found may hold what no rule foresaw (a path with a quote, a stage that reads what it writes): then the
    // least file is proposed, and says so.
    if crate::parse(&proposal.text, "lockgate.toml").is_ok() {
        return Ok(proposal);
    }
    let mut least = write::write(&find::Found { project: found.project, ..find::Found::default() });
    least.findings = proposal.findings;
    least.findings.push(
        "what was found doesn't fit together in one file, so only the frame was written; fill it in"
            .to_owned(),
    );
    Ok(least)
}
