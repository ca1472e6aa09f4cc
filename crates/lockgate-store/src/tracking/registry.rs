//! Registered models, their versions, tags and aliases, and who moved which alias when.

use super::experiments::key_value;
use super::types::{AliasMove, KeyValue, ModelVersion, RegisteredModel};
use super::{entity, rows_of};
use crate::conn::{Conn, DEFAULT_WORKSPACE, Row, Tx, int, opt_int, opt_text, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    MODEL = "SELECT label AS name, description, created_by, created, updated FROM registered_models WHERE name = $1";
    INSERT_MODEL = "INSERT INTO registered_models (name, description, created_by, created, updated, next_version, \
                    workspace, label) VALUES ($1, $2, $3, $4, $5, 1, $6, $7)";
    SET_MODEL_TAG = "INSERT INTO registered_model_tags (name, key, value) VALUES ($1, $2, $3) \
                     ON CONFLICT (name, key) DO UPDATE SET value = excluded.value";
    NEXT_VERSION = "SELECT next_version FROM registered_models WHERE name = $1";
    RESERVE = "UPDATE registered_models SET next_version = $2 WHERE name = $1 AND next_version < $2";
    TAKE_VERSION = "UPDATE registered_models SET next_version = next_version + 1, updated = $2 WHERE name = $1";
    VERSION = "SELECT label AS name, version, description, user_id, created_by, source, storage_location, run_id, run_link, \
               model_id, created, updated, stage FROM model_versions WHERE name = $1 AND version = $2";
    NEWEST_VERSIONS = "SELECT t.label AS name, t.version, t.description, t.user_id, t.created_by, t.source, t.storage_location, \
               t.run_id, t.run_link, t.model_id, t.created, t.updated, t.stage FROM model_versions t \
               JOIN (SELECT MAX(version) AS newest, MIN(version) AS oldest FROM model_versions WHERE name = $1 \
               GROUP BY stage) m ON m.newest = t.version WHERE t.name = $1 ORDER BY m.oldest";
    INSERT_VERSION = "INSERT INTO model_versions (name, version, description, user_id, created_by, source, \
               storage_location, run_id, run_link, model_id, created, updated, stage, workspace, label) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    DESCRIBE_VERSION = "UPDATE model_versions SET description = $3, updated = $4 WHERE name = $1 AND version = $2";
    VERSION_TAGS = "SELECT key, value FROM model_version_tags WHERE name = $1 AND version = $2 ORDER BY key";
    SET_VERSION_TAG = "INSERT INTO model_version_tags (name, version, key, value) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (name, version, key) DO UPDATE SET value = excluded.value";
    VERSION_ALIASES = "SELECT alias FROM aliases WHERE name = $1 AND version = $2 ORDER BY alias";
    ALIAS = "SELECT version FROM aliases WHERE name = $1 AND alias = $2";
    EVERY_ALIAS = "SELECT a.name, a.alias, a.version FROM aliases a JOIN registered_models m ON m.name = a.name \
               WHERE m.workspace = 'default' ORDER BY a.name, a.alias";
    SET_ALIAS = "INSERT INTO aliases (name, alias, version) VALUES ($1, $2, $3) \
               ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version";
    DELETE_ALIAS = "DELETE FROM aliases WHERE name = $1 AND alias = $2";
    NOTE_MOVE = "INSERT INTO alias_history (seq, name, alias, version, actor, at_ms, promotion) \
               SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6 FROM alias_history";
    MOVES = "SELECT alias, version, actor, at_ms, promotion FROM alias_history WHERE name = $1 ORDER BY seq";
}

fn model(row: &Row) -> Result<RegisteredModel, StoreError> {
    Ok(RegisteredModel {
        name: text(row, "name")?,
        description: opt_text(row, "description")?,
        created_by: text(row, "created_by")?,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
        tags: Vec::new(),
        aliases: Vec::new(),
        latest: Vec::new(),
    })
}

fn version(row: &Row) -> Result<ModelVersion, StoreError> {
    Ok(ModelVersion {
        name: text(row, "name")?,
        version: int(row, "version")?,
        description: opt_text(row, "description")?,
        user_id: text(row, "user_id")?,
        created_by: text(row, "created_by")?,
        source: text(row, "source")?,
        storage_location: text(row, "storage_location")?,
        run_id: text(row, "run_id")?,
        run_link: opt_text(row, "run_link")?,
        model_id: text(row, "model_id")?,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
        stage: text(row, "stage")?,
        tags: Vec::new(),
        aliases: Vec::new(),
    })
}

impl Conn {
    /// The key of the registered model with this name in the workspace.
    pub(super) fn key(&self, name: &str) -> String {
        match self.workspace() {
            // No model has such a name, and none of another workspace may be meant by it.
            DEFAULT_WORKSPACE if name.contains('/') => format!("/{name}"),
            DEFAULT_WORKSPACE => name.to_owned(),
            workspace => format!("{workspace}/{name}"),
        }
    }

