//! Where a database is: its address, checked and split by engine.

use crate::error::StoreError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The two engines that one schema and one statement text run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// How a read transaction begins: every read sees one snapshot.
    pub(crate) fn begin_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// How a write transaction begins: it excludes every other writer, of this process and of others, until it ends.
    pub(crate) fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT next FROM head FOR UPDATE",
        }
    }
}

/// A database's place.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) engine: Engine,
    /// For people: a path, or an address without user, password and options.
    pub(crate) name: Arc<str>,
    /// The file, on SQLite.
    pub(crate) path: Option<PathBuf>,
    /// What sqlx connects to, on PostgreSQL. May hold a password: never shown.
    pub(crate) url: String,
}

impl Place {
    /// Understands `sqlite:///path`, `sqlite:path`, a bare path and `postgres://…`.
    pub(crate) fn parse(given: &str) -> Result<Self, StoreError> {
        if given.starts_with("postgres://") || given.starts_with("postgresql://") {
            let name: Arc<str> = redact(given).into();
            return Ok(Self { engine: Engine::Postgres, name, path: None, url: given.to_owned() });
        }
        let wrong = |why: &str| StoreError::Address { given: redact(given), why: why.to_owned() };
        let path = match given.strip_prefix("sqlite:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if given.contains("://") => return Err(wrong("the scheme is not known")),
            None => given,
        };
        if path.is_empty() || path.contains('\0') {
            return Err(wrong("it names no file"));
        }
        if path.contains(":memory:") {
            return Err(wrong("a database in memory would lose acknowledged writes"));
        }
        if given.starts_with("sqlite:") && path.contains('?') {
            return Err(wrong("options are not allowed"));
        }
        let path = std::path::absolute(Path::new(path)).map_err(|e| wrong(&e.to_string()))?;
        let text = path.to_str().ok_or_else(|| wrong("the path is no UTF-8"))?;
        Ok(Self { engine: Engine::Sqlite, name: text.into(), path: Some(path), url: String::new() })
    }
}

/// The address without user, password and options.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{rest}")
}

/// Whether this is the address of a PostgreSQL database, not of a SQLite file.
#[must_use]
pub fn is_postgres(url: &str) -> bool {
    matches!(Place::parse(url), Ok(place) if place.engine == Engine::Postgres)
}

/// The file of a SQLite database.
///
/// # Errors
/// Where the address is none, or one of a PostgreSQL database.
pub fn sqlite_file(url: &str) -> Result<PathBuf, StoreError> {
    Place::parse(url)?.path.ok_or_else(|| StoreError::Address {
        given: redact(url),
        why: "a SQLite file is needed here".to_owned(),
    })
}

/// The address of a PostgreSQL database with its user and options, but without its password.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return redact(url) };
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let kept: Vec<&str> = options
        .split('&')
        .filter(|option| {
            let name = option.split('=').next().unwrap_or_default();
            !name.is_empty() && !name.to_ascii_lowercase().contains("pass")
        })
        .collect();
    let options = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    format!("{scheme}://{rest}{options}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_engines_are_understood() {
        let place = Place::parse("sqlite:///var/lib/a b?#%/x.db");
        assert!(matches!(place, Err(StoreError::Address { .. })), "options are refused");
        let place = Place::parse("/var/lib/a b?#%/x.db").unwrap();
        assert_eq!(&*place.name, "/var/lib/a b?#%/x.db");
        assert_eq!(Place::parse("sqlite:///x/y.db").unwrap().path.unwrap(), Path::new("/x/y.db"));
        assert!(Place::parse("y.db").unwrap().path.unwrap().is_absolute());
        assert_eq!(Place::parse("postgres://u:p@h:1/d").unwrap().engine, Engine::Postgres);
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://u:geheim@h/d?password=geheim",
            "postgres://u:ge@heim:geheim@h/d",
            "mysql://u:geheim@h/d",
        ] {
            let shown = match Place::parse(url) {
                Ok(place) => place.name.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(!shown.contains("heim"), "{shown}");
        }
    }

    #[test]
    fn an_address_for_commands_keeps_all_but_the_password() {
        for (given, shown) in [
            (
                "postgres://u:ge@heim:geheim@h:5/d?sslmode=disable&password=geheim",
                "postgres://u@h:5/d?sslmode=disable",
            ),
            ("postgres://h/d?PassWord=geheim", "postgres://h/d"),
            ("postgresql://u@%2Frun%2Fpg/d", "postgresql://u@%2Frun%2Fpg/d"),
        ] {
            assert_eq!(without_password(given), shown);
        }
    }

    #[test]
    fn addresses_that_would_lose_data_are_refused() {
        for url in ["", "sqlite:", "sqlite::memory:", "sqlite://:memory:", "redis://h", "a\0b"] {
            assert!(matches!(Place::parse(url), Err(StoreError::Address { .. })), "{url:?}");
        }
    }
}
