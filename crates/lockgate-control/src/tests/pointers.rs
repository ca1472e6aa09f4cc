//! Aliases and stages that say what an environment serves follow it, and nobody else moves them.

use super::{Agent, Bench, place, plain};
use crate::tracking::{KeyValue, NewModelVersion, NewRegisteredModel, TrackingError, VersionStage};
use crate::view::Pointer;

impl Bench {
    /// Registers versions 1 to `count` of the model.
    async fn register(&self, count: u64) {
        let tracking = self.control.tracking();
        let model = NewRegisteredModel { name: "m".to_owned(), ..NewRegisteredModel::default() };
        tracking.create_registered_model(&self.ana, model).await.unwrap();
        for _ in 0..count {
            let (name, source) = ("m".to_owned(), "s3://bucket/model".to_owned());
            let new = NewModelVersion { name, source, ..NewModelVersion::default() };
            tracking.create_model_version(&self.ana, new).await.unwrap();
        }
    }

    async fn alias(&self, alias: &str) -> Option<i64> {
        let found = self.control.tracking().version_by_alias(&self.ana, "m", alias).await;
        found.map_or(None, |version| Some(version.version))
    }

    async fn point(&self, alias: &str, version: u64) -> Result<(), String> {
        let tracking = self.control.tracking();
        refused(tracking.set_alias(&self.ana, "m", alias, &version.to_string()).await)
    }

    async fn staged(&self, version: u64, stage: VersionStage) -> Result<(), String> {
        let tracking = self.control.tracking();
        let moved = tracking.transition_stage(&self.ana, "m", &version.to_string(), stage, true).await;
        refused(moved.map(drop))
    }

    async fn stage_of(&self, version: u64) -> String {
        self.control.tracking().model_version(&self.ana, "m", &version.to_string()).await.unwrap().stage
    }
}