    /// The registered model with this name.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn registered_model(&mut self, name: &str) -> Result<Option<RegisteredModel>, StoreError> {
        let row = self.fetch_optional(query(MODEL).bind(self.key(name))).await?;
        let found = row.as_ref().map(model).transpose()?;
        Ok(self.filled_registered(found.into_iter().collect()).await?.pop())
    }

    /// Searches registered models.
    ///
    /// # Errors
    /// Where a condition is not about them or the database can't be read.
    pub async fn search_registered_models(
        &mut self,
        search: &super::Search,
    ) -> Result<Vec<RegisteredModel>, StoreError> {
        let rows = self.search(&entity::REGISTERED_MODELS, search).await?;
        let found = rows.iter().map(model).collect::<Result<_, _>>()?;
        self.filled_registered(found).await
    }

    async fn filled_registered(
        &mut self,
        mut models: Vec<RegisteredModel>,
    ) -> Result<Vec<RegisteredModel>, StoreError> {
        let names: Vec<String> = models.iter().map(|m| self.key(&m.name)).collect();
        let place = |name: &str| names.iter().position(|known| known == name);
        let tags = "SELECT name, key, value FROM registered_model_tags WHERE name IN";
        for row in rows_of(self, tags, &names).await? {
            if let Some(i) = place(&text(&row, "name")?) {
                models[i].tags.push(key_value(&row)?);
            }
        }
        for row in rows_of(self, "SELECT name, alias, version FROM aliases WHERE name IN", &names).await? {
            if let Some(i) = place(&text(&row, "name")?) {
                models[i].aliases.push((text(&row, "alias")?, int(&row, "version")?));
            }
        }
        for model in &mut models {
            model.aliases.sort();
            model.latest = self.newest_versions(&model.name).await?;
        }
        Ok(models)
    }

    /// The newest version of a model in each stage, with their tags, without their aliases; the stages in the order in which
    /// versions came.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn newest_versions(&mut self, name: &str) -> Result<Vec<ModelVersion>, StoreError> {
        let rows = self.fetch_all(query(NEWEST_VERSIONS).bind(self.key(name))).await?;
        let mut found: Vec<ModelVersion> = rows.iter().map(version).collect::<Result<_, _>>()?;
        for one in &mut found {
            let tags = self.fetch_all(query(VERSION_TAGS).bind(self.key(name)).bind(one.version)).await?;
            one.tags = tags.iter().map(key_value).collect::<Result<_, _>>()?;
        }
        Ok(found)
    }

    /// One version of a model with its tags and aliases.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn model_version(
        &mut self,
        name: &str,
        number: i64,
    ) -> Result<Option<ModelVersion>, StoreError> {
        let Some(row) = self.fetch_optional(query(VERSION).bind(self.key(name)).bind(number)).await? else {
            return Ok(None);
        };
        let mut found = version(&row)?;
        let tags = self.fetch_all(query(VERSION_TAGS).bind(self.key(name)).bind(number)).await?;
        found.tags = tags.iter().map(key_value).collect::<Result<_, _>>()?;
        let aliases = self.fetch_all(query(VERSION_ALIASES).bind(self.key(name)).bind(number)).await?;
        found.aliases = aliases.iter().map(|row| text(row, "alias")).collect::<Result<_, _>>()?;
        Ok(Some(found))
    }

    /// Searches model versions. As with MLflow's own server, what is found carries no aliases.
    ///
    /// # Errors
    /// Where a condition is not about them or the database can't be read.
    pub async fn search_model_versions(
        &mut self,
        search: &super::Search,
    ) -> Result<Vec<ModelVersion>, StoreError> {
        let rows = self.search(&entity::MODEL_VERSIONS, search).await?;
        let mut found: Vec<ModelVersion> = rows.iter().map(version).collect::<Result<_, _>>()?;
        let mut names: Vec<String> = found.iter().map(|v| self.key(&v.name)).collect();
        names.sort();
        names.dedup();
        let tags = "SELECT name, version, key, value FROM model_version_tags WHERE name IN";
        for row in rows_of(self, tags, &names).await? {
            let (name, number) = (text(&row, "name")?, int(&row, "version")?);
            let label = name.rsplit('/').next().unwrap_or_default();
            if let Some(v) = found.iter_mut().find(|v| v.name == label && v.version == number) {
                v.tags.push(key_value(&row)?);
            }
        }
        Ok(found)
    }

    /// The version that an alias points to.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn alias(&mut self, name: &str, alias: &str) -> Result<Option<i64>, StoreError> {
        let statement = query(ALIAS).bind(self.key(name)).bind(alias.to_owned());
        self.scalar(statement).await
    }

    /// Every alias of the default workspace: model, alias, version.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn every_alias(&mut self) -> Result<Vec<(String, String, i64)>, StoreError> {
        let rows = self.fetch_all(query(EVERY_ALIAS)).await?;
        let one = |row: &Row| Ok((text(row, "name")?, text(row, "alias")?, int(row, "version")?));
        rows.iter().map(one).collect()
    }

    /// Every move of a model's aliases, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn alias_history(&mut self, name: &str) -> Result<Vec<AliasMove>, StoreError> {
        let rows = self.fetch_all(query(MOVES).bind(self.key(name))).await?;
        let one = |row: &Row| {
            Ok(AliasMove {
                name: name.to_owned(),
                alias: text(row, "alias")?,
                version: opt_int(row, "version")?,
                actor: text(row, "actor")?,
                at: int(row, "at_ms")?,
                promotion: text(row, "promotion")?,
            })
        };
        rows.iter().map(one).collect()
    }
}

