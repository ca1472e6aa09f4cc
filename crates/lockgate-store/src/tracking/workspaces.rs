//! Workspaces that people made. Those that are there by themselves (`default` and the environments) have no row.

use super::types::Workspace;
use crate::conn::{Conn, Row, Tx, opt_text, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    ALL_OF_THEM = "SELECT name, description, artifact_root FROM workspaces";
    ONE = "SELECT name, description, artifact_root FROM workspaces WHERE name = $1";
    PUT = "INSERT INTO workspaces (name, description, artifact_root, created_by, created) VALUES ($1, $2, $3, $4, $5) \
           ON CONFLICT (name) DO UPDATE SET description = excluded.description, \
           artifact_root = excluded.artifact_root";
    DELETE = "DELETE FROM workspaces WHERE name = $1";
    IN_USE = "SELECT COUNT(*) FROM (SELECT 1 AS one FROM experiments WHERE workspace = $1 UNION ALL \
              SELECT 1 AS one FROM registered_models WHERE workspace = $1 UNION ALL \
              SELECT 1 AS one FROM webhooks WHERE workspace = $1) found";
}

fn workspace(row: &Row) -> Result<Workspace, StoreError> {
    Ok(Workspace {
        name: text(row, "name")?,
        description: opt_text(row, "description")?,
        artifact_root: opt_text(row, "artifact_root")?,
    })
}

impl Conn {
    /// The workspaces that people made, by name.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn workspaces(&mut self) -> Result<Vec<Workspace>, StoreError> {
        let rows = self.fetch_all(query(ALL_OF_THEM)).await?;
        let mut found: Vec<Workspace> = rows.iter().map(workspace).collect::<Result<_, _>>()?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// One of them.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn find_workspace(&mut self, name: &str) -> Result<Option<Workspace>, StoreError> {
        let row = self.fetch_optional(query(ONE).bind(name.to_owned())).await?;
        row.as_ref().map(workspace).transpose()
    }

    /// How many experiments, registered models and webhooks a workspace has.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn workspace_size(&mut self, name: &str) -> Result<i64, StoreError> {
        self.scalar(query(IN_USE).bind(name.to_owned())).await.map(Option::unwrap_or_default)
    }
}

impl Tx {
    /// Makes a workspace, or describes it anew.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_workspace(&mut self, new: &Workspace, by: &str, now: Millis) -> Result<(), StoreError> {
        no_nul("a workspace's name", &new.name)?;
        for part in [&new.description, &new.artifact_root].into_iter().flatten() {
            no_nul("a workspace", part)?;
        }
        let statement = query(PUT).bind(new.name.clone()).bind(new.description.clone());
        let statement = statement.bind(new.artifact_root.clone()).bind(by.to_owned()).bind(now);
        self.execute(statement).await.map(|_| ())
    }

    /// Takes a workspace away; what is in it is not looked at.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_workspace(&mut self, name: &str) -> Result<(), StoreError> {
        self.execute(query(DELETE).bind(name.to_owned())).await.map(|_| ())
    }
}
