//! What is wrong, where, and what to do about it.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but not everything in it does what its author may expect.
    Warning,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Lockgate's own defaults.
    BuiltIn,
    /// A place in the file; both count from 1, columns in characters.
    File {
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// A `--set` of the command line, by its key.
    Set(String),
}

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name, as it was given.
    pub file: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// The line, from 1; 0 where the value doesn't come from the file.
    pub line: u32,
    /// The column in characters, from 1; 0 where the value doesn't come from the file.
    pub column: u32,
    /// The key's path, such as `env.production.rollout[1]`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", place(&self.file, &self.origin))?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The origin for people: `lockgate.toml:12:5`, `LOCKGATE__ENV__DEV__PORT`, `--set env.dev.port` or `built in`.
#[must_use]
pub fn place(file: &str, origin: &Origin) -> String {
    match origin {
        Origin::BuiltIn => "built in".to_owned(),
        Origin::File { line, column } => format!("{file}:{line}:{column}"),
        Origin::Variable(name) => name.clone(),
        Origin::Set(key) => format!("--set {key}"),
    }
}

/// Everything that is wrong with a file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// A key's path while the tree is walked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Path(pub(crate) Vec<String>);

impl Path {
    pub(crate) fn of(parts: &[&str]) -> Self {
        Self(parts.iter().map(|p| (*p).to_owned()).collect())
    }

    pub(crate) fn key(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    pub(crate) fn item(&self, index: usize) -> Self {
        let mut parts = self.0.clone();
        match parts.last_mut() {
            Some(last) => last.push_str(&format!("[{index}]")),
            None => parts.push(format!("[{index}]")),
        }
        Self(parts)
    }

    /// Whether this is `other` or lies under it.
    pub(crate) fn is_under(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    /// The last key.
    pub(crate) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// ` in [env.dev]`, or ` at the top level`.
    pub(crate) fn in_table(&self) -> String {
        if self.0.is_empty() { " at the top level".to_owned() } else { format!(" in [{self}]") }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '[' | ']');
            if !part.is_empty() && part.chars().all(bare) {
                f.write_str(part)?;
            } else {
                write!(f, "\"{}\"", part.escape_debug())?;
            }
        }
        Ok(())
    }
}

/// A user's text for a message: escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// What a diagnostic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A mistake.
    Error,
    /// Something that its author may not have meant.
    Warning,
    /// Right, but not yet supported; a plan that would need it is refused.
    Refused,
    /// Right, but not yet supported; no plan depends on it.
    Later,
}

/// Collects diagnostics.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    found: Vec<(Path, Class, Diagnostic)>,
    seen: HashSet<(Origin, String)>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new(), seen: HashSet::new() }
    }

    /// A report of its own for the same file.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(&self.file)
    }

    pub(crate) fn error(
        &mut self,
        at: &Origin,
        path: &Path,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Class::Error, at, path, message.into(), help);
    }

    pub(crate) fn warning(
        &mut self,
        at: &Origin,
        path: &Path,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Class::Warning, at, path, message.into(), help);
    }

    pub(crate) fn not_yet(&mut self, at: &Origin, path: &Path, what: &str, refused: bool) {
        let (class, help) = if refused {
            (
                Class::Refused,
                "a plan that would need it is refused; take it out, or wait for the version that brings it",
            )
        } else {
            (Class::Later, "it has no effect in this version")
        };
        self.add(class, at, path, format!("not yet supported: {what}"), Some(help.to_owned()));
    }

    /// A mistake at one place is told once, even if several environments inherit it.
    fn add(&mut self, class: Class, at: &Origin, path: &Path, message: String, help: Option<String>) {
        let what = message.split(" in [").next().unwrap_or_default().to_owned();
        if !self.seen.insert((at.clone(), what)) {
            return;
        }
        let severity = if class == Class::Error { Severity::Error } else { Severity::Warning };
        let (line, column) = match at {
            Origin::File { line, column } => (*line, *column),
            _ => (0, 0),
        };
        let (file, origin, key) = (self.file.clone(), at.clone(), path.to_string());
        let diagnostic = Diagnostic { severity, file, origin, line, column, key, message, suggestion: help };
        self.found.push((path.clone(), class, diagnostic));
    }

    /// Adds what another report found.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (path, class, d) in other.found {
            self.add(class, &d.origin, &path, d.message, d.suggestion);
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.found.iter().any(|(_, class, _)| *class == Class::Error)
    }

    pub(crate) fn has_errors_under(&self, path: &Path) -> bool {
        self.found.iter().any(|(p, class, _)| *class == Class::Error && p.is_under(path))
    }

    /// The diagnostics of some classes, in the order of their places.
    pub(crate) fn sorted(&self, classes: &[Class]) -> Vec<Diagnostic> {
        let mut all: Vec<Diagnostic> = self
            .found
            .iter()
            .filter(|(_, class, _)| classes.contains(class))
            .map(|(_, _, d)| d.clone())
            .collect();
        all.sort_by(|a, b| (&a.origin, &a.message).cmp(&(&b.origin, &b.message)));
        all
    }

    /// Everything, in the order of its places.
    pub(crate) fn all(&self) -> Diagnostics {
        Diagnostics(self.sorted(&[Class::Error, Class::Warning, Class::Refused, Class::Later]))
    }
}
