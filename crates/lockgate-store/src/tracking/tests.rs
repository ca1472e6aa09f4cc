//! Tracking data on both engines.

mod patterns;

use super::types::*;
use super::*;
use crate::testing::{Bench, NOON, both_engines};
use lockgate_core::digest::Digest;

mod gone;
mod leads;
mod order;

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
                tx.log_metrics(1, "a", &[point("m", 0.5, 0), point("m", 0.1, 1)]).await?;
                tx.log_metrics(1, "b", &[point("m", f64::NAN, 0)]).await?;
                tx.log_metrics(1, "c", &[point("m", 0.9, 0)]).await?;
                tx.insert_params("a", &[&pair("depth", "Ten_x")]).await?;
                tx.insert_params("c", &[&pair("depth", "tenyx")]).await?;
                tx.set_run_tags("a", &[pair("t", "1")]).await?;
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
            tx.log_metrics(1, "a", &[point("m", 0.1, 1), point("inf", f64::NEG_INFINITY, -3)]).await?;
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
            tx.log_metrics(1, "d", &many).await?;
            tx.log_metrics(1, "d", &[point("k3", -1.0, 0)]).await
        })).await.unwrap();
        let run = store.read(|conn| Box::pin(async move { conn.run("d").await })).await.unwrap().unwrap();
        assert_eq!(run.metrics.iter().find(|m| m.key == "k3").unwrap().value, expected);
        assert_eq!(run.metrics.len(), 7);
    }

    async fn a_sample_is_spread_evenly_and_has_both_ends(bench: Bench) {
        let store = four_runs(&bench).await;
        let many: Vec<Metric> = (0..1000).map(|i| point("long", i as f64, i)).collect();
        store.write(move |tx| Box::pin(async move { tx.log_metrics(1, "d", &many).await })).await.unwrap();
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
                let model = LoggedModel { lifecycle: Lifecycle::Active, model_id: id.into(), experiment_id: 0, name: "n".into(), model_type: String::new(), source_run_id: "a".into(), status: "LOGGED_MODEL_PENDING".into(), artifact_uri: "u".into(), created: NOON, updated: NOON, params: vec![pair("p", "1")], tags: vec![], metrics: vec![] };
                tx.insert_logged_model(&model).await?;
                let metric = Metric { dataset: Some((data.into(), "1".into())), model_id: Some(id.into()), ..point("acc", value, 0) };
                tx.log_metrics(1, "a", &[metric]).await?;
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
        let refused = store.write(|tx| Box::pin(async move { tx.set_run_tags("a", &[pair("k", "a\0b")]).await })).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    }
}

fn new_trace(id: &str, started: i64, session: Option<&str>) -> Trace {
    Trace {
        trace_id: id.to_owned(),
        experiment_id: 0,
        state: "OK".to_owned(),
        started,
        duration: None,
        client_request_id: None,
        request_preview: None,
        response_preview: None,
        session_id: session.map(str::to_owned),
        tags: vec![],
        metadata: vec![],
        assessments: vec![],
    }
}

fn new_span(trace: &str, id: &str, parent: Option<&str>, kind: &str) -> Span {
    Span {
        trace_id: trace.to_owned(),
        span_id: id.to_owned(),
        parent_id: parent.map(str::to_owned),
        name: format!("span {id}"),
        kind: Some(kind.to_owned()),
        status: "OK".to_owned(),
        start_ns: 5,
        end_ns: 0,
        token_use: None,
        cost: None,
        content: format!("{{\"attributes\": {{\"who\": \"Ana {id}\"}}}}"),
    }
}

fn said(id: &str, trace: &str, name: &str, value: &str, amount: Option<f64>) -> Assessment {
    Assessment {
        assessment_id: id.to_owned(),
        trace_id: trace.to_owned(),
        name: name.to_owned(),
        kind: "feedback".to_owned(),
        value: value.to_owned(),
        amount,
        error: None,
        source_type: "HUMAN".to_owned(),
        source_id: None,
        run_id: None,
        span_id: None,
        rationale: None,
        overrides: None,
        valid: true,
        metadata: None,
        of_session: false,
        created: NOON,
        updated: NOON,
    }
}

/// `a`, `b` and `c`, the oldest first; `a` and `c` are of one session.
async fn three_traces(bench: &Bench) -> crate::Store {
    let store = bench.open().await;
    store
        .write(|tx| {
            Box::pin(async move {
                for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
                    let session = if id == "b" { None } else { Some("s") };
                    tx.put_trace(&new_trace(id, NOON + i as i64, session)).await?;
                }
                tx.set_trace_tags("a", &[pair("t", "1"), pair("u", "2")]).await?;
                tx.set_trace_tags("a", &[pair("t", "3")]).await?;
                tx.set_trace_metadata("b", &[pair("m", "x")]).await?;
                tx.put_span(&new_span("a", "2", Some("1"), "LLM")).await?;
                tx.put_span(&new_span("a", "1", None, "CHAIN")).await?;
                tx.put_assessment(&said("1", "a", "score", "0.9", Some(0.9))).await?;
                tx.put_assessment(&Assessment {
                    of_session: true,
                    ..said("2", "a", "calm", "\"yes\"", None)
                })
                .await?;
                tx.put_assessment(&said("3", "b", "score", "true", None)).await?;
                tx.link_trace("run", "r", "c").await?;
                tx.link_trace("run", "r", "c").await?;
                tx.link_trace("prompt", "p/1", "b").await?;
                Ok::<_, StoreError>(())
            })
        })
        .await
        .unwrap();
    store
}

