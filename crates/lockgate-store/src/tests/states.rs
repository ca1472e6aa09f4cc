//! Derived tables: filters, and rebuilding them from the log byte for byte.

use crate::error::StoreError;
use crate::rebuild::RebuildError;
use crate::states::{StateFilter, StateRow, States};
use crate::store::Store;
use crate::testing::{Bench, NOON, both_engines, note};
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Entry, Source};

/// The pure fold of these tests: each entry appends its reason to its resource's state.
fn next(old: Option<&StateRow>, entry: &Entry) -> Result<StateRow, StoreError> {
    let mut reasons: Vec<String> = old.map_or_else(Vec::new, |row| serde_json::from_str(&row.state).unwrap());
    reasons.push(entry.reason.clone());
    let row = StateRow::new("promotion", &entry.resource.id, &reasons)?;
    Ok(StateRow {
        project: "parcels".to_owned(),
        environment: "production".to_owned(),
        stage: entry.reason.clone(),
        seq: entry.seq,
        created: old.map_or(entry.at(), |row| row.created),
        ..row
    })
}

fn fold(entry: &Entry, states: &mut States) -> Result<(), String> {
    let row = next(states.load("promotion", &entry.resource.id), entry).map_err(|e| e.to_string())?;
    states.save(row);
    Ok(())
}

async fn act(store: &Store, n: u64) {
    let work = store.write(move |tx| {
        Box::pin(async move {
            let resource = format!("p{}", n % 7);
            let reason = ["gates", "approved", "done \u{e9}\n"][usize::try_from(n % 3).unwrap()];
            let mut new = note(&resource, reason);
            if n.is_multiple_of(5) {
                let leaf = Digest::of(b"x");
                new.source =
                    Some(Source { agent: "production".parse().unwrap(), seq: n, leaf, ts: String::new() });
            }
            let entry = tx.append(new, &format!("id{n}"), NOON + i64::try_from(n).unwrap()).await?;
            let old = tx.load_state("promotion", &resource).await?;
            tx.save_state(next(old.as_ref(), &entry)?).await
        })
    });
    work.await.unwrap();
}

both_engines! {
    async fn a_rebuild_gives_the_same_bytes(bench: Bench) {
        let store = bench.open().await;
        for n in 0..60 {
            act(&store, n).await;
        }
        let before = store.dump_states().await.unwrap();
        assert_eq!(before.lines().count(), 7);
        let compared = store.compare_states(fold).await.unwrap();
        assert_eq!((compared.log.count, compared.differences.len()), (60, 0));
        let rebuilt = store.rebuild(fold).await.unwrap();
        assert_eq!((rebuilt.log.count, rebuilt.differences.len()), (60, 0));
        assert_eq!(store.dump_states().await.unwrap(), before);

        bench.tamper("DELETE FROM sources; DELETE FROM aggregates WHERE id = 'p1'; UPDATE aggregates SET stage = 'done' WHERE id = 'p2'").await;
        let keys = |ids: [&str; 2]| ids.map(|id| ("promotion".to_owned(), id.to_owned())).to_vec();
        assert_eq!(store.compare_states(fold).await.unwrap().differences, keys(["p1", "p2"]));
        assert_ne!(store.dump_states().await.unwrap(), before, "comparing changes nothing");
        assert_eq!(store.rebuild(fold).await.unwrap().differences, keys(["p1", "p2"]));
        assert_eq!(store.dump_states().await.unwrap(), before);
        let last = store.read(|conn| Box::pin(async move { conn.last_source_seq("production").await })).await;
        assert_eq!(last.unwrap(), Some(55), "the agents' numbers are rebuilt too");
    }

    async fn a_rebuild_that_fails_changes_nothing(bench: Bench) {
        let store = bench.open().await;
        for n in 0..9 {
            act(&store, n).await;
        }
        let before = store.dump_states().await.unwrap();
        let failing = |entry: &Entry, _: &mut States| if entry.seq == 4 { Err("no".to_owned()) } else { Ok(()) };
        let error = store.rebuild(failing).await.unwrap_err();
        assert_eq!(error, RebuildError::Fold { seq: 4, why: "no".to_owned() });
        bench.tamper("UPDATE entries SET chain = leaf WHERE seq = 6").await;
        assert!(matches!(store.rebuild(fold).await, Err(RebuildError::Log(_))));
        assert_eq!(store.dump_states().await.unwrap(), before);
    }

    async fn states_are_found_by_their_columns_page_by_page(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            for n in 0..20_i64 {
                let row = StateRow::new("promotion", &format!("p{n:02}"), &n)?;
                tx.save_state(StateRow {
                    project: "parcels".to_owned(),
                    environment: if n < 10 { "staging" } else { "production" }.to_owned(),
                    model: if n % 2 == 0 { "delay" } else { "price" }.to_owned(),
                    stage: "gates".to_owned(),
                    created: n / 4,
                    ..row
                }).await?;
            }
            tx.save_state(StateRow::new("release", "p00", &"other kind")?).await
        })).await.unwrap();
        let ids = |filter: StateFilter| {
            let store = store.clone();
            async move {
                let rows = store.read(move |conn| Box::pin(async move { conn.states(&filter).await })).await.unwrap();
                rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
            }
        };
        let every = StateFilter::kind("promotion");
        assert_eq!(ids(every.clone()).await.len(), 20);
        let some = StateFilter { environment: Some("production".to_owned()), model: Some("delay".to_owned()), ..every.clone() };
        assert_eq!(ids(some.clone()).await, ["p10", "p12", "p14", "p16", "p18"]);
        assert_eq!(ids(StateFilter { after: Some((3, "p14".to_owned())), limit: 1, ..some.clone() }).await, ["p16"]);
        assert!(ids(StateFilter { stage: Some("done".to_owned()), ..some.clone() }).await.is_empty());
        assert!(ids(StateFilter { limit: 0, ..some }).await.is_empty());
        let replaced = store.write(|tx| Box::pin(async move {
            tx.save_state(StateRow::new("promotion", "p00", &"new")?).await?;
            tx.load_state("promotion", "p00").await
        })).await.unwrap().unwrap();
        assert_eq!((replaced.state.as_str(), replaced.stage.as_str()), ("\"new\"", ""));
    }
}
