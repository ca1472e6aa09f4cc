//! Registered models, versions and aliases.

use super::Mover;
use crate::commands::import::places;
use crate::commands::import::report::{Kind, Level};
use lockgate_control::tracking::RegisteredModel;
use lockgate_control::tracking::exchange::{
    AliasRecord, Fate, Outcome, OwnedPath, Pairs, Record, RegisteredModelRecord, VersionRecord,
};
use lockgate_store::foreign::ForeignVersion;

/// How many versions go into one request: each may bring a list of files along.
const BATCH: usize = 100;

fn pairs(tags: &[lockgate_control::tracking::KeyValue]) -> Pairs {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

/// Where a version's files are at the target, where its source is in words of the other store.
fn place(one: &ForeignVersion) -> Option<OwnedPath> {
    let source = one.version.source.as_str();
    if source.starts_with("models:/") || source.starts_with("runs:/") {
        return None;
    }
    places::owner(source)
}

/// Whose files a version has.
fn owner(one: &ForeignVersion) -> Option<String> {
    let first = |rest: &str| rest.trim_start_matches('/').split('/').next().map(str::to_owned);
    let source = one.version.source.as_str();
    if let Some(run) = source.strip_prefix("runs:/").and_then(first) {
        return Some(run);
    }
    if let Some(model) = source.strip_prefix("models:/").and_then(first) {
        return model.starts_with("m-").then_some(model);
    }
    places::owner(source).map(|owned| owned.owner)
}

fn version(one: &ForeignVersion) -> Record {
    let found = &one.version;
    Record::Version(Box::new(VersionRecord {
        name: found.name.clone(),
        version: found.version,
        description: found.description.clone(),
        user_id: found.user_id.clone(),
        created: found.created,
        updated: found.updated,
        source: found.source.clone(),
        place: place(one),
        run_id: found.run_id.clone(),
        run_link: found.run_link.clone(),
        model_id: found.model_id.clone(),
        current_stage: one.stage.clone(),
        tags: pairs(&found.tags),
    }))
}

impl Mover {
    pub(super) async fn registry(&mut self) -> anyhow::Result<()> {
        for (model, next) in self.source.registered_models().await? {
            self.registered(&model, next).await?;
            self.progress(&format!("registered model `{}`", model.name));
        }
        Ok(())
    }

    async fn registered(&mut self, model: &RegisteredModel, next: i64) -> anyhow::Result<()> {
        let record = Record::RegisteredModel(RegisteredModelRecord {
            name: model.name.clone(),
            description: model.description.clone(),
            created: model.created,
            updated: model.updated,
            next_version: next,
            tags: pairs(&model.tags),
        });
        let records = [record];
        let outcomes = self.target.take(&records, self.dry).await?;
        let fate = outcomes[0].fate;
        self.count(Kind::RegisteredModels, &model.name, &outcomes[0]);
        self.read_back(Kind::RegisteredModels, &records, &outcomes).await?;
        let unmade = self.dry && fate == Fate::New;
        let versions = self.source.versions(model).await?;
        let mut wanted = Vec::new();
        for one in &versions {
            let what = format!("{} {}", model.name, one.version.version);
            match owner(one).filter(|owner| self.incomplete.contains(owner)) {
                _ if fate == Fate::Conflict => {
                    self.pass_over(Kind::Versions, what, "its registered model is not taken")
                }
                Some(owner) if !self.dry => {
                    self.pass_over(Kind::Versions, what, &format!("the files of {owner} are not all there"));
                }
                _ => wanted.push(version(one)),
            }
        }
        let aliases: Vec<Record> = model
            .aliases
            .iter()
            .map(|(alias, version)| {
                let (name, alias, version) = (model.name.clone(), alias.clone(), *version);
                Record::Alias(AliasRecord { name, alias, version })
            })
            .collect();
        if fate == Fate::Conflict {
            for alias in &aliases {
                self.pass_over(Kind::Aliases, super::name(alias), "its registered model is not taken");
            }
            return Ok(());
        }
        if self.dry {
            // Nothing is kept, so that aliases have to be asked for together with what they point to.
            let all = [wanted.as_slice(), aliases.as_slice()].concat();
            let outcomes = match unmade {
                true => all.iter().map(|_| Outcome::would_be_new()).collect(),
                false => self.target.take(&all, true).await?,
            };
            self.tell_all(Kind::Versions, &wanted, &outcomes[..wanted.len()]);
            self.tell_all(Kind::Aliases, &aliases, &outcomes[wanted.len()..]);
            return Ok(());
        }
        for chunk in wanted.chunks(BATCH) {
            self.hand_over(Kind::Versions, chunk).await?;
        }
        self.hand_over(Kind::Aliases, &aliases).await
    }

    fn pass_over(&mut self, kind: Kind, what: String, why: &str) {
        self.report.of(kind).found += 1;
        self.report.skip(kind, what, why);
    }

    async fn hand_over(&mut self, kind: Kind, records: &[Record]) -> anyhow::Result<()> {
        let outcomes = self.target.take(records, false).await?;
        self.tell_all(kind, records, &outcomes);
        self.read_back(kind, records, &outcomes).await
    }

    fn tell_all(&mut self, kind: Kind, records: &[Record], outcomes: &[Outcome]) {
        for (record, outcome) in records.iter().zip(outcomes) {
            self.count(kind, &super::name(record), outcome);
            if let Some(why) = outcome.why.clone().filter(|_| outcome.fate != Fate::Conflict) {
                self.report.tell(Level::Left, kind, super::name(record), why);
            }
        }
    }
}
