//! The model registry of a file store.

use super::{folders, meta, name, pairs};
use anyhow::Context as _;
use lockgate_control::tracking::{ModelVersion, RegisteredModel};
use lockgate_store::foreign::ForeignVersion;
use std::path::Path;

/// The stage that a deleted version gets: its folder stays, so that its number is not used again.
const DELETED: &str = "Deleted_Internal";

fn number(folder: &Path) -> Option<i64> {
    name(folder).strip_prefix("version-")?.parse().ok()
}

/// The registered model in a folder, and the number that its next version gets.
pub(super) fn model(folder: &Path) -> anyhow::Result<(RegisteredModel, i64)> {
    let found: meta::RegisteredModel = meta::read(folder)?;
    let created = meta::number(found.creation_timestamp.as_ref()).unwrap_or_default();
    let mut aliases = Vec::new();
    for pair in pairs(&folder.join("aliases"))? {
        let version = pair.value.trim().parse();
        aliases.push((
            pair.key,
            version.with_context(|| format!("an alias in {} points nowhere", folder.display()))?,
        ));
    }
    let next = folders(folder)?.iter().filter_map(|one| number(one)).max().unwrap_or_default() + 1;
    let model = RegisteredModel {
        name: found.name.with_context(|| meta::lacks(folder, "name"))?,
        description: found.description,
        created_by: String::new(),
        created,
        updated: meta::number(found.last_updated_timestamp.as_ref()).unwrap_or(created),
        tags: pairs(&folder.join("tags"))?,
        aliases,
        latest: Vec::new(),
    };
    Ok((model, next))
}

/// The version in a folder of a registered model's; none where it was deleted, or the folder is another's.
pub(super) fn version(place: &Path) -> anyhow::Result<Option<ForeignVersion>> {
    let Some(number) = number(place).filter(|_| place.join(meta::FILE).is_file()) else { return Ok(None) };
    let one: meta::Version = meta::read(place)?;
    let stage = one.current_stage.unwrap_or_default();
    if stage == DELETED {
        return Ok(None);
    }
    let created = meta::number(one.creation_timestamp.as_ref());
    let created = created.with_context(|| meta::lacks(place, "creation_timestamp"))?;
    let source = one.source.unwrap_or_default();
    let version = ModelVersion {
        name: one.name.with_context(|| meta::lacks(place, "name"))?,
        version: number,
        description: one.description,
        user_id: one.user_id.unwrap_or_default(),
        created_by: String::new(),
        storage_location: one.storage_location.unwrap_or_else(|| source.clone()),
        source,
        run_id: one.run_id.unwrap_or_default(),
        run_link: one.run_link,
        model_id: one.model_id.unwrap_or_default(),
        created,
        updated: meta::number(one.last_updated_timestamp.as_ref()).unwrap_or(created),
        stage,
        tags: pairs(&place.join("tags"))?,
        aliases: Vec::new(),
    };
    Ok(Some(ForeignVersion { version, status: one.status.unwrap_or_default() }))
}
