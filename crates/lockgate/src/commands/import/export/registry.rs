//! The model registry. A version's files lie in its own folder: they are what was registered, whatever has become of its
//! run since.

use super::Exporter;
use super::folder::is_name;
use super::yaml::{Value, description};
use crate::commands::import::places;
use crate::commands::import::report::Kind;
use crate::commands::import::sources::Source;
use crate::commands::import::sources::files::Reader;
use lockgate_control::tracking::exchange::Pairs;
use lockgate_control::tracking::{ModelVersion, RegisteredModel};
use lockgate_store::foreign::ForeignVersion;

fn pairs(tags: &[lockgate_control::tracking::KeyValue]) -> Pairs {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

fn text(given: Option<&String>) -> &str {
    given.map_or("", String::as_str)
}

fn differences(ours: &ForeignVersion, read: &ForeignVersion) -> Vec<&'static str> {
    let (a, b) = (&ours.version, &read.version);
    let checks = [
        ("times", (a.created, a.updated) == (b.created, b.updated)),
        ("description", text(a.description.as_ref()) == text(b.description.as_ref())),
        ("run", a.run_id == b.run_id && text(a.run_link.as_ref()) == text(b.run_link.as_ref())),
        ("logged model", a.model_id == b.model_id),
        ("user", a.user_id == b.user_id),
        ("tags", pairs(&a.tags) == pairs(&b.tags)),
        ("stage", a.stage == b.stage),
    ];
    checks.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

impl Exporter {
    pub(super) async fn registry(&mut self) -> anyhow::Result<()> {
        for (model, _) in self.source.registered_models().await? {
            // What MLflow's file store refuses as a name.
            if !is_name(&model.name) || model.name.contains(['%', '/', '\\']) {
                self.unwritable(
                    Kind::RegisteredModels,
                    &model.name,
                    "a file store can't have a model of this name",
                );
                continue;
            }
            self.registered(&model).await?;
            self.progress(&format!("registered model `{}`", model.name));
        }
        Ok(())
    }

    async fn registered(&mut self, model: &RegisteredModel) -> anyhow::Result<()> {
        let below = format!("models/{}", model.name);
        let was_there = self.folder.path(&below).join("meta.yaml").is_file();
        for one in self.source.versions(model).await? {
            self.version(&below, &one).await?;
        }
        let refused = self.folder.pairs(&format!("{below}/tags"), &pairs(&model.tags))?;
        self.refused(Kind::RegisteredModels, &model.name, refused);
        let aliases: Vec<(String, String)> =
            model.aliases.iter().map(|(alias, version)| (alias.clone(), version.to_string())).collect();
        self.folder.pairs(&format!("{below}/aliases"), &aliases.iter().cloned().collect())?;
        let text_ = description(&[
            ("aliases", Value::Map(aliases)),
            ("creation_timestamp", model.created.into()),
            ("description", model.description.clone().into()),
            ("last_updated_timestamp", model.updated.into()),
            ("name", model.name.clone().into()),
        ]);
        self.folder.write(&format!("{below}/meta.yaml"), &text_)?;
        let read = Reader::registered(&self.folder.path(&below))?;
        let mut differ = Vec::new();
        if text(read.description.as_ref()) != text(model.description.as_ref()) {
            differ.push("description");
        }
        if (read.created, read.updated) != (model.created, model.updated) {
            differ.push("times");
        }
        if pairs(&read.tags) != pairs(&model.tags) {
            differ.push("tags");
        }
        self.compared(Kind::RegisteredModels, &model.name, was_there, &differ);
        for (alias, version) in &model.aliases {
            let same = read.aliases.iter().any(|(name, number)| name == alias && number == version);
            let what = format!("{}@{alias}", model.name);
            self.compared(Kind::Aliases, &what, was_there, if same { &[] } else { &["version"] });
        }
        Ok(())
    }

    /// What a version's source is called in the folder.
    fn source_of(&self, version: &ModelVersion, stored: &str) -> String {
        if places::proxied(&version.source).is_none() {
            return version.source.clone();
        }
        let Some(owned) = places::owner(&version.source) else { return stored.to_owned() };
        let Some(path) = places::proxied(&version.source) else { return stored.to_owned() };
        let of_run = path.split('/').next().is_some_and(|first| first.parse::<i64>().is_ok());
        match of_run {
            true => self.folder.uri(&path),
            false => format!("runs:/{}/{}", owned.owner, owned.path),
        }
    }

    async fn version(&mut self, model: &str, one: &ForeignVersion) -> anyhow::Result<()> {
        let version = &one.version;
        let what = format!("{} {}", version.name, version.version);
        let below = format!("{model}/version-{}", version.version);
        let was_there = self.folder.path(&below).join("meta.yaml").is_file();
        let files = format!("{below}/artifacts");
        let kept = places::proxied(&version.storage_location).is_some();
        if kept {
            self.artifacts(&version.storage_location, &what, &files).await?;
        }
        let stored = if kept { self.folder.uri(&files) } else { version.storage_location.clone() };
        let refused = self.folder.pairs(&format!("{below}/tags"), &pairs(&version.tags))?;
        self.refused(Kind::Versions, &what, refused);
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let text = description(&[
            ("creation_timestamp", version.created.into()),
            ("current_stage", version.stage.clone().into()),
            ("description", version.description.clone().into()),
            ("last_updated_timestamp", version.updated.into()),
            ("model_id", some(&version.model_id).into()),
            ("name", version.name.clone().into()),
            ("run_id", some(&version.run_id).into()),
            ("run_link", version.run_link.clone().into()),
            ("source", self.source_of(version, &stored).into()),
            ("status", "READY".into()),
            ("status_message", Value::Nothing),
            ("storage_location", stored.into()),
            ("user_id", some(&version.user_id).into()),
            ("version", version.version.into()),
        ]);
        self.folder.write(&format!("{below}/meta.yaml"), &text)?;
        let read = Reader::version(&self.folder.path(model), version.version)?;
        self.compared(Kind::Versions, &what, was_there, &differences(one, &read));
        Ok(())
    }
}
