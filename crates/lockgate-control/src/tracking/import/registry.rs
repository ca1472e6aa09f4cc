//! Registered models, versions with their numbers, aliases.

use super::{Importer, new};
use crate::tracking::exchange::{
    AliasRecord, Fate, Outcome, OwnedPath, Pairs, RegisteredModelRecord, VersionRecord, map_of, pairs_of,
};
use crate::tracking::{
    AliasMove, KeyValue, ModelVersion, RegisteredModel, Tracking, TrackingError, VersionStage, checks,
    governed, models, places, runs, sources, workspaces,
};
use lockgate_store::Tx;

fn text(given: Option<&String>) -> &str {
    given.map_or("", String::as_str)
}

pub(super) async fn take_model(
    tx: &mut Tx,
    by: &Importer,
    record: &RegisteredModelRecord,
) -> Result<Outcome, TrackingError> {
    checks::model_name(&record.name)?;
    workspaces::may_register(tx).await?;
    if let Some(found) = tx.registered_model(&record.name).await? {
        let mut differ = Vec::new();
        if found.created != record.created {
            differ.push("time of making");
        }
        if text(found.description.as_ref()) != text(record.description.as_ref()) {
            differ.push("description");
        }
        if map_of(&found.tags) != record.tags {
            differ.push("tags");
        }
        return Ok(Outcome::compared("a registered model of this name", &differ));
    }
    tx.insert_registered_model(&RegisteredModel {
        name: record.name.clone(),
        description: record.description.clone(),
        created_by: by.id.clone(),
        created: record.created,
        updated: record.updated,
        tags: pairs_of(&record.tags),
        aliases: Vec::new(),
        latest: Vec::new(),
    })
    .await?;
    tx.reserve_versions(&record.name, record.next_version - 1).await?;
    Ok(new())
}

/// The URI of files that are here.
async fn uri(tx: &mut Tx, place: &OwnedPath) -> Result<String, TrackingError> {
    let below = places::checked(&place.path)?;
    let root = match places::is_model_id(&place.owner) {
        true => models::found(tx, &place.owner).await?.artifact_uri,
        false => runs::row(tx, &place.owner).await?.artifact_uri,
    };
    Ok(if below.is_empty() { root } else { format!("{root}/{below}") })
}

fn row(record: &VersionRecord, by: &Importer, source: String) -> ModelVersion {
    ModelVersion {
        name: record.name.clone(),
        version: record.version,
        description: record.description.clone(),
        user_id: record.user_id.clone(),
        created_by: by.id.clone(),
        storage_location: source.clone(),
        source,
        run_id: record.run_id.clone(),
        run_link: record.run_link.clone(),
        model_id: record.model_id.clone(),
        created: record.created,
        updated: record.updated,
        stage: stage(record).as_str().to_owned(),
        tags: own_tags(&record.tags),
        aliases: Vec::new(),
    }
}

/// Its tags but for the one that says which release it is: that is for this server to say.
fn own_tags(tags: &Pairs) -> Vec<KeyValue> {
    pairs_of(tags).into_iter().filter(|tag| tag.key != governed::RELEASE_TAG).collect()
}

fn without_release(tags: &[KeyValue]) -> Pairs {
    let mut found = map_of(tags);
    found.remove(governed::RELEASE_TAG);
    found
}

/// Whether it was copied from another model's version.
fn is_copy(record: &VersionRecord) -> bool {
    record
        .source
        .strip_prefix("models:/")
        .is_some_and(|rest| !places::is_model_id(rest.split('/').next().unwrap_or(rest)))
}

fn stage(record: &VersionRecord) -> VersionStage {
    VersionStage::read(&record.current_stage).unwrap_or(VersionStage::None)
}

