//! Tracking data on both engines.

use super::types::*;
use super::*;
use crate::testing::{Bench, NOON, both_engines};
use lockgate_core::digest::Digest;

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_owned() }
}

fn point(key: &str, value: f64, step: i64) -> Metric {
    Metric { key: key.to_owned(), value, logged_at: NOON, step, dataset: None, model_id: None, run_id: None }
}

fn new_run(id: &str, start: i64) -> Run {
    Run {
        run_id: id.to_owned(),
        experiment_id: 0,
        name: format!("Name {id}"),
        user_id: "ana".to_owned(),
        created_by: "u_1".to_owned(),
        status: "RUNNING".to_owned(),
        start_time: start,
        end_time: None,
        artifact_uri: format!("mlflow-artifacts:/0/{id}/artifacts"),
        lifecycle: Lifecycle::Active,
        metrics: vec![],
        params: vec![],
        tags: vec![],
        datasets: vec![],
        model_inputs: vec![],
        model_outputs: vec![],
    }
}

fn search(clauses: Vec<Clause>, order: Vec<Order>) -> Search {
    Search { clauses, order, datasets: vec![], page: Page { limit: 100, offset: 0 } }
}

fn clause(field: Field, comparator: Comparator, operand: Operand) -> Clause {
    Clause { field, comparator, operand }
}

fn words(text: &str) -> Operand {
    Operand::Text(text.to_owned())
}

async fn ids(store: &crate::Store, search: Search) -> Vec<String> {
    let runs =
        store.read(move |conn| Box::pin(async move { conn.search_runs(&search).await })).await.unwrap();
    runs.into_iter().map(|run| run.run_id).collect()
}

/// Three runs: `a` with 0.1, `b` with NaN, `c` with 0.9; `d` has no metric.
async fn four_runs(bench: &Bench) -> crate::Store {
    let store = bench.open().await;
    store
        .write(|tx| {
            Box::pin(async move {
                for (i, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
                    tx.insert_run(&new_run(id, NOON + i as i64)).await?;
                }
                tx.log_metrics("a", &[point("m", 0.5, 0), point("m", 0.1, 1)]).await?;
                tx.log_metrics("b", &[point("m", f64::NAN, 0)]).await?;
                tx.log_metrics("c", &[point("m", 0.9, 0)]).await?;
                tx.insert_param("a", &pair("depth", "Ten_x")).await?;
                tx.insert_param("c", &pair("depth", "tenyx")).await?;
                tx.set_run_tag("a", &pair("t", "1")).await?;
                Ok::<_, StoreError>(())
            })
        })
        .await
        .unwrap();
    store
}