fn checked(tag: &KeyValue) -> Result<(), StoreError> {
    no_nul("a tag's key", &tag.key)?;
    no_nul("a tag's value", &tag.value)
}

impl Tx {
    /// Makes a registered model with its tags.
    ///
    /// # Errors
    /// Where its name is in use.
    pub async fn insert_registered_model(&mut self, new: &RegisteredModel) -> Result<(), StoreError> {
        no_nul("a model's name", &new.name)?;
        no_nul("a description", new.description.as_deref().unwrap_or_default())?;
        let statement = query(INSERT_MODEL).bind(self.key(&new.name)).bind(new.description.clone());
        let statement = statement.bind(new.created_by.clone()).bind(new.created).bind(new.updated);
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(workspace).bind(new.name.clone())).await?;
        for tag in &new.tags {
            self.set_registered_model_tag(&new.name, tag).await?;
        }
        Ok(())
    }

    /// Sets a tag of a registered model.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn set_registered_model_tag(&mut self, name: &str, tag: &KeyValue) -> Result<(), StoreError> {
        checked(tag)?;
        let statement =
            query(SET_MODEL_TAG).bind(self.key(name)).bind(tag.key.clone()).bind(tag.value.clone());
        self.execute(statement).await.map(|_| ())
    }

    /// Takes the next version number of a model; none where there is no such model. It is never given out again.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn take_version(&mut self, name: &str, now: Millis) -> Result<Option<i64>, StoreError> {
        let statement = query(NEXT_VERSION).bind(self.key(name));
        let next = self.scalar(statement).await?;
        if next.is_some() {
            let statement = query(TAKE_VERSION).bind(self.key(name)).bind(now);
            self.execute(statement).await?;
        }
        Ok(next)
    }

    /// Lets the numbers up to this one not be given out.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn reserve_versions(&mut self, name: &str, through: i64) -> Result<(), StoreError> {
        let statement = query(RESERVE).bind(self.key(name)).bind(through.saturating_add(1));
        self.execute(statement).await.map(|_| ())
    }

    /// Makes a version with its tags.
    ///
    /// # Errors
    /// Where there is one of this number.
    pub async fn insert_model_version(&mut self, new: &ModelVersion) -> Result<(), StoreError> {
        for part in [&new.source, &new.storage_location, &new.run_id, &new.model_id, &new.user_id] {
            no_nul("a model version", part)?;
        }
        for part in [&new.description, &new.run_link].into_iter().flatten() {
            no_nul("a model version", part)?;
        }
        let statement = query(INSERT_VERSION).bind(self.key(&new.name)).bind(new.version);
        let statement =
            statement.bind(new.description.clone()).bind(new.user_id.clone()).bind(new.created_by.clone());
        let statement = statement.bind(new.source.clone()).bind(new.storage_location.clone());
        let statement =
            statement.bind(new.run_id.clone()).bind(new.run_link.clone()).bind(new.model_id.clone());
        let statement = statement.bind(new.created).bind(new.updated).bind(new.stage.clone());
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(workspace).bind(new.name.clone())).await?;
        for tag in &new.tags {
            self.set_model_version_tag(&new.name, new.version, tag).await?;
        }
        Ok(())
    }

    /// Changes a version's description.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn describe_model_version(
        &mut self,
        name: &str,
        number: i64,
        description: Option<&str>,
        now: Millis,
    ) -> Result<(), StoreError> {
        no_nul("a description", description.unwrap_or_default())?;
        let statement = query(DESCRIBE_VERSION).bind(self.key(name)).bind(number);
        self.execute(statement.bind(description.map(str::to_owned)).bind(now)).await.map(|_| ())
    }

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn set_model_version_tag(
        &mut self,
        name: &str,
        number: i64,
        tag: &KeyValue,
    ) -> Result<(), StoreError> {
        checked(tag)?;
        let statement = query(SET_VERSION_TAG).bind(self.key(name)).bind(number);
        self.execute(statement.bind(tag.key.clone()).bind(tag.value.clone())).await.map(|_| ())
    }

    /// Points an alias to a version, or nowhere, and notes the move.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn move_alias(&mut self, new: &AliasMove) -> Result<(), StoreError> {
        no_nul("an alias", &new.alias)?;
        let statement = match new.version {
            Some(number) => query(SET_ALIAS).bind(self.key(&new.name)).bind(new.alias.clone()).bind(number),
            None => query(DELETE_ALIAS).bind(self.key(&new.name)).bind(new.alias.clone()),
        };
        self.execute(statement).await?;
        let note = query(NOTE_MOVE).bind(self.key(&new.name)).bind(new.alias.clone()).bind(new.version);
        self.execute(note.bind(new.actor.clone()).bind(new.at).bind(new.promotion.clone())).await.map(|_| ())
    }
}
