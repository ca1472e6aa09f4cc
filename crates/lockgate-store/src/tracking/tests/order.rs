//! Orders, and the indexes behind them; the age of the first experiment.

use super::*;
use crate::Store;

both_engines! {
    async fn datasets_come_in_the_order_in_which_they_were_logged(bench: Bench) {
        let store = four_runs(&bench).await;
        let input = |name: &str| DatasetInput {
            dataset: Dataset { name: name.into(), digest: "1".into(), source_type: "s".into(), source: "x".into(), schema: None, profile: None },
            tags: vec![pair("z", "1"), pair("a", "2")],
        };
        let logged = [("a", "zyxakb"), ("b", "kx"), ("a", "zc"), ("b", "az")];
        let runs = store.write(move |tx| Box::pin(async move {
            for (run, names) in logged {
                let run = tx.run_row(run).await?.unwrap();
                for name in names.chars() {
                    tx.log_dataset(&run, &format!("{}{name}", run.run_id), &input(&name.to_string())).await?;
                }
            }
            Ok::<_, StoreError>((tx.run("a").await?.unwrap(), tx.run("b").await?.unwrap()))
        })).await.unwrap();
        let names = |run: &Run| run.datasets.iter().map(|d| d.dataset.name.as_str()).collect::<String>();
        assert_eq!((names(&runs.0).as_str(), names(&runs.1).as_str()), ("zyxakbc", "kxaz"));
        assert_eq!(runs.0.datasets[0].tags, [pair("a", "2"), pair("z", "1")]);
    }

    async fn the_first_experiment_is_as_old_as_its_database(bench: Bench) {
        for now in [NOON, NOON + 5] {
            bench.clock.set(now);
            let store = bench.open().await;
            let first = store.read(|conn| Box::pin(async move { conn.experiment(0).await })).await.unwrap().unwrap();
            assert_eq!((first.created, first.updated), (NOON, 0));
            store.close().await;
        }
    }

    async fn the_first_experiment_of_an_older_database_is_as_old_as_its_first_run(bench: Bench) {
        let store = four_runs(&bench).await;
        store.close().await;
        bench.tamper("UPDATE experiments SET created = 0").await;
        bench.clock.set(NOON + 9);
        let store = bench.open().await;
        let first = store.read(|conn| Box::pin(async move { conn.experiment(0).await })).await.unwrap().unwrap();
        assert_eq!(first.created, NOON);
    }
}

/// How SQLite goes about a search.
async fn plan(
    store: &Store,
    search: impl FnOnce(&Conn) -> Result<crate::conn::Query, StoreError> + Send + 'static,
) -> Vec<String> {
    let planned = store.read(|conn| {
        Box::pin(async move {
            let mut plan = search(conn)?;
            plan.sql = format!("EXPLAIN QUERY PLAN {}", plan.sql).into();
            let rows = conn.fetch_all(plan).await?;
            rows.iter().map(|row| crate::conn::text(row, "detail")).collect::<Result<Vec<_>, _>>()
        })
    });
    planned.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_order_of_a_metric_only_those_runs_are_read_that_meet_the_conditions() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let is = |field, operand| Clause { field, comparator: Comparator::Eq, operand };
    let conditions = vec![
        is(Field::Attribute("experiment_id"), Operand::Int(0)),
        is(Field::Param("p".into()), Operand::Text("x".into())),
        is(Field::Metric("m".into()), Operand::Real(1.0)),
    ];
    let by = Order { field: Field::Metric("o".into()), ascending: true, dataset: None };
    let wanted = search(conditions, vec![by]);
    let plan = plan(&store, move |conn| Ok(conn.ranked(&entity::RUNS, &wanted)?.unwrap())).await;
    let place = |what: &str| {
        plan.iter().position(|step| step.contains(what)).unwrap_or_else(|| panic!("{what}: {plan:?}"))
    };
    assert!(place("COVERING INDEX latest_metrics_rank") < place("SEARCH s USING PRIMARY KEY"), "{plan:?}");
    assert!(place("SEARCH s USING PRIMARY KEY") < place("SEARCH t USING"), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_come_from_an_index_however_many_there_are() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let is = |name, operand| Clause { field: Field::Attribute(name), comparator: Comparator::Eq, operand };
    let newest = |name| Order { field: Field::Attribute(name), ascending: false, dataset: None };
    let of = is("experiment_id", Operand::Int(0));
    let active = is("lifecycle", Operand::Text("active".to_owned()));
    let named = is("run_name", Operand::Text("x".to_owned()));
    let long = is("run_name", Operand::Text("x".repeat(entity::INDEXED + 1)));
    for (entity, search, index) in [
        (&entity::RUNS, search(vec![of.clone(), active.clone()], vec![newest("start_time")]), "runs_newest"),
        (&entity::RUNS, search(vec![of.clone(), active.clone(), named.clone()], vec![]), "runs_named"),
        (
            &entity::RUNS,
            search(vec![of.clone(), active.clone(), named], vec![newest("start_time")]),
            "runs_named",
        ),
        (&entity::RUNS, search(vec![of.clone(), active, long], vec![]), "runs_newest"),
        (
            &entity::LOGGED_MODELS,
            search(vec![of.clone()], vec![newest("creation_timestamp")]),
            "logged_models_newest",
        ),
        (&entity::TRACES, search(vec![of], vec![newest("timestamp_ms")]), "traces_newest"),
    ] {
        let plan = plan(&store, move |conn| conn.general(entity, &search)).await;
        assert!(plan[0].contains(index), "{}: {plan:?}", entity.name);
        assert!(!plan.iter().any(|step| step.ends_with("FOR ORDER BY")), "{}: {plan:?}", entity.name);
    }
}
