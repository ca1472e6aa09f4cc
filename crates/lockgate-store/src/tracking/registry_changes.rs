//! Renaming, describing and deleting what is in the registry.

use crate::conn::{Tx, query};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    DESCRIBE = "UPDATE registered_models SET description = $2, updated = $3 WHERE name = $1";
    RENAME = "UPDATE registered_models SET name = $2, updated = $3, label = $4 WHERE name = $1";
    RENAME_VERSIONS = "UPDATE model_versions SET name = $2, updated = $3, label = $4 WHERE name = $1";
    RENAME_TAGS = "UPDATE registered_model_tags SET name = $2 WHERE name = $1";
    RENAME_VERSION_TAGS = "UPDATE model_version_tags SET name = $2 WHERE name = $1";
    RENAME_ALIASES = "UPDATE aliases SET name = $2 WHERE name = $1";
    RENAME_MOVES = "UPDATE alias_history SET name = $2 WHERE name = $1";
    RENAME_STAGE_MOVES = "UPDATE stage_history SET name = $2 WHERE name = $1";
    TOUCH = "UPDATE registered_models SET updated = $2 WHERE name = $1";
    DELETE = "DELETE FROM registered_models WHERE name = $1";
    DELETE_TAGS = "DELETE FROM registered_model_tags WHERE name = $1";
    DELETE_VERSIONS = "DELETE FROM model_versions WHERE name = $1";
    DELETE_VERSIONS_TAGS = "DELETE FROM model_version_tags WHERE name = $1";
    DELETE_TAG = "DELETE FROM registered_model_tags WHERE name = $1 AND key = $2";
    DELETE_VERSION = "DELETE FROM model_versions WHERE name = $1 AND version = $2";
    DELETE_VERSION_TAGS = "DELETE FROM model_version_tags WHERE name = $1 AND version = $2";
    DELETE_VERSION_TAG = "DELETE FROM model_version_tags WHERE name = $1 AND version = $2 AND key = $3";
}

impl Tx {
    /// Changes a registered model's description.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn describe_registered_model(
        &mut self,
        name: &str,
        description: Option<&str>,
        now: Millis,
    ) -> Result<(), StoreError> {
        no_nul("a description", description.unwrap_or_default())?;
        let statement = query(DESCRIBE).bind(self.key(name)).bind(description.map(str::to_owned)).bind(now);
        self.execute(statement).await.map(|_| ())
    }

    /// Renames a registered model with all that belongs to it.
    ///
    /// # Errors
    /// Where the new name is in use.
    pub async fn rename_registered_model(
        &mut self,
        old: &str,
        new: &str,
        now: Millis,
    ) -> Result<(), StoreError> {
        no_nul("a model's name", new)?;
        for sql in [RENAME, RENAME_VERSIONS] {
            let statement = query(sql).bind(self.key(old)).bind(self.key(new)).bind(now);
            self.execute(statement.bind(new.to_owned())).await?;
        }
        for sql in [RENAME_TAGS, RENAME_VERSION_TAGS, RENAME_ALIASES, RENAME_MOVES, RENAME_STAGE_MOVES] {
            let statement = query(sql).bind(self.key(old)).bind(self.key(new));
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Removes a registered model with its versions and tags. Its aliases are to be moved away before, so that their
    /// history tells who did it.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_registered_model(&mut self, name: &str) -> Result<(), StoreError> {
        for sql in [DELETE, DELETE_TAGS, DELETE_VERSIONS, DELETE_VERSIONS_TAGS] {
            let statement = query(sql).bind(self.key(name));
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Removes a registered model's tag.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_registered_model_tag(&mut self, name: &str, key: &str) -> Result<(), StoreError> {
        let statement = query(DELETE_TAG).bind(self.key(name)).bind(key.to_owned());
        self.execute(statement).await.map(|_| ())
    }

    /// Removes a version with its tags; its number is not used again. For its aliases see
    /// [`Tx::delete_registered_model`].
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_model_version(
        &mut self,
        name: &str,
        number: i64,
        now: Millis,
    ) -> Result<(), StoreError> {
        for sql in [DELETE_VERSION, DELETE_VERSION_TAGS] {
            let statement = query(sql).bind(self.key(name)).bind(number);
            self.execute(statement).await?;
        }
        let statement = query(TOUCH).bind(self.key(name)).bind(now);
        self.execute(statement).await.map(|_| ())
    }

    /// Removes a version's tag.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_model_version_tag(
        &mut self,
        name: &str,
        number: i64,
        key: &str,
    ) -> Result<(), StoreError> {
        let statement = query(DELETE_VERSION_TAG).bind(self.key(name)).bind(number).bind(key.to_owned());
        self.execute(statement).await.map(|_| ())
    }
}
