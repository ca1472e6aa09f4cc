//! MLflow's logged models.

use super::experiments::key_value;
use super::types::{KeyValue, Lifecycle, LoggedModel};
use super::{entity, rows_of};
use crate::conn::{Conn, Row, Tx, int, parsed, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;
use std::collections::HashMap;

statements! {
    BY_ID = "SELECT model_id, experiment_id, name, model_type, source_run_id, status, artifact_uri, created, updated, \
             lifecycle FROM logged_models WHERE model_id = $1 AND workspace = $2";
    INSERT = "INSERT INTO logged_models (model_id, experiment_id, name, model_type, source_run_id, status, \
              artifact_uri, created, updated, workspace) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    SET_STATUS = "UPDATE logged_models SET status = $2, updated = $3 WHERE model_id = $1";
    TOUCH = "UPDATE logged_models SET updated = $2 WHERE model_id = $1";
    SET_PARAM = "INSERT INTO logged_model_params (model_id, key, value) VALUES ($1, $2, $3) \
                 ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value";
    SET_TAG = "INSERT INTO logged_model_tags (model_id, key, value) VALUES ($1, $2, $3) \
               ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value";
    DELETE_TAG = "DELETE FROM logged_model_tags WHERE model_id = $1 AND key = $2";
    DELETE = "UPDATE logged_models SET lifecycle = 'deleted', updated = $2 WHERE model_id = $1";
}

fn logged_model(row: &Row) -> Result<LoggedModel, StoreError> {
    Ok(LoggedModel {
        model_id: text(row, "model_id")?,
        experiment_id: int(row, "experiment_id")?,
        name: text(row, "name")?,
        model_type: text(row, "model_type")?,
        source_run_id: text(row, "source_run_id")?,
        status: text(row, "status")?,
        artifact_uri: text(row, "artifact_uri")?,
        lifecycle: parsed(row, "lifecycle", "lifecycle stage")?,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
        params: Vec::new(),
        tags: Vec::new(),
        metrics: Vec::new(),
    })
}

impl Conn {
    /// The logged model with this id; none where it was deleted.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn logged_model(&mut self, id: &str) -> Result<Option<LoggedModel>, StoreError> {
        Ok(self.any_logged_model(id).await?.filter(|model| model.lifecycle == Lifecycle::Active))
    }

    /// The logged model with this id, also where it was deleted.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn any_logged_model(&mut self, id: &str) -> Result<Option<LoggedModel>, StoreError> {
        let row =
            self.fetch_optional(query(BY_ID).bind(id.to_owned()).bind(self.workspace().to_owned())).await?;
        let found = row.as_ref().map(logged_model).transpose()?;
        Ok(self.filled_models(found.into_iter().collect()).await?.pop())
    }

    /// Whether there is a logged model with this id, in use or deleted.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn logged_model_lifecycle(&mut self, id: &str) -> Result<Option<Lifecycle>, StoreError> {
        let statement = query(BY_ID).bind(id.to_owned()).bind(self.workspace().to_owned());
        let row = self.fetch_optional(statement).await?;
        row.map(|row| parsed(&row, "lifecycle", "lifecycle stage")).transpose()
    }

    /// Searches logged models.
    ///
    /// # Errors
    /// Where a condition is not about logged models or the database can't be read.
    pub async fn search_logged_models(
        &mut self,
        search: &super::Search,
    ) -> Result<Vec<LoggedModel>, StoreError> {
        let rows = self.search(&entity::LOGGED_MODELS, search).await?;
        let found = rows.iter().map(logged_model).collect::<Result<_, _>>()?;
        self.filled_models(found).await
    }

    async fn filled_models(&mut self, mut models: Vec<LoggedModel>) -> Result<Vec<LoggedModel>, StoreError> {
        let ids: Vec<String> = models.iter().map(|model| model.model_id.clone()).collect();
        let places: HashMap<String, usize> = ids.iter().cloned().zip(0..).collect();
        let place = |id: &str| places.get(id).copied();
        let params = "SELECT model_id, key, value FROM logged_model_params WHERE model_id IN";
        for row in rows_of(self, params, &ids).await? {
            if let Some(i) = place(&text(&row, "model_id")?) {
                models[i].params.push(key_value(&row)?);
            }
        }
        let tags = "SELECT model_id, key, value FROM logged_model_tags WHERE model_id IN";
        for row in rows_of(self, tags, &ids).await? {
            if let Some(i) = place(&text(&row, "model_id")?) {
                models[i].tags.push(key_value(&row)?);
            }
        }
        for metric in self.model_metrics(&ids).await? {
            if let Some(i) = metric.model_id.as_deref().and_then(place) {
                models[i].metrics.push(metric);
            }
        }
        Ok(models)
    }
}

impl Tx {
    /// Makes a logged model with its params and tags.
    ///
    /// # Errors
    /// Where the id is in use.
    pub async fn insert_logged_model(&mut self, new: &LoggedModel) -> Result<(), StoreError> {
        no_nul("a model's name", &new.name)?;
        no_nul("a model's type", &new.model_type)?;
        let statement =
            query(INSERT).bind(new.model_id.clone()).bind(new.experiment_id).bind(new.name.clone());
        let statement = statement.bind(new.model_type.clone()).bind(new.source_run_id.clone());
        let statement = statement.bind(new.status.clone()).bind(new.artifact_uri.clone());
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(new.created).bind(new.updated).bind(workspace)).await?;
        self.set_logged_model_params(&new.model_id, &new.params, new.updated).await?;
        self.set_logged_model_tags(&new.model_id, &new.tags, new.updated).await
    }

    /// Sets a logged model's status.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn set_logged_model_status(
        &mut self,
        id: &str,
        status: &str,
        now: Millis,
    ) -> Result<(), StoreError> {
        let statement = query(SET_STATUS).bind(id.to_owned()).bind(status.to_owned()).bind(now);
        self.execute(statement).await.map(|_| ())
    }

    /// Sets a logged model's params.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn set_logged_model_params(
        &mut self,
        id: &str,
        params: &[KeyValue],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.set_pairs(SET_PARAM, id, params, now).await
    }

    /// Sets a logged model's tags.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn set_logged_model_tags(
        &mut self,
        id: &str,
        tags: &[KeyValue],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.set_pairs(SET_TAG, id, tags, now).await
    }

    async fn set_pairs(
        &mut self,
        sql: &'static str,
        id: &str,
        pairs: &[KeyValue],
        now: Millis,
    ) -> Result<(), StoreError> {
        for pair in pairs {
            no_nul("a key", &pair.key)?;
            no_nul("a value", &pair.value)?;
            let statement = query(sql).bind(id.to_owned()).bind(pair.key.clone()).bind(pair.value.clone());
            self.execute(statement).await?;
        }
        self.execute(query(TOUCH).bind(id.to_owned()).bind(now)).await.map(|_| ())
    }

    /// Removes a tag; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_logged_model_tag(
        &mut self,
        id: &str,
        key: &str,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let rows = self.execute(query(DELETE_TAG).bind(id.to_owned()).bind(key.to_owned())).await?;
        self.execute(query(TOUCH).bind(id.to_owned()).bind(now)).await?;
        Ok(rows > 0)
    }

    /// Deletes a logged model: it keeps all that belongs to it.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_logged_model(&mut self, id: &str, now: Millis) -> Result<(), StoreError> {
        self.execute(query(DELETE).bind(id.to_owned()).bind(now)).await.map(|_| ())
    }
}