/// Anything but a refusal is a broken test.
fn refused(result: Result<(), TrackingError>) -> Result<(), String> {
    result.map_err(|error| match error {
        TrackingError::Refused(why) => why.to_string(),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn what_says_what_an_environment_serves_moves_by_promotion_only() {
    let bench = Bench::new(false).await;
    bench.register(3).await;
    let why = bench.point("production", 1).await.unwrap_err();
    assert!(why.contains("has no release yet: lockgate release create m:1"), "{why}");
    let release = bench.release(&plain(1)).await;
    let why = bench.point("Production", 1).await.unwrap_err();
    assert!(why.contains("was not promoted there") && why.contains("to have been in staging"), "{why}");
    assert!(why.contains(&format!("lockgate promote {} --env production", release.short())), "{why}");
    let why = bench.staged(1, VersionStage::Production).await.unwrap_err();
    assert!(why.starts_with("The stage Production says what environment `production` serves"), "{why}");
    assert_eq!((bench.alias("production").await, bench.stage_of(1).await.as_str()), (None, "None"));
    // What no environment owns is free.
    bench.point("champion", 1).await.unwrap();
    bench.staged(1, VersionStage::Archived).await.unwrap();
    assert_eq!(bench.stage_of(1).await, "Archived");
}

#[tokio::test]
async fn an_import_moves_nothing_that_says_what_an_environment_serves() {
    use crate::tracking::exchange::{AliasRecord, Fate, Pairs, Record, VersionRecord};
    let bench = Bench::new(false).await;
    bench.register(1).await;
    let alias = |alias: &str| {
        Record::Alias(AliasRecord { name: "m".to_owned(), alias: alias.to_owned(), version: 7 })
    };
    let version = VersionRecord {
        name: "m".to_owned(),
        version: 7,
        description: None,
        user_id: String::new(),
        created: 1,
        updated: 1,
        source: "s3://bucket/model".to_owned(),
        place: None,
        stored: None,
        run_id: String::new(),
        run_link: None,
        model_id: String::new(),
        current_stage: "Production".to_owned(),
        tags: Pairs::from([("lockgate.release".to_owned(), "forged".to_owned())]),
    };
    let records = vec![Record::Version(Box::new(version.clone())), alias("production"), alias("champion")];
    let outcomes = bench.control.tracking().import(&bench.ana, records, false).await.unwrap();
    let fates: Vec<Fate> = outcomes.iter().map(|outcome| outcome.fate).collect();
    assert_eq!(fates, [Fate::New, Fate::Conflict, Fate::New]);
    assert!(outcomes[0].notes[0].contains("lockgate.release is not taken"), "{outcomes:?}");
    assert!(outcomes[0].notes[1].starts_with("its stage Production is not taken"), "{outcomes:?}");
    assert!(outcomes[1].why.as_ref().unwrap().contains("only promotions move it"), "{outcomes:?}");
    let found = bench.control.tracking().model_version(&bench.ana, "m", "7").await.unwrap();
    assert_eq!((found.stage.as_str(), found.tags.len()), ("None", 0));
    assert_eq!((bench.alias("production").await, bench.alias("champion").await), (None, Some(7)));
    let again = vec![Record::Version(Box::new(version))];
    let outcomes = bench.control.tracking().import(&bench.ana, again, false).await.unwrap();
    assert_eq!((outcomes[0].fate, outcomes[0].notes.len()), (Fate::Same, 2));
}

#[tokio::test]
async fn prompts_may_be_called_production_but_nothing_that_a_model_can_be_loaded_from() {
    let bench = Bench::new(false).await;
    bench.register(0).await;
    let prompt = KeyValue { key: "mlflow.prompt.is_prompt".to_owned(), value: "true".to_owned() };
    let tracking = bench.control.tracking();
    for (source, allowed) in [("dummy-source", true), ("s3://bucket/model", false)] {
        let (name, source, tags) = ("m".to_owned(), source.to_owned(), vec![prompt.clone()]);
        let new = NewModelVersion { name, source, tags, ..NewModelVersion::default() };
        let made = tracking.create_model_version(&bench.ana, new.clone()).await;
        assert_eq!(made.is_ok(), allowed, "{made:?}");
        // Something with files is no prompt, also where it is tagged as one afterwards.
        let plain = NewModelVersion { tags: Vec::new(), ..new };
        let version = match made {
            Ok(made) => made.version,
            Err(_) => tracking.create_model_version(&bench.ana, plain).await.unwrap().version,
        };
        tracking.set_model_version_tag(&bench.ana, "m", &version.to_string(), prompt.clone()).await.unwrap();
        let pointed = bench.point("production", u64::try_from(version).unwrap()).await;
        assert_eq!(pointed.is_ok(), allowed, "{pointed:?}");
    }
}

#[tokio::test]
async fn aliases_and_stages_follow_what_is_served() {
    let bench = Bench::new(false).await;
    bench.register(2).await;
    let (mut staging, mut agent) =
        (Agent::new(&bench, "staging").await, Agent::new(&bench, "production").await);
    let (one, two) = (bench.release(&plain(1)).await, bench.release(&plain(2)).await);
    staging.confirm(&one).await;
    assert_eq!((bench.alias("staging").await, bench.stage_of(1).await.as_str()), (Some(1), "Staging"));
    agent.confirm(&one).await;
    assert_eq!((bench.alias("production").await, bench.stage_of(1).await.as_str()), (Some(1), "Production"));
    staging.confirm(&two).await;
    let second = agent.bring(&two).await;
    assert_eq!(bench.alias("production").await, Some(2));
    assert_eq!((bench.stage_of(1).await, bench.stage_of(2).await), ("Archived".into(), "Production".into()));

    // To say again what is so is no move; anything else is refused.
    bench.point("production", 2).await.unwrap();
    bench.staged(2, VersionStage::Production).await.unwrap();
    let why = bench.staged(2, VersionStage::Staging).await.unwrap_err();
    assert!(why.contains("stage Production") && why.contains("lockgate rollback production"), "{why}");
    let taken = bench.control.tracking().delete_alias(&bench.ana, "m", "production").await;
    assert!(refused(taken).unwrap_err().contains("lockgate rollback production"));

    bench.control.rollback(&bench.ana, &place("production"), None, "no").await.unwrap();
    agent.go().await;
    assert_eq!(bench.alias("production").await, Some(1));
    // Staging serves version 2 still.
    assert_eq!((bench.stage_of(1).await, bench.stage_of(2).await), ("Production".into(), "Staging".into()));

    let history = bench.control.model_history(&bench.ana, "m", Some("production"), None).await.unwrap();
    let points = |version| Pointer::Alias { alias: "production".to_owned(), version: Some(version) };
    let pointers: Vec<Pointer> = history.iter().map(|m| m.pointer.clone()).collect();
    assert_eq!(pointers, [points(1), points(2), points(1)]);
    assert!(history.iter().all(|m| m.by == "agent of production"), "{history:?}");
    assert_eq!(history[1].promotion.as_deref(), Some(second.as_str()));
    let then = bench.control.model_history(&bench.ana, "m", None, Some(history[1].at)).await.unwrap();
    assert!(then.iter().any(|m| m.pointer == points(2)));
    bench.is_proven().await;
}

#[tokio::test]
async fn an_environments_registry_holds_what_was_promoted_there() {
    let bench = Bench::new(false).await;
    bench.register(3).await;
    let (mut staging, mut agent) =
        (Agent::new(&bench, "staging").await, Agent::new(&bench, "production").await);
    let tracking = bench.control.tracking();
    let production = tracking.within("production").await.unwrap();
    production.registered_model(&bench.ana, "m").await.unwrap_err();
    for version in [1, 3] {
        let release = bench.release(&plain(version)).await;
        staging.confirm(&release).await;
        agent.confirm(&release).await;
    }
    let numbers = async |tracking: &crate::tracking::Tracking| {
        let search = crate::tracking::Search {
            clauses: vec![],
            order: vec![],
            datasets: vec![],
            page: crate::tracking::Page { limit: 9, offset: 0 },
        };
        let found = tracking.search_model_versions(&bench.ana, search).await.unwrap();
        let mut numbers: Vec<i64> = found.iter().map(|v| v.version).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!((numbers(tracking).await, numbers(&production).await), (vec![1, 2, 3], vec![1, 3]));
    let served = production.version_by_alias(&bench.ana, "m", "production").await.unwrap();
    let source = tracking.model_version(&bench.ana, "m", "3").await.unwrap();
    assert_eq!((served.version, &served.name), (3, &"m".to_owned()));
    assert_eq!(served.storage_location, source.storage_location);

    // Nothing comes in by another door.
    let copy = NewModelVersion {
        name: "m".to_owned(),
        source: "models:/m/1".to_owned(),
        ..NewModelVersion::default()
    };
    let why = refused(production.create_model_version(&bench.ana, copy).await.map(drop)).unwrap_err();
    assert!(why.contains("only promotions change it") && why.contains("--env production"), "{why}");
    let model = NewRegisteredModel { name: "other".to_owned(), ..NewRegisteredModel::default() };
    refused(production.create_registered_model(&bench.ana, model).await.map(drop)).unwrap_err();
    for alias in ["production", "champion"] {
        refused(production.set_alias(&bench.ana, "m", alias, "1").await).unwrap_err();
    }
    let archived = production.transition_stage(&bench.ana, "m", "1", VersionStage::Archived, false).await;
    refused(archived.map(drop)).unwrap_err();
    refused(production.delete_model_version(&bench.ana, "m", "1").await).unwrap_err();
    let tag = KeyValue { key: "approved".to_owned(), value: "yes".to_owned() };
    refused(production.set_model_version_tag(&bench.ana, "m", "1", tag.clone()).await).unwrap_err();
    refused(production.set_registered_model_tag(&bench.ana, "m", tag).await).unwrap_err();
    let words = Some("fine".to_owned());
    let described = production.describe_model_version(&bench.ana, "m", "1", words).await;
    refused(described.map(drop)).unwrap_err();
    refused(production.rename_registered_model(&bench.ana, "m", "n").await.map(drop)).unwrap_err();
    refused(production.delete_registered_model(&bench.ana, "m").await).unwrap_err();

    // What is deleted where it was registered stays where it served.
    tracking.delete_model_version(&bench.ana, "m", "1").await.unwrap();
    bench.control.rollback(&bench.ana, &place("production"), None, "no").await.unwrap();
    agent.go().await;
    assert_eq!(bench.alias("production").await, None);
    let back = production.version_by_alias(&bench.ana, "m", "production").await.unwrap();
    assert_eq!(back.version, 1);
}

#[tokio::test]
async fn a_version_names_its_release_and_nobody_can_change_that() {
    let bench = Bench::new(false).await;
    bench.register(1).await;
    let release = bench.release(&plain(1)).await;
    let tracking = bench.control.tracking();
    let tag = KeyValue { key: "lockgate.release".to_owned(), value: release.to_string() };
    let found = tracking.model_version(&bench.ana, "m", "1").await.unwrap();
    assert_eq!(found.tags, std::slice::from_ref(&tag));
    let forged = KeyValue { value: "sha256:0".to_owned(), ..tag.clone() };
    tracking.set_model_version_tag(&bench.ana, "m", "1", forged).await.unwrap_err();
    tracking.delete_model_version_tag(&bench.ana, "m", "1", &tag.key).await.unwrap_err();
    let copy = NewModelVersion {
        name: "m".to_owned(),
        source: "models:/m/1".to_owned(),
        tags: found.tags,
        ..NewModelVersion::default()
    };
    assert_eq!(tracking.create_model_version(&bench.ana, copy).await.unwrap().tags, [], "it has no release");
}

#[tokio::test]
async fn names_that_an_environment_comes_to_own_say_what_it_serves_from_then_on() {
    let bench = Bench::new(false).await;
    bench.register(2).await;
    let (mut staging, mut agent) =
        (Agent::new(&bench, "staging").await, Agent::new(&bench, "production").await);
    let release = bench.release(&plain(1)).await;
    staging.confirm(&release).await;
    agent.confirm(&release).await;
    bench.point("champion", 2).await.unwrap();
    bench.point("trial", 2).await.unwrap();
    let (_, toml) = bench.control.configuration(&bench.ana).await.unwrap().unwrap();
    let toml = toml.replace("[env.production]", "[env.production]\naliases = [\"champion\", \"live-model\"]");
    let toml = toml.replace("[env.review]", "[env.review]\naliases = [\"trial\"]");
    let toml = toml.replace("[env.staging]", "[env.qa]\n[env.staging]");
    let new = || crate::NewConfiguration { toml: toml.clone(), settings: vec![] };
    let tracking = bench.control.tracking();
    tracking.create_workspace(&bench.ana, "qa", crate::tracking::WorkspaceChange::default()).await.unwrap();
    let taken = bench.control.apply_configuration(&bench.ana, new()).await.unwrap_err();
    assert!(taken.to_string().contains("there is a workspace `qa` already"), "{taken}");
    assert_eq!(bench.alias("champion").await, Some(2), "nothing of it was applied");
    tracking.delete_workspace(&bench.ana, "qa").await.unwrap();
    bench.control.apply_configuration(&bench.ana, new()).await.unwrap();
    assert_eq!(bench.alias("champion").await, Some(1));
    assert_eq!(bench.alias("live-model").await, Some(1));
    assert_eq!(bench.alias("trial").await, None, "review serves nothing");
    bench.is_proven().await;
}

#[tokio::test]
async fn a_name_with_a_slash_leads_to_no_other_workspace() {
    let bench = Bench::new(false).await;
    let tracking = bench.control.tracking();
    tracking.create_workspace(&bench.ana, "team", crate::tracking::WorkspaceChange::default()).await.unwrap();
    let team = tracking.within("team").await.unwrap();
    let model = NewRegisteredModel { name: "m".to_owned(), ..NewRegisteredModel::default() };
    team.create_registered_model(&bench.ana, model).await.unwrap();
    let (name, source) = ("m".to_owned(), "s3://bucket/model".to_owned());
    let new = NewModelVersion { name, source, ..NewModelVersion::default() };
    team.create_model_version(&bench.ana, new).await.unwrap();
    team.set_alias(&bench.ana, "m", "best", "1").await.unwrap();
    bench.control.model_history(&bench.ana, "team/m", None, None).await.unwrap_err();
    tracking.registered_model(&bench.ana, "team/m").await.unwrap_err();
}
