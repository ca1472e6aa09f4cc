//! Rows of another store, which keep their ids and times.

use super::types::Experiment;
use crate::conn::{Tx, query};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;

statements! {
    ADOPT = "UPDATE experiments SET name = $2, artifact_location = $3, lifecycle = $4, created = $5, updated = $6 \
             WHERE id = $1";
    TOUCHED = "UPDATE experiments SET updated = $2 WHERE id = $1";
    RAISE = "UPDATE registered_models SET next_version = $2 WHERE name = $1 AND next_version < $2";
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

    /// Sees to it that a model's next version is numbered `next` or higher.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn raise_next_version(&mut self, name: &str, next: i64) -> Result<(), StoreError> {
        self.execute(query(RAISE).bind(name.to_owned()).bind(next)).await.map(|_| ())
    }
}
