//! Experiments.

use super::types::{Experiment, KeyValue};
use super::{entity, rows_of};
use crate::conn::{Conn, Row, Tx, int, parsed, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    BY_ID = "SELECT id, name, artifact_location, lifecycle, created, updated FROM experiments \
             WHERE id = $1 AND workspace = $2";
    BY_NAME = "SELECT id, name, artifact_location, lifecycle, created, updated FROM experiments \
               WHERE name = $1 AND workspace = $2";
    // The first experiment comes with the schema, which knows no clock. That nobody has touched it shows in `updated`.
    DATE_FIRST = "UPDATE experiments SET created = COALESCE((SELECT MIN(r.start_time) FROM runs r WHERE \
                  r.experiment_id = 0 AND r.start_time > 0 AND r.start_time < $1), $1) WHERE id = 0 AND created = 0";
    // A number is used once, also where `db gc` took the last ones away.
    NEXT = "SELECT MAX(known.id) + 1 FROM (SELECT COALESCE(MAX(id), 0) AS id FROM experiments UNION ALL \
            SELECT CAST(value AS BIGINT) AS id FROM settings WHERE key = 'last_experiment_id') known";
    INSERT = "INSERT INTO experiments (id, name, artifact_location, lifecycle, created, updated, workspace) \
              VALUES ($1, $2, $3, $4, $5, $6, $7)";
    TOUCH = "UPDATE experiments SET updated = $2 WHERE id = $1";
    SET_TAG = "INSERT INTO experiment_tags (experiment_id, key, value) VALUES ($1, $2, $3) \
               ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value";
    UPDATE = "UPDATE experiments SET name = $2, lifecycle = $3, updated = $4 WHERE id = $1";
    DELETE_TAG = "DELETE FROM experiment_tags WHERE experiment_id = $1 AND key = $2";
    TAGS = "SELECT key, value FROM experiment_tags WHERE experiment_id = $1 ORDER BY key";
}

pub(super) fn experiment(row: &Row) -> Result<Experiment, StoreError> {
    Ok(Experiment {
        id: int(row, "id")?,
        name: text(row, "name")?,
        artifact_location: text(row, "artifact_location")?,
        lifecycle: parsed(row, "lifecycle", "lifecycle stage")?,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
        tags: Vec::new(),
    })
}

pub(super) fn key_value(row: &Row) -> Result<KeyValue, StoreError> {
    Ok(KeyValue { key: text(row, "key")?, value: text(row, "value")? })
}

impl Conn {
    /// The experiment with this number.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn experiment(&mut self, id: i64) -> Result<Option<Experiment>, StoreError> {
        let row = self.fetch_optional(query(BY_ID).bind(id).bind(self.workspace().to_owned())).await?;
        self.with_tags(row).await
    }

    /// The experiment's own row, without its tags.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn experiment_row(&mut self, id: i64) -> Result<Option<Experiment>, StoreError> {
        let row = self.fetch_optional(query(BY_ID).bind(id).bind(self.workspace().to_owned())).await?;
        row.as_ref().map(experiment).transpose()
    }

    /// The experiment with this name, also where it was deleted.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn experiment_named(&mut self, name: &str) -> Result<Option<Experiment>, StoreError> {
        let statement = query(BY_NAME).bind(name.to_owned()).bind(self.workspace().to_owned());
        let row = self.fetch_optional(statement).await?;
        self.with_tags(row).await
    }

    async fn with_tags(&mut self, row: Option<Row>) -> Result<Option<Experiment>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let mut found = experiment(&row)?;
        let tags = self.fetch_all(query(TAGS).bind(found.id)).await?;
        found.tags = tags.iter().map(key_value).collect::<Result<_, _>>()?;
        Ok(Some(found))
    }

    /// Searches experiments.
    ///
    /// # Errors
    /// Where a condition is not about experiments or the database can't be read.
    pub async fn search_experiments(
        &mut self,
        search: &super::Search,
    ) -> Result<Vec<Experiment>, StoreError> {
        let rows = self.search(&entity::EXPERIMENTS, search).await?;
        let mut found: Vec<Experiment> = rows.iter().map(experiment).collect::<Result<_, _>>()?;
        let ids: Vec<String> = found.iter().map(|e| e.id.to_string()).collect();
        // Numbers are bound as texts here, so the column is compared as text.
        let head = "SELECT CAST(experiment_id AS TEXT) AS owner, key, value FROM experiment_tags \
                    WHERE CAST(experiment_id AS TEXT) IN";
        for row in rows_of(self, head, &ids).await? {
            let owner = text(&row, "owner")?;
            if let Some(e) = found.iter_mut().find(|e| e.id.to_string() == owner) {
                e.tags.push(key_value(&row)?);
            }
        }
        Ok(found)
    }
}

impl Tx {
    /// The number that the next experiment gets.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn next_experiment_id(&mut self) -> Result<i64, StoreError> {
        self.scalar(query(NEXT)).await.map(|next| next.unwrap_or(1))
    }

    /// Makes an experiment with its tags.
    ///
    /// # Errors
    /// Where its name or number is in use.
    pub async fn insert_experiment(&mut self, new: &Experiment) -> Result<(), StoreError> {
        no_nul("an experiment's name", &new.name)?;
        no_nul("an artifact location", &new.artifact_location)?;
        let statement = query(INSERT).bind(new.id).bind(new.name.clone()).bind(new.artifact_location.clone());
        let statement = statement.bind(new.lifecycle.as_str()).bind(new.created).bind(new.updated);
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(workspace)).await?;
        for tag in &new.tags {
            self.set_experiment_tag(new.id, tag, new.updated).await?;
        }
        Ok(())
    }

    /// Sets a tag.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn set_experiment_tag(
        &mut self,
        id: i64,
        tag: &KeyValue,
        now: Millis,
    ) -> Result<(), StoreError> {
        no_nul("a tag's key", &tag.key)?;
        no_nul("a tag's value", &tag.value)?;
        let statement = query(SET_TAG).bind(id).bind(tag.key.clone()).bind(tag.value.clone());
        self.execute(statement).await?;
        self.execute(query(TOUCH).bind(id).bind(now)).await.map(|_| ())
    }

    /// Gives an experiment its name and lifecycle.
    ///
    /// # Errors
    /// Where the name is in use.
    pub async fn update_experiment(&mut self, new: &Experiment) -> Result<(), StoreError> {
        no_nul("an experiment's name", &new.name)?;
        let statement = query(UPDATE).bind(new.id).bind(new.name.clone()).bind(new.lifecycle.as_str());
        self.execute(statement.bind(new.updated)).await.map(|_| ())
    }

    /// Removes a tag; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_experiment_tag(
        &mut self,
        id: i64,
        key: &str,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let rows = self.execute(query(DELETE_TAG).bind(id).bind(key.to_owned())).await?;
        self.execute(query(TOUCH).bind(id).bind(now)).await?;
        Ok(rows > 0)
    }
}
