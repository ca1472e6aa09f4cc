//! PostgreSQL has programs of its own for backups: they are named, not replaced.

use crate::context::Context;
use crate::exit::Exit;
use lockgate_store::without_password;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Prints commands to be run by a person or a script; nothing was done, which the exit code says too.
fn left_to_you(ctx: &Context, what: &str, commands: &[String]) -> anyhow::Result<Exit> {
    ctx.out.show(&json!({ "done": false, "why": what, "commands": commands }), || commands.join("\n"))?;
    ctx.out.aside(&format!(
        "nothing was done: {what}. Run the commands above; give the password in PGPASSWORD or ~/.pgpass"
    ));
    Ok(Exit::Error)
}

/// How to back a database up.
pub(super) fn backup(ctx: &Context, url: &str, to: &Path, blobs: Option<PathBuf>) -> anyhow::Result<Exit> {
    let (url, to) = (quoted(&without_password(url)), to.to_string_lossy());
    let mut commands =
        vec![format!("pg_dump --format=custom --no-owner --file={} --dbname={url}", quoted(&to))];
    if let Some(blobs) = blobs {
        // After the dump: what the dump names is there by then.
        let from = quoted(&format!("{}/blobs", blobs.display()));
        commands.push(format!("rsync --archive {from} {}", quoted(&format!("{to}.blobs/"))));
    }
    left_to_you(ctx, "a PostgreSQL database is backed up by pg_dump, also while servers run", &commands)
}

/// How to restore one.
pub(super) fn restore(ctx: &Context, url: &str, from: &Path, blobs: Option<PathBuf>) -> anyhow::Result<Exit> {
    let (url, from) = (quoted(&without_password(url)), from.to_string_lossy());
    let mut commands = Vec::new();
    let copied = format!("{from}.blobs");
    if let Some(blobs) = blobs.filter(|_| Path::new(&copied).is_dir()) {
        // Before the database: it never names what is not there.
        let to = quoted(&format!("{}/", blobs.display()));
        commands.push(format!("rsync --archive {} {to}", quoted(&format!("{copied}/blobs"))));
    }
    commands.push(format!(
        "pg_restore --clean --if-exists --no-owner --single-transaction --exit-on-error --dbname={url} {}",
        quoted(&from)
    ));
    left_to_you(ctx, "a PostgreSQL database is restored by pg_restore, while no server runs", &commands)
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_of_a_shell_are_quoted_where_they_must_be() {
        for (given, quoted) in [
            ("postgres://u@h:5/d", "postgres://u@h:5/d"),
            ("postgres://h/d?a=b", "'postgres://h/d?a=b'"),
            ("it's here", r"'it'\''s here'"),
            ("", "''"),
        ] {
            assert_eq!(super::quoted(given), quoted);
        }
    }
}
