//! Registered models, then versions, then aliases: a version may be a copy of another model's.

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

/// What waits until all that it may point to is there.
#[derive(Default)]
struct Later {
    /// Versions that are copies of others, with the time of their making.
    copies: Vec<(i64, Record)>,
    aliases: Vec<Record>,
}

fn pairs(tags: &[lockgate_control::tracking::KeyValue]) -> Pairs {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

/// Where a version's files are at the target, where its source is in words of the other store.
fn place(one: &ForeignVersion) -> Option<OwnedPath> {
    let source = one.version.source.as_str();
    if is_copy(one) {
        return places::owner(&one.version.storage_location);
    }
    if source.starts_with("models:/") || source.starts_with("runs:/") {
        return None;
    }
    places::owner(source)
}

/// Where a copy's files lie, where that is neither here nor in words of the other store.
fn stored(one: &ForeignVersion) -> Option<String> {
    let stored = &one.version.storage_location;
    let said = is_copy(one) && !stored.is_empty() && !stored.starts_with("models:/");
    (said && place(one).is_none() && places::local(stored).is_none()).then(|| stored.clone())
}

/// The first part of a source of a scheme.
fn first<'a>(source: &'a str, scheme: &str) -> Option<&'a str> {
    source.strip_prefix(scheme)?.trim_start_matches('/').split('/').next()
}

/// Whose files a version has.
fn owner(one: &ForeignVersion) -> Option<String> {
    let source = one.version.source.as_str();
    match (first(source, "runs:/"), first(source, "models:/")) {
        (Some(run), _) => Some(run.to_owned()),
        (None, Some(model)) => model.starts_with("m-").then(|| model.to_owned()),
        (None, None) => places::owner(source).map(|owned| owned.owner),
    }
}

fn is_copy(one: &ForeignVersion) -> bool {
    first(&one.version.source, "models:/").is_some_and(|model| !model.starts_with("m-"))
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
        stored: stored(one),
        run_id: found.run_id.clone(),
        run_link: found.run_link.clone(),
        model_id: found.model_id.clone(),
        current_stage: found.stage.clone(),
        tags: pairs(&found.tags),
    }))
}

fn registered(model: &RegisteredModel, next_version: i64) -> Record {
    Record::RegisteredModel(RegisteredModelRecord {
        name: model.name.clone(),
        description: model.description.clone(),
        created: model.created,
        updated: model.updated,
        next_version,
        tags: pairs(&model.tags),
    })
}

fn aliases(model: &RegisteredModel) -> Vec<Record> {
    let one = |(alias, version): &(String, i64)| {
        let (name, alias, version) = (model.name.clone(), alias.clone(), *version);
        Record::Alias(AliasRecord { name, alias, version })
    };
    model.aliases.iter().map(one).collect()
}

impl Mover {
    pub(super) async fn registry(&mut self) -> anyhow::Result<()> {
        let mut later = Later::default();
        for (model, next) in self.source.registered_models().await? {
            self.registered(&model, next, &mut later).await?;
            self.progress(&format!("registered model `{}`", model.name));
        }
        let Later { mut copies, aliases } = later;
        // A copy of a copy was made after it.
        copies.sort_by_key(|(created, _)| *created);
        let copies: Vec<Record> = copies.into_iter().map(|(_, record)| record).collect();
        for chunk in copies.chunks(BATCH) {
            self.hand_over(Kind::Versions, chunk).await?;
        }
        for chunk in aliases.chunks(BATCH) {
            self.hand_over(Kind::Aliases, chunk).await?;
        }
        Ok(())
    }

    async fn registered(
        &mut self,
        model: &RegisteredModel,
        next: i64,
        later: &mut Later,
    ) -> anyhow::Result<()> {
        let records = [registered(model, next)];
        let outcomes = self.target.take(&records, self.dry).await?;
        let fate = outcomes[0].fate;
        self.count(Kind::RegisteredModels, &model.name, &outcomes[0]);
        self.read_back(Kind::RegisteredModels, &records, &outcomes).await?;
        let versions = self.source.versions(model).await?;
        let aliases = aliases(model);
        if fate == Fate::Conflict {
            let passed = versions.iter().map(|one| (Kind::Versions, version(one)));
            for (kind, record) in passed.chain(aliases.into_iter().map(|alias| (Kind::Aliases, alias))) {
                self.pass_over(kind, super::name(&record), "its registered model is not taken");
            }
            return Ok(());
        }
        let (mut now, mut copies) = (Vec::new(), Vec::new());
        for one in &versions {
            match owner(one).filter(|owner| !self.dry && self.incomplete.contains(owner)) {
                Some(owner) => {
                    let what = super::name(&version(one));
                    self.pass_over(Kind::Versions, what, &format!("the files of {owner} are not all there"));
                }
                None if is_copy(one) => copies.push((one.version.created, version(one))),
                None => now.push(version(one)),
            }
        }
        if self.dry {
            now.extend(copies.into_iter().map(|(_, record)| record));
            return self.ask(&now, &aliases, fate == Fate::New).await;
        }
        for chunk in now.chunks(BATCH) {
            self.hand_over(Kind::Versions, chunk).await?;
        }
        later.copies.extend(copies);
        later.aliases.extend(aliases);
        Ok(())
    }

    /// Asks what would become of a model's versions and aliases. Nothing is kept, so that aliases have to be asked for
    /// together with what they point to.
    async fn ask(&mut self, versions: &[Record], aliases: &[Record], unmade: bool) -> anyhow::Result<()> {
        let all = [versions, aliases].concat();
        let outcomes = match unmade {
            true => all.iter().map(|_| Outcome::would_be_new()).collect(),
            false => self.target.take(&all, true).await?,
        };
        let (of_versions, of_aliases) = outcomes.split_at(versions.len());
        self.tell_all(Kind::Versions, versions, of_versions);
        self.tell_all(Kind::Aliases, aliases, of_aliases);
        Ok(())
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
            // While nothing is written, the files that would come are not there either.
            if let Some(lacks) = outcome.lacks.as_ref().filter(|_| !self.dry) {
                self.report.skip(Kind::Artifacts, format!("those of {}", super::name(record)), lacks);
            }
            for note in &outcome.notes {
                self.report.of(kind).left += 1;
                self.report.tell(Level::Left, kind, super::name(record), note);
            }
        }
    }
}
