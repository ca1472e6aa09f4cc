//! The model registry of MLflow's store.

use super::runs::{pairs, word};
use super::tables::Kind::{Int, Text};
use super::{Bind, Foreign};
use crate::conn::{Row, int, opt_int, opt_text, text};
use crate::error::StoreError;
use crate::tracking::{ModelVersion, RegisteredModel};

/// The stage that MLflow's store gives to deleted versions: their rows stay, so that their numbers are not used again.
const DELETED: &str = "Deleted_Internal";

const MODEL: [(&str, super::tables::Kind); 4] =
    [("name", Text), ("creation_time", Int), ("last_updated_time", Int), ("description", Text)];
const VERSION: [(&str, super::tables::Kind); 12] = [
    ("name", Text),
    ("version", Int),
    ("creation_time", Int),
    ("last_updated_time", Int),
    ("description", Text),
    ("user_id", Text),
    ("current_stage", Text),
    ("source", Text),
    ("storage_location", Text),
    ("run_id", Text),
    ("run_link", Text),
    ("status", Text),
];

/// A version with what only MLflow knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignVersion {
    /// The version.
    pub version: ModelVersion,
    /// Its status.
    pub status: String,
}

fn version(row: &Row) -> Result<ForeignVersion, StoreError> {
    let created = opt_int(row, "creation_time")?.unwrap_or_default();
    let source = word(row, "source")?;
    let version = ModelVersion {
        name: text(row, "name")?,
        version: int(row, "version")?,
        description: opt_text(row, "description")?,
        user_id: word(row, "user_id")?,
        created_by: String::new(),
        storage_location: opt_text(row, "storage_location")?.unwrap_or_else(|| source.clone()),
        source,
        run_id: word(row, "run_id")?,
        run_link: opt_text(row, "run_link")?,
        model_id: String::new(),
        created,
        updated: opt_int(row, "last_updated_time")?.unwrap_or(created),
        stage: word(row, "current_stage")?,
        tags: Vec::new(),
        aliases: Vec::new(),
    };
    Ok(ForeignVersion { version, status: word(row, "status")? })
}

impl Foreign {
    /// All registered models with tags and aliases, by name, each with the number that its next version would get.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn registered_models(&mut self) -> Result<Vec<(RegisteredModel, i64)>, StoreError> {
        let rest = format!("WHERE {} ORDER BY name", self.usual("registered_models"));
        let mut found = Vec::new();
        for row in self.of("registered_models", &MODEL, &rest, &[]).await? {
            let name = text(&row, "name")?;
            let created = opt_int(&row, "creation_time")?.unwrap_or_default();
            let tags =
                self.of_model("registered_model_tags", &[("key", Text), ("value", Text)], &name).await?;
            let rows = self
                .of_model("registered_model_aliases", &[("alias", Text), ("version", Int)], &name)
                .await?;
            let one = |row: &Row| Ok::<_, StoreError>((text(row, "alias")?, int(row, "version")?));
            let aliases = rows.iter().map(one).collect::<Result<_, _>>()?;
            let numbers = self.of_model("model_versions", &[("version", Int)], &name).await?;
            let numbers: Vec<i64> =
                numbers.iter().map(|row| int(row, "version")).collect::<Result<_, _>>()?;
            let next = numbers.into_iter().max().unwrap_or_default() + 1;
            let model = RegisteredModel {
                description: opt_text(&row, "description")?,
                created_by: String::new(),
                created,
                updated: opt_int(&row, "last_updated_time")?.unwrap_or(created),
                tags: pairs(&tags, "key", "value")?,
                aliases,
                latest: Vec::new(),
                name,
            };
            found.push((model, next));
        }
        Ok(found)
    }

    /// The versions of a registered model by number, without those that were deleted, with their tags.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn model_versions(&mut self, name: &str) -> Result<Vec<ForeignVersion>, StoreError> {
        let mut found: Vec<ForeignVersion> = Vec::new();
        for row in self.of_model("model_versions", &VERSION, name).await? {
            found.push(version(&row)?);
        }
        found.retain(|one| one.version.stage != DELETED);
        found.sort_by_key(|one| one.version.version);
        for one in &mut found {
            let rest = format!("WHERE {} AND name = $1 AND version = $2", self.usual("model_version_tags"));
            let binds = [Bind::Text(name), Bind::Int(one.version.version)];
            let tags =
                self.of("model_version_tags", &[("key", Text), ("value", Text)], &rest, &binds).await?;
            one.version.tags = pairs(&tags, "key", "value")?;
        }
        Ok(found)
    }

    async fn of_model(
        &mut self,
        table: &str,
        columns: &[(&str, super::tables::Kind)],
        name: &str,
    ) -> Result<Vec<Row>, StoreError> {
        let rest = format!("WHERE {} AND name = $1", self.usual(table));
        self.of(table, columns, &rest, &[Bind::Text(name)]).await
    }
}
