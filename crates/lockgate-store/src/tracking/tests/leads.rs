//! Searches that begin with what is beside a run find what others find, and only look at few.

use super::*;
use crate::Store;

/// More runs than a search looks at one by one: all share a param, few another and a tag; one metric of four is NaN, one missing.
async fn many_runs(bench: &Bench) -> Store {
    let store = bench.open().await;
    let filled = store.write(|tx| {
        Box::pin(async move {
            for i in 0..1_100_i32 {
                let id = format!("r{i}");
                tx.insert_run(&new_run(&id, NOON + i64::from(i / 3))).await?;
                tx.insert_params(&id, &[&pair("common", "x")]).await?;
                if i % 200 == 7 {
                    tx.insert_params(&id, &[&pair("rare", "y")]).await?;
                    tx.set_run_tags(&id, &[pair("mlflow.parentRunId", "r1")]).await?;
                    tx.set_run_tags(&id, &[pair("long", &"z".repeat(entity::INDEXED + 1))]).await?;
                }
                let value = if i % 4 == 3 { f64::NAN } else { f64::from(i % 550) };
                if i % 4 != 1 {
                    tx.log_metrics(0, &id, &[point("m", value, 0)]).await?;
                }
            }
            Ok::<_, StoreError>(())
        })
    });
    filled.await.unwrap();
    store
}

both_engines! {
    async fn the_ways_of_a_search_lead_to_the_same_runs(bench: Bench) {
        let store = many_runs(&bench).await;
        let of = clause(Field::Attribute("experiment_id"), Comparator::Eq, Operand::Int(0));
        let param = |key: &str, text: &str| clause(Field::Param(key.into()), Comparator::Eq, words(text));
        let tag = |key: &str, text: &str| clause(Field::Tag(key.into()), Comparator::Eq, words(text));
        let metric = |comparator, value| clause(Field::Metric("m".into()), comparator, Operand::Real(value));
        let by = |field, ascending| vec![Order { field, ascending, dataset: None }];
        let orders = [vec![], by(Field::Metric("m".into()), true), by(Field::Metric("m".into()), false), by(Field::Param("rare".into()), true)];
        for (conditions, narrow) in [
            (vec![param("rare", "y")], true),
            (vec![param("common", "x"), tag("mlflow.parentRunId", "r1")], true),
            (vec![param("common", "x")], false),
            (vec![param("common", "y")], true),
            (vec![tag("long", &"z".repeat(entity::INDEXED + 1))], false),
            (vec![param("common", "x"), metric(Comparator::Lt, 9.5)], true),
            (vec![param("rare", "y"), metric(Comparator::Ge, 100.0), metric(Comparator::Lt, 400.0)], true),
            (vec![metric(Comparator::Ne, 6.0)], false),
            (vec![metric(Comparator::Eq, 6.0)], true),
        ] {
            for order in &orders {
                let clauses = std::iter::once(of.clone()).chain(conditions.clone()).collect();
                let wanted = search(clauses, order.clone());
                let (searched, general, led) = store.read({
                    let wanted = wanted.clone();
                    move |conn| Box::pin(async move {
                        let general = conn.general(&entity::RUNS, &wanted)?;
                        let led = conn.narrow(&entity::RUNS, &wanted).await?;
                        let found = conn.search(&entity::RUNS, &wanted).await?;
                        let ids = |rows: Vec<crate::conn::Row>| rows.iter().map(|row| crate::conn::text(row, "run_id")).collect::<Result<Vec<_>, _>>();
                        Ok::<_, StoreError>((ids(found)?, ids(conn.fetch_all(general).await?)?, led.is_some()))
                    })
                }).await.unwrap();
                assert_eq!(searched, general, "{wanted:?}");
                assert_eq!(led, narrow, "{wanted:?}");
            }
        }
    }
}
