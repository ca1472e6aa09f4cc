//! Rows of another store, which keep their ids and times.

use super::types::Experiment;
use crate::conn::{Conn, Tx, query};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;

statements! {
    ADOPT = "UPDATE experiments SET name = $2, artifact_location = $3, lifecycle = $4, created = $5, updated = $6 \
             WHERE id = $1";
    TOUCHED = "UPDATE experiments SET updated = $2 WHERE id = $1";
    STORED = "UPDATE model_versions SET storage_location = $3 WHERE name = $1 AND version = $2";
    EXPERIMENTS = "SELECT COUNT(*) FROM experiments WHERE id = $1";
    RUNS = "SELECT COUNT(*) FROM runs WHERE run_id = $1";
    MODELS = "SELECT COUNT(*) FROM logged_models WHERE model_id = $1";
}

impl Tx {
    /// Gives an experiment everything of another one but the number; tags are added.
    ///
    /// # Errors
    /// Where the name is in use.
    pub async fn adopt_experiment(&mut self, new: &Experiment) -> Result<(), StoreError> {
        no_nul("an experiment's name", &new.name)?;
        no_nul("an artifact location", &new.artifact_location)?;
        let statement = query(ADOPT).bind(new.id).bind(new.name.clone()).bind(new.artifact_location.clone());
        let statement = statement.bind(new.lifecycle.as_str()).bind(new.created).bind(new.updated);
        self.execute(statement).await?;
        for tag in &new.tags {
            self.set_experiment_tag(new.id, tag, new.updated).await?;
        }
        // Each tag sets it as well: the last word is the given time.
        self.execute(query(TOUCHED).bind(new.id).bind(new.updated)).await.map(|_| ())
    }

    /// Says where a version's files lie now.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn set_version_location(
        &mut self,
        name: &str,
        number: i64,
        location: &str,
    ) -> Result<(), StoreError> {
        no_nul("a location", location)?;
        let statement = query(STORED).bind(self.key(name)).bind(number).bind(location.to_owned());
        self.execute(statement).await.map(|_| ())
    }
}

impl Conn {
    /// Whether an experiment, of whatever workspace, has this number.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn is_experiment_id_used(&mut self, id: i64) -> Result<bool, StoreError> {
        Ok(self.scalar(query(EXPERIMENTS).bind(id)).await?.unwrap_or_default() > 0)
    }

    /// Whether a run, of whatever workspace, has this id.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn is_run_id_used(&mut self, id: &str) -> Result<bool, StoreError> {
        Ok(self.scalar(query(RUNS).bind(id.to_owned())).await?.unwrap_or_default() > 0)
    }

    /// Whether a logged model, of whatever workspace, has this id.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn is_model_id_used(&mut self, id: &str) -> Result<bool, StoreError> {
        Ok(self.scalar(query(MODELS).bind(id.to_owned())).await?.unwrap_or_default() > 0)
    }
}