fn differences(found: &ModelVersion, new: &ModelVersion) -> Vec<&'static str> {
    let agrees = |here: &str, given: &str| given.is_empty() || here == given;
    let pairs = [
        ("time of registering", found.created == new.created),
        ("description", text(found.description.as_ref()) == text(new.description.as_ref())),
        ("source", found.source == new.source),
        ("run", agrees(&found.run_id, &new.run_id)),
        ("logged model", agrees(&found.model_id, &new.model_id)),
        ("run link", text(found.run_link.as_ref()) == text(new.run_link.as_ref())),
        ("stage", found.stage == new.stage),
        ("tags", without_release(&found.tags) == without_release(&new.tags)),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

pub(super) async fn take_version(
    tracking: &Tracking,
    tx: &mut Tx,
    by: &Importer,
    record: &VersionRecord,
) -> Result<Outcome, TrackingError> {
    checks::model_name(&record.name)?;
    workspaces::may_register(tx).await?;
    if tx.registered_model(&record.name).await?.is_none() {
        return Ok(Outcome::conflict("its registered model is not here"));
    }
    if record.version < 1 {
        return Ok(Outcome::conflict(format!("{} is no version's number", record.version)));
    }
    // A copy's files are where the other store has them: the name that it was copied from may mean another model by now.
    let mut notes = Vec::new();
    let from = match (&record.place, &record.stored) {
        (Some(place), _) => uri(tx, place).await?,
        (None, Some(stored)) => stored.clone(),
        // Its files are a logged model's, whatever that is called.
        (None, None) if is_copy(record) && !record.model_id.is_empty() => {
            format!("models:/{}", record.model_id)
        }
        (None, None) if is_copy(record) => {
            notes.push(format!("its files are those that {} has here", record.source));
            record.source.clone()
        }
        (None, None) => record.source.clone(),
    };
    let source = if record.source.starts_with("models:/") { record.source.clone() } else { from.clone() };
    let mut version = row(record, by, source);
    if record.tags.contains_key(governed::RELEASE_TAG) {
        notes.push(format!("its tag {} is not taken: releases are made here", governed::RELEASE_TAG));
    }
    if let Some(note) = governed_stage(tx, record, &mut version).await? {
        notes.push(note);
    }
    if let Some(found) = tx.model_version(&record.name, record.version).await? {
        let outcome = Outcome::compared("a version of this number", &differences(&found, &version));
        let (count, lacks) = match outcome.fate {
            Fate::Same => fill(tracking, tx, by, found, &from).await?,
            _ => (sources::files(tx, &found.storage_location).await?.len() as u64, None),
        };
        return Ok(Outcome { count: Some(count), notes, lacks, ..outcome });
    }
    let (count, lacks) = files_of(tracking, tx, by, &mut version, &from).await?;
    tx.insert_model_version(&version).await?;
    tx.reserve_versions(&version.name, version.version).await?;
    Ok(Outcome { notes, lacks, count: Some(count), ..new() })
}

/// Gives a version its list of files; says how many they are, and what is missing where there should be some.
async fn files_of(
    tracking: &Tracking,
    tx: &mut Tx,
    by: &Importer,
    version: &mut ModelVersion,
    from: &str,
) -> Result<(u64, Option<String>), TrackingError> {
    if sources::is_prompt(version) {
        return Ok((0, None));
    }
    match sources::origin(tx, from, &version.run_id, &version.model_id).await {
        Ok(origin) => {
            let elsewhere = places::root_of(&origin.uri).is_none();
            let count = keep_files(tracking, tx, by, version, origin).await?;
            let lacks = count == 0 && !elsewhere;
            Ok((count, lacks.then(|| format!("no files are here at {}", version.storage_location))))
        }
        // A version whose run or folder is gone was registered all the same: it points there, and has no files.
        Err(TrackingError::Invalid(text) | TrackingError::Missing(text)) => {
            Ok((0, Some(format!("its files are not here: {text}"))))
        }
        Err(other) => Err(other),
    }
}

/// A version that is here already: it gets its list now where its files came later than it.
async fn fill(
    tracking: &Tracking,
    tx: &mut Tx,
    by: &Importer,
    mut version: ModelVersion,
    from: &str,
) -> Result<(u64, Option<String>), TrackingError> {
    if places::is_reserved(&version.storage_location) {
        return Ok((sources::files(tx, &version.storage_location).await?.len() as u64, None));
    }
    let before = version.storage_location.clone();
    let filled = files_of(tracking, tx, by, &mut version, from).await?;
    if version.storage_location != before {
        tx.set_version_location(&version.name, version.version, &version.storage_location).await?;
    }
    Ok(filled)
}

/// Takes a stage away that says what an environment serves: promotions alone give it. Says so.
async fn governed_stage(
    tx: &mut Tx,
    record: &VersionRecord,
    version: &mut ModelVersion,
) -> Result<Option<String>, TrackingError> {
    let wanted = stage(record);
    match governed::check_stage(tx, &record.name, record.version, VersionStage::None, wanted).await {
        Ok(()) => Ok(None),
        Err(TrackingError::Refused(refused)) => {
            version.stage = VersionStage::None.as_str().to_owned();
            Ok(Some(format!("its stage {wanted} is not taken: {refused}")))
        }
        Err(other) => Err(other),
    }
}

/// Gives a version a list of files of its own, as registering does.
async fn keep_files(
    tracking: &Tracking,
    tx: &mut Tx,
    by: &Importer,
    version: &mut ModelVersion,
    origin: sources::Origin,
) -> Result<u64, TrackingError> {
    let files = sources::files(tx, &origin.uri).await?;
    let root = places::version_root(&tracking.new_id());
    for file in &files {
        tx.put_artifact(&root, file, by.now).await?;
    }
    version.storage_location = if files.is_empty() { origin.uri } else { places::uri(&root) };
    (version.run_id, version.model_id) = (origin.run_id, origin.model_id);
    Ok(files.len() as u64)
}

pub(super) async fn take_alias(
    tx: &mut Tx,
    by: &Importer,
    record: &AliasRecord,
) -> Result<Outcome, TrackingError> {
    checks::alias_form(&record.alias)?;
    match tx.alias(&record.name, &record.alias).await? {
        Some(version) if version == record.version => return Ok(Outcome::compared("it", &[])),
        Some(version) => {
            return Ok(Outcome::conflict(format!("it points to version {version} here")));
        }
        None => {}
    }
    if tx.model_version(&record.name, record.version).await?.is_none() {
        return Ok(Outcome::conflict(format!("version {} is not here", record.version)));
    }
    governed::check_alias(tx, &record.name, &record.alias, Some(record.version)).await?;
    tx.move_alias(&AliasMove {
        name: record.name.clone(),
        alias: record.alias.clone(),
        version: Some(record.version),
        actor: by.id.clone(),
        at: by.now,
        promotion: String::new(),
    })
    .await?;
    Ok(new())
}
