//! `lockgate.toml`: text in, a typed [`Project`] or a list of [`Diagnostics`] out.
//!
//! | module | subject |
//! |---|---|
//! | [`diagnostic`] | what is wrong, where, and what to do about it |
//! | [`project`] | the typed result: project, environments, stages |
//! | [`layer`] | precedence, and settings from environment variables and `--set` |
//! | [`schema`] | the JSON schema of the file, for editors |
//! | [`init`] | looks at a repository and proposes a file |
//! | `keys`, `shape` | every key of the file, declared once: the check and the schema both come from it |
//! | `format` | durations, percents, sizes, steps and the other texts with a form |
//! | `tree`, `merge` | TOML with origins, and the one merge rule |
//! | `check` | the tree against the declared keys |
//! | `read` | the checked tree into core's types, with what only the whole file can tell |
//!
//! # Precedence
//!
//! Later wins, by one merge rule (maps deep; scalars and lists replace; `remove = true` drops an inherited entry):
//!
//! 1. what is built in (guards `errors`, `latency`, `constant`; gates `schema`, `parity`; defaults of keys),
//! 2. `lockgate.toml`; inside it, what an environment names by `like` comes before its own keys, and `[gate.*]` and
//!    `[guard.*]` before an environment's overrides of them,
//! 3. environment variables: `LOCKGATE__ENV__PRODUCTION__VARS__THRESHOLD=0.4` (two underscores separate keys; case doesn't
//!    matter and `_` stands for `-`),
//! 4. `--set env.production.vars.THRESHOLD=0.4`; of several, the last.
//!
//! A setting of layers 3 and 4 behaves as if it stood in the file at its key: an environment that is `like` another one
//! inherits it too.

mod check;
pub mod diagnostic;
mod format;
pub mod init;
mod keys;
pub mod layer;
mod merge;
mod nearest;
pub mod project;
mod read;
pub mod schema;
mod shape;
mod tree;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use layer::{Override, overlay};
pub use project::{Project, ResolvedEnvironment};
pub use schema::schema;

/// Reads `text` as a `lockgate.toml`. `file` is the name that diagnostics show.
///
/// # Errors
/// Every mistake in the text, in the order of their lines. What is right but not yet supported is no error: see
/// [`Project::unsupported`].
pub fn parse(text: &str, file: &str) -> Result<Project, Diagnostics> {
    overlay(text, file, &[])
}
