//! Which bytes lie under which path.

use super::types::Artifact;
use crate::conn::{Conn, Query, Row, Tx, count, parsed, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    ONE = "SELECT path, digest, size FROM artifacts WHERE root = $1 AND path = $2";
    BELOW = "SELECT path, digest, size FROM artifacts WHERE root = $1 AND substr(path, 1, CAST($2 AS INTEGER)) = $3";
    AFTER = "SELECT root, path, digest, size FROM artifacts WHERE (root, path) > ($1, $2) ORDER BY root, path LIMIT $3";
    PUT = "INSERT INTO artifacts (root, path, digest, size, updated) VALUES ($1, $2, $3, $4, $5) \
           ON CONFLICT (root, path) DO UPDATE SET digest = excluded.digest, size = excluded.size, \
           updated = excluded.updated";
    DELETE = "DELETE FROM artifacts WHERE root = $1 AND path = $2";
    DELETE_BELOW = "DELETE FROM artifacts WHERE root = $1 AND substr(path, 1, CAST($2 AS INTEGER)) = $3";
}

/// A statement about the paths that begin with `prefix`; both engines count characters.
fn below(sql: &'static str, root: &str, prefix: &str) -> Result<Query, StoreError> {
    no_nul("an artifact's path", prefix)?;
    let length = signed("an artifact's path", prefix.chars().count() as u64)?;
    Ok(query(sql).bind(root.to_owned()).bind(length).bind(prefix.to_owned()))
}

fn artifact(row: &Row) -> Result<Artifact, StoreError> {
    Ok(Artifact {
        path: text(row, "path")?,
        digest: parsed(row, "digest", "digest")?,
        size: count(row, "size")?,
    })
}

impl Conn {
    /// The file at a path.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn artifact(&mut self, root: &str, path: &str) -> Result<Option<Artifact>, StoreError> {
        let row = self.fetch_optional(query(ONE).bind(root.to_owned()).bind(path.to_owned())).await?;
        row.as_ref().map(artifact).transpose()
    }

    /// The files of a root whose paths begin with `prefix`, by path.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn artifacts(&mut self, root: &str, prefix: &str) -> Result<Vec<Artifact>, StoreError> {
        let rows = self.fetch_all(below(BELOW, root, prefix)?).await?;
        let mut found: Vec<Artifact> = rows.iter().map(artifact).collect::<Result<_, _>>()?;
        // Sorted here: the engines sort texts differently.
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Artifacts of all roots with their roots, in the database's own order: those after the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn every_artifact(
        &mut self,
        after: Option<&(String, Artifact)>,
        limit: u32,
    ) -> Result<Vec<(String, Artifact)>, StoreError> {
        let (root, path) = after.map(|(root, last)| (root.clone(), last.path.clone())).unwrap_or_default();
        let rows = self.fetch_all(query(AFTER).bind(root).bind(path).bind(i64::from(limit))).await?;
        rows.iter().map(|row| Ok((text(row, "root")?, artifact(row)?))).collect()
    }
}

impl Tx {
    /// Puts bytes under a path, in place of those that were there.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_artifact(&mut self, root: &str, new: &Artifact, now: Millis) -> Result<(), StoreError> {
        no_nul("an artifact's root", root)?;
        no_nul("an artifact's path", &new.path)?;
        let statement = query(PUT).bind(root.to_owned()).bind(new.path.clone()).bind(new.digest.to_string());
        self.execute(statement.bind(signed("an artifact's size", new.size)?).bind(now)).await.map(|_| ())
    }

    /// Takes a path away; its bytes stay, others may use them.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_artifact(&mut self, root: &str, path: &str) -> Result<(), StoreError> {
        self.execute(query(DELETE).bind(root.to_owned()).bind(path.to_owned())).await.map(|_| ())
    }

    /// Takes all paths away that begin with `prefix`; says how many there were.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_artifacts(&mut self, root: &str, prefix: &str) -> Result<u64, StoreError> {
        self.execute(below(DELETE_BELOW, root, prefix)?).await
    }
}