both_engines! {
    async fn a_run_is_read_as_it_was_logged(bench: Bench) {
        let store = four_runs(&bench).await;
        store.write(|tx| Box::pin(async move {
            tx.log_metrics("a", &[point("m", 0.1, 1), point("inf", f64::NEG_INFINITY, -3)]).await?;
            tx.update_run("a", &RunUpdate { status: Some("FINISHED".into()), end_time: Some(NOON + 9), name: None }).await?;
            let dataset = Dataset { name: "d".into(), digest: "1".into(), source_type: "s".into(), source: "x".into(), schema: None, profile: Some("{}".into()) };
            let input = DatasetInput { dataset, tags: vec![pair("mlflow.data.context", "train")] };
            let run = tx.run_row("a").await?.unwrap();
            tx.log_dataset(&run, "id1", &input).await?;
            tx.log_dataset(&run, "id2", &input).await?;
            tx.log_model_output("a", "m-1", 4).await?;
            tx.log_model_input("a", "m-2").await
        })).await.unwrap();
        let run = store.read(|conn| Box::pin(async move { conn.run("a").await })).await.unwrap().unwrap();
        assert_eq!((run.status.as_str(), run.end_time, run.name.as_str()), ("FINISHED", Some(NOON + 9), "Name a"));
        let mut metrics: Vec<_> = run.metrics.iter().map(|m| (m.key.as_str(), m.value, m.step)).collect();
        metrics.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!(metrics, [("inf", f64::MIN, -3), ("m", 0.1, 1)]);
        assert_eq!(run.datasets.len(), 1);
        assert_eq!(run.datasets[0].tags, [pair("mlflow.data.context", "train")]);
        assert_eq!((run.model_inputs, run.model_outputs), (vec!["m-2".to_owned()], vec![("m-1".to_owned(), 4)]));
        let history = store.read(|conn| Box::pin(async move { conn.metric_history("a", "m", 10, 0).await })).await.unwrap();
        assert_eq!(history.iter().map(|m| m.value).collect::<Vec<_>>(), [0.5, 0.1]);
        let nan = store.read(|conn| Box::pin(async move { conn.run("b").await })).await.unwrap().unwrap();
        assert!(nan.metrics[0].value.is_nan());
    }

    async fn the_newest_point_of_a_key_wins_whatever_the_order(bench: Bench) {
        let store = four_runs(&bench).await;
        let many: Vec<Metric> = (0..1000).map(|i| point(&format!("k{}", i % 7), i as f64, (i * 37) % 1000)).collect();
        let expected: f64 = many.iter().filter(|m| m.key == "k3").max_by_key(|m| m.step).unwrap().value;
        store.write(move |tx| Box::pin(async move {
            tx.log_metrics("d", &many).await?;
            tx.log_metrics("d", &[point("k3", -1.0, 0)]).await
        })).await.unwrap();
        let run = store.read(|conn| Box::pin(async move { conn.run("d").await })).await.unwrap().unwrap();
        assert_eq!(run.metrics.iter().find(|m| m.key == "k3").unwrap().value, expected);
        assert_eq!(run.metrics.len(), 7);
    }

    async fn a_sample_is_spread_evenly_and_has_both_ends(bench: Bench) {
        let store = four_runs(&bench).await;
        let many: Vec<Metric> = (0..1000).map(|i| point("long", i as f64, i)).collect();
        store.write(move |tx| Box::pin(async move { tx.log_metrics("d", &many).await })).await.unwrap();
        let sample = |most: usize, steps: (i64, i64)| {
            let store = store.clone();
            async move {
                let found = store.read(move |conn| Box::pin(async move { conn.metric_sample("d", "long", most, steps).await }));
                found.await.unwrap().iter().map(|m| m.step).collect::<Vec<_>>()
            }
        };
        let all = (i64::MIN, i64::MAX);
        assert_eq!(sample(1, all).await, [999]);
        assert_eq!(sample(2, all).await, [0, 999]);
        assert_eq!(sample(4, all).await, [0, 250, 500, 999]);
        assert_eq!(sample(4, (10, 12)).await, [10, 11, 12], "fewer than there is room for");
        assert_eq!(sample(2000, all).await.len(), 1000);
        assert_eq!(sample(5, (2000, 3000)).await, [] as [i64; 0]);
    }

    async fn searches_compare_as_mlflow_does(bench: Bench) {
        let store = four_runs(&bench).await;
        use Comparator as C;
        let metric = |c, v| search(vec![clause(Field::Metric("m".into()), c, Operand::Real(v))], vec![]);
        assert_eq!(ids(&store, metric(C::Gt, 0.05)).await, ["c", "a"]);
        assert_eq!(ids(&store, metric(C::Ne, 0.9)).await, ["b", "a"]);
        let param = |c, o| search(vec![clause(Field::Param("depth".into()), c, o)], vec![]);
        assert_eq!(ids(&store, param(C::Like, words("Ten%"))).await, ["a"]);
        assert_eq!(ids(&store, param(C::Like, words("ten_x"))).await, ["c"]);
        assert_eq!(ids(&store, param(C::Ilike, words("TEN_X"))).await, ["c", "a"]);
        assert_eq!(ids(&store, param(C::Like, words("[tT]%"))).await, Vec::<String>::new());
        assert_eq!(ids(&store, param(C::IsNull, Operand::None)).await, ["d", "b"]);
        assert_eq!(ids(&store, param(C::IsNotNull, Operand::None)).await, ["c", "a"]);
        assert_eq!(ids(&store, param(C::Ne, words("tenyx"))).await, ["a"]);
        let tag = |c| search(vec![clause(Field::Tag("t".into()), c, words("1"))], vec![]);
        assert_eq!(ids(&store, tag(C::Lacks)).await, ["d", "c", "b"]);
        let list = Operand::Texts(vec!["a".into(), "d".into()]);
        let by_id = |c, list| search(vec![clause(Field::Attribute("run_id"), c, list)], vec![]);
        assert_eq!(ids(&store, by_id(C::In, list.clone())).await, ["d", "a"]);
        assert_eq!(ids(&store, by_id(C::NotIn, list)).await, ["c", "b"]);
        assert_eq!(ids(&store, by_id(C::In, Operand::Texts(vec![]))).await, Vec::<String>::new());
        let odd = search(vec![clause(Field::Attribute("nothing"), C::Eq, words("x"))], vec![]);
        let refused = store.read(move |conn| Box::pin(async move { conn.search_runs(&odd).await })).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    }

    async fn missing_values_come_last_and_nan_before_them(bench: Bench) {
        let store = four_runs(&bench).await;
        let by = |field, ascending| search(vec![], vec![Order { field, ascending, dataset: None }]);
        assert_eq!(ids(&store, by(Field::Metric("m".into()), true)).await, ["a", "c", "b", "d"]);
        assert_eq!(ids(&store, by(Field::Metric("m".into()), false)).await, ["c", "a", "b", "d"]);
        assert_eq!(ids(&store, by(Field::Param("depth".into()), false)).await, ["c", "a", "d", "b"]);
        assert_eq!(ids(&store, by(Field::Attribute("run_name"), false)).await, ["d", "c", "b", "a"]);
        assert_eq!(ids(&store, by(Field::Attribute("end_time"), true)).await, ["d", "c", "b", "a"]);
        let mut page = by(Field::Attribute("start_time"), true);
        page.page = Page { limit: 2, offset: 1 };
        assert_eq!(ids(&store, page).await, ["b", "c"]);
    }

    async fn versions_count_up_and_alias_moves_are_kept(bench: Bench) {
        let store = bench.open().await;
        let (moves, found) = store.write(|tx| Box::pin(async move {
            let model = RegisteredModel { name: "m".into(), description: None, created_by: "u_1".into(), created: NOON, updated: NOON, tags: vec![pair("k", "v")], aliases: vec![], latest: vec![] };
            tx.insert_registered_model(&model).await?;
            for expected in 1..=3 {
                let number = tx.take_version("m", NOON).await?.unwrap();
                assert_eq!(number, expected);
                let version = ModelVersion { name: "m".into(), version: number, description: None, user_id: String::new(), created_by: "u_1".into(), source: "s".into(), storage_location: "s".into(), run_id: String::new(), run_link: None, model_id: String::new(), created: NOON, updated: NOON, tags: vec![pair("a", "b")], stage: "None".into(), aliases: vec![] };
                tx.insert_model_version(&version).await?;
            }
            assert_eq!(tx.take_version("other", NOON).await?, None);
            for version in [Some(1), Some(2), None, Some(3)] {
                tx.move_alias(&AliasMove { name: "m".into(), alias: "prod".into(), version, actor: "u_1".into(), at: NOON, promotion: String::new() }).await?;
            }
            assert_eq!(tx.alias("m", "prod").await?, Some(3));
            let order = vec![Order { field: Field::Attribute("version_number"), ascending: true, dataset: None }];
            let found = tx.search_model_versions(&search(vec![], order)).await?;
            let model = tx.registered_model("m").await?.unwrap();
            assert_eq!((model.latest[0].version, model.aliases, model.tags), (3, vec![("prod".into(), 3)], vec![pair("k", "v")]));
            Ok::<_, StoreError>((tx.alias_history("m").await?, found))
        })).await.unwrap();
        assert_eq!(moves.iter().map(|m| m.version).collect::<Vec<_>>(), [Some(1), Some(2), None, Some(3)]);
        assert_eq!(found.iter().map(|v| (v.version, v.tags.len())).collect::<Vec<_>>(), [(1, 1), (2, 1), (3, 1)]);
    }

    async fn logged_models_are_found_by_metrics_of_a_dataset(bench: Bench) {
        let store = four_runs(&bench).await;
        let found = store.write(|tx| Box::pin(async move {
            for (id, value, data) in [("m-1", 0.2, "x"), ("m-2", 0.8, "x"), ("m-3", 0.9, "y")] {
                let model = LoggedModel { model_id: id.into(), experiment_id: 0, name: "n".into(), model_type: String::new(), source_run_id: "a".into(), status: "LOGGED_MODEL_PENDING".into(), artifact_uri: "u".into(), created: NOON, updated: NOON, params: vec![pair("p", "1")], tags: vec![], metrics: vec![] };
                tx.insert_logged_model(&model).await?;
                let metric = Metric { dataset: Some((data.into(), "1".into())), model_id: Some(id.into()), ..point("acc", value, 0) };
                tx.log_metrics("a", &[metric]).await?;
            }
            let order = vec![Order { field: Field::Metric("acc".into()), ascending: false, dataset: None }];
            let mut wanted = search(vec![clause(Field::Metric("acc".into()), Comparator::Gt, Operand::Real(0.1))], order);
            wanted.datasets = vec![("x".into(), None)];
            let some = tx.search_logged_models(&wanted).await?;
            wanted.clauses.clear();
            wanted.datasets = vec![("y".into(), Some("1".into()))];
            let one = tx.search_logged_models(&wanted).await?;
            Ok::<_, StoreError>((some, one))
        })).await.unwrap();
        assert_eq!(found.0.iter().map(|m| m.model_id.as_str()).collect::<Vec<_>>(), ["m-2", "m-1"]);
        assert_eq!(found.1.iter().map(|m| m.model_id.as_str()).collect::<Vec<_>>(), ["m-3"]);
        assert_eq!((found.1[0].params.len(), found.1[0].metrics[0].value), (1, 0.9));
    }

    async fn experiments_and_artifacts_are_kept(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            let id = tx.next_experiment_id().await?;
            let new = Experiment { id, name: "Ünïcode".into(), artifact_location: "l".into(), lifecycle: Lifecycle::Active, created: NOON, updated: NOON, tags: vec![pair("k", "v")] };
            tx.insert_experiment(&new).await?;
            assert_eq!(tx.experiment_named("Ünïcode").await?, Some(new.clone()));
            let tagged = search(vec![clause(Field::Tag("k".into()), Comparator::Eq, words("v"))], vec![]);
            assert_eq!(tx.search_experiments(&tagged).await?, [new]);
            assert_eq!(tx.search_experiments(&search(vec![], vec![])).await?.len(), 2);
            for path in ["b/c", "a", "b.txt"] {
                tx.put_artifact("0/a/artifacts", &Artifact { path: path.into(), digest: Digest::of(b"x"), size: 1 }, NOON).await?;
            }
            tx.delete_artifact("0/a/artifacts", "a").await?;
            assert_eq!(tx.artifacts("0/a/artifacts", "b/").await?.len(), 1);
            assert_eq!(tx.artifacts("0/a/artifacts", "").await?.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), ["b.txt", "b/c"]);
            assert!(tx.artifact("0/a/artifacts", "b").await?.is_none());
            Ok::<_, StoreError>(())
        })).await.unwrap();
    }

    async fn a_text_that_postgresql_can_not_hold_is_refused(bench: Bench) {
        let store = four_runs(&bench).await;
        let refused = store.write(|tx| Box::pin(async move { tx.set_run_tag("a", &pair("k", "a\0b")).await })).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    }
}
