//! Taking away for good what was deleted.

use super::*;
use crate::Tx;
use crate::tracking::gc::{Doomed, Kind};

fn doomed(kind: Kind, id: &str) -> Doomed {
    Doomed { kind, id: id.to_owned(), place: format!("0/{id}/artifacts") }
}

async fn count(store: &crate::Store, table: &'static str) -> i64 {
    let rows = store.read(move |conn| {
        Box::pin(async move {
            conn.scalar(crate::conn::query_dynamic(format!("SELECT COUNT(*) FROM {table}"))).await
        })
    });
    rows.await.unwrap().unwrap()
}

async fn take(tx: &mut Tx, one: &Doomed, until: i64) -> Result<bool, StoreError> {
    let taken = tx.doom(one, until).await?;
    while taken && tx.wear_down(one).await? {}
    Ok(taken)
}

both_engines! {
    async fn a_run_goes_with_all_that_is_its_own(bench: Bench) {
        let store = four_runs(&bench).await;
        let gone = store.write(|tx| Box::pin(async move {
            let many: Vec<Metric> = (0..4100).map(|n| point("m", n as f64, n)).collect();
            tx.log_metrics(0, "a", &many).await?;
            tx.put_artifact("0/a/artifacts", &Artifact { path: "p".into(), digest: Digest::of(b"x"), size: 1 }, NOON).await?;
            tx.link_trace("run", "a", "tr-1").await?;
            tx.set_run_lifecycle("a", Lifecycle::Deleted, NOON).await?;
            tx.set_run_lifecycle("a", Lifecycle::Deleted, NOON + 5).await?;
            let found = tx.deleted(Kind::Run, "", 10).await?;
            assert_eq!((found.len(), found[0].since), (1, Some(NOON)), "the first time counts");
            let one = doomed(Kind::Run, "a");
            assert!(!take(tx, &one, NOON - 1).await?, "too young");
            assert!(!take(tx, &doomed(Kind::Run, "c"), NOON).await?, "in use");
            assert!(take(tx, &one, NOON).await?);
            assert_eq!(tx.doomed(10).await?, std::slice::from_ref(&one));
            tx.forget_doomed(&one).await?;
            Ok::<_, StoreError>(tx.run_row("a").await?.is_none() && tx.doomed(10).await?.is_empty())
        })).await.unwrap();
        assert!(gone);
        for (table, left) in [("runs", 3), ("metrics", 2), ("latest_metrics", 2), ("params", 1), ("run_tags", 0), ("artifacts", 0), ("trace_links", 0)] {
            assert_eq!(count(&store, table).await, left, "{table}");
        }
    }

    async fn a_run_of_a_version_stays_and_one_that_was_restored_has_no_age(bench: Bench) {
        let store = four_runs(&bench).await;
        store.write(|tx| Box::pin(async move {
            tx.set_run_lifecycle("a", Lifecycle::Deleted, NOON).await?;
            tx.set_run_lifecycle("a", Lifecycle::Active, NOON).await?;
            assert_eq!(tx.deletable(Kind::Run, "a").await?.unwrap().since, None);
            Ok::<_, StoreError>(())
        })).await.unwrap();
        bench.tamper("UPDATE runs SET lifecycle = 'deleted' WHERE run_id IN ('a', 'b')").await;
        bench.tamper("INSERT INTO model_versions (name, version, user_id, created_by, source, storage_location, run_id, model_id, created, updated) VALUES ('m', 1, '', '', 's', 'mlflow-artifacts:/versions/v1/artifacts', 'b', '', 1, 1)").await;
        store.close().await;
        bench.clock.set(NOON + 7);
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            let found = tx.deleted(Kind::Run, "", 10).await?;
            assert_eq!(found.iter().map(|one| one.since).collect::<Vec<_>>(), [Some(NOON + 7); 2], "noted when it was seen first");
            assert!(!take(tx, &doomed(Kind::Run, "b"), NOON + 7).await?);
            assert!(take(tx, &doomed(Kind::Run, "a"), NOON + 7).await?);
            let list = |id: &str| Doomed { kind: Kind::Version, id: id.into(), place: format!("versions/{id}/artifacts") };
            assert!(!take(tx, &list("v1"), NOON).await? && take(tx, &list("v2"), NOON).await?);
            Ok::<_, StoreError>(())
        })).await.unwrap();
    }

    async fn an_experiment_goes_when_it_is_empty_and_its_number_is_not_used_again(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            let new = |id, name: &str| Experiment { id, name: name.into(), artifact_location: "l".into(), lifecycle: Lifecycle::Deleted, created: NOON, updated: NOON, tags: vec![pair("k", "v")] };
            for id in [1, 2] {
                tx.insert_experiment(&new(id, &format!("e{id}"))).await?;
            }
            let run = Run { experiment_id: 2, lifecycle: Lifecycle::Deleted, ..new_run("r", NOON) };
            tx.insert_run(&run).await?;
            let model = LoggedModel { model_id: "m-1".into(), experiment_id: 2, name: "n".into(), model_type: String::new(), source_run_id: "r".into(), status: "s".into(), artifact_uri: "u".into(), lifecycle: Lifecycle::Active, created: NOON, updated: NOON, params: vec![pair("p", "1")], tags: vec![pair("t", "1")], metrics: vec![] };
            tx.insert_logged_model(&model).await?;
            tx.insert_logged_model(&LoggedModel { model_id: "m-2".into(), experiment_id: 0, ..model }).await?;
            assert!(!take(tx, &doomed(Kind::Experiment, "2"), NOON).await?, "a run is in it");
            assert!(take(tx, &doomed(Kind::Run, "r"), NOON).await?);
            assert!(!take(tx, &doomed(Kind::Experiment, "2"), NOON).await?, "a model is in it");
            assert!(!take(tx, &doomed(Kind::Model, "m-2"), NOON).await?, "its experiment is in use");
            assert!(take(tx, &doomed(Kind::Model, "m-1"), NOON).await?);
            assert!(take(tx, &doomed(Kind::Experiment, "2"), NOON).await?);
            assert!(!take(tx, &doomed(Kind::Experiment, "0"), i64::MAX).await?);
            assert_eq!(tx.next_experiment_id().await?, 3);
            assert!(take(tx, &doomed(Kind::Experiment, "1"), NOON).await?);
            assert_eq!(tx.next_experiment_id().await?, 3);
            tx.delete_logged_model("m-2", NOON).await?;
            assert!(tx.logged_model("m-2").await?.is_none());
            assert_eq!(tx.any_logged_model("m-2").await?.unwrap().params.len(), 1);
            assert!(tx.search_logged_models(&search(vec![], vec![])).await?.is_empty());
            assert!(take(tx, &doomed(Kind::Model, "m-2"), NOON).await?);
            Ok::<_, StoreError>(())
        })).await.unwrap();
        for table in ["experiment_tags", "logged_models", "logged_model_params", "logged_model_tags", "runs"] {
            assert_eq!(count(&store, table).await, 0, "{table}");
        }
    }
}