async fn found_traces(store: &crate::Store, clauses: Vec<Clause>, order: Vec<Order>) -> String {
    let search = search(clauses, order);
    let found =
        store.read(move |conn| Box::pin(async move { conn.search_traces(&search).await })).await.unwrap();
    found.into_iter().map(|trace| trace.trace_id).collect()
}

both_engines! {
    async fn a_trace_is_read_as_it_was_kept(bench: Bench) {
        let store = three_traces(&bench).await;
        let (trace, spans) = store
            .read(|conn| Box::pin(async move {
                let ids = ["b".to_owned(), "none".to_owned(), "a".to_owned(), "b".to_owned()];
                let order: Vec<String> = conn.traces(&ids).await?.into_iter().map(|t| t.trace_id).collect();
                assert_eq!(order, ["b", "a"]);
                Ok::<_, StoreError>((conn.trace("a").await?.unwrap(), conn.spans(&ids).await?))
            }))
            .await
            .unwrap();
        assert_eq!((trace.tag("t"), trace.tag("u"), trace.metadata("m")), (Some("3"), Some("2"), None));
        let ids: Vec<&str> = trace.assessments.iter().map(|one| one.assessment_id.as_str()).collect();
        assert_eq!(ids, ["1", "2"]);
        let order: Vec<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
        assert_eq!(order, ["1", "2"], "those without a parent come first");
    }
}

both_engines! {
    async fn traces_are_found_by_all_that_belongs_to_them(bench: Bench) {
        let store = three_traces(&bench).await;
        let score = || Field::Assessment("feedback", "score".to_owned());
        let calm = || Field::Assessment("feedback", "calm".to_owned());
        let yes = Operand::Texts(vec!["yes".to_owned(), "\"yes\"".to_owned()]);
        let truth = Operand::Texts(vec!["true".to_owned(), "\"true\"".to_owned()]);
        for (clauses, expected) in [
            (vec![], "cba"),
            (vec![clause(score(), Comparator::Gt, Operand::Real(0.5))], "a"),
            (vec![clause(score(), Comparator::Ge, Operand::Int(1))], ""),
            (vec![clause(score(), Comparator::Eq, truth.clone())], "b"),
            (vec![clause(score(), Comparator::Ne, truth)], "a"),
            (vec![clause(score(), Comparator::Like, words("%.9"))], "a"),
            (vec![clause(calm(), Comparator::Eq, yes)], "ca"),
            (vec![clause(calm(), Comparator::IsNull, Operand::None)], "b"),
            (vec![clause(score(), Comparator::IsNull, Operand::None)], "c"),
            (vec![clause(calm(), Comparator::IsNotNull, Operand::None)], "ca"),
            (vec![clause(Field::Link("run"), Comparator::Eq, words("r"))], "c"),
            (vec![clause(Field::Link("prompt"), Comparator::Eq, words("p/1"))], "b"),
            (vec![clause(Field::Span("kind"), Comparator::Eq, words("LLM"))], "a"),
            (vec![
                clause(Field::Span("kind"), Comparator::Eq, words("LLM")),
                clause(Field::Span("name"), Comparator::Eq, words("span 1")),
            ], ""),
            (vec![clause(Field::SpanAttribute("who".to_owned()), Comparator::Like, words("%Ana 2%"))], "a"),
            (vec![clause(Field::SpanAttribute("who".to_owned()), Comparator::Like, words("%ana 2%"))], ""),
            (vec![clause(Field::Tag("t".to_owned()), Comparator::Eq, words("3"))], "a"),
            (vec![clause(Field::Param("m".to_owned()), Comparator::IsNull, Operand::None)], "ca"),
            (vec![clause(Field::Attribute("end_time_ms"), Comparator::Le, Operand::Int(NOON))], "a"),
        ] {
            assert_eq!(found_traces(&store, clauses.clone(), vec![]).await, expected, "{clauses:?}");
        }
        let by = |field, ascending| vec![Order { field, ascending, dataset: None }];
        let oldest = by(Field::Attribute("timestamp_ms"), true);
        assert_eq!(found_traces(&store, vec![], oldest).await, "abc");
        assert_eq!(found_traces(&store, vec![], by(Field::Tag("t".to_owned()), false)).await, "acb");
    }
}

both_engines! {
    async fn nothing_of_a_deleted_trace_is_left(bench: Bench) {
        let store = three_traces(&bench).await;
        let ids = vec!["a".to_owned(), "none".to_owned()];
        let deleted = store.write(move |tx| Box::pin(async move { tx.delete_traces(&ids).await })).await.unwrap();
        assert_eq!(deleted, 1);
        let left = store
            .read(|conn| Box::pin(async move {
                let ids = ["a".to_owned()];
                assert_eq!(conn.trace("a").await?, None);
                assert_eq!(conn.assessment("a", "1").await?, None);
                assert_eq!(conn.spans(&ids).await?, []);
                conn.oldest_traces(0, NOON + 5, 1).await
            }))
            .await
            .unwrap();
        assert_eq!(left, ["b"]);
    }
}

#[tokio::test]
async fn a_search_with_too_many_values_is_refused_before_the_engine_is_asked() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let many = Operand::Ints((0..40_000).collect());
    let clause =
        Clause { field: Field::Attribute("experiment_id"), comparator: Comparator::In, operand: many };
    let refused = store
        .read(move |conn| Box::pin(async move { conn.search_runs(&search(vec![clause], vec![])).await }))
        .await;
    assert!(matches!(&refused, Err(StoreError::Invalid { why, .. }) if why.contains("40003")), "{refused:?}");
}
