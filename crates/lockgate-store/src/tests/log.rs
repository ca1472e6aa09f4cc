//! The event log: appending, reading, agents' reports, and every kind of forgery.

use crate::error::StoreError;
use crate::store::Store;
use crate::testing::{Bench, NOON, both_engines, note};
use crate::verify::VerifyError;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{ChainError, GENESIS, ResourceKind, Source};

async fn fill(store: &Store, count: i64) {
    store
        .write(move |tx| {
            Box::pin(async move {
                for n in 0..count {
                    tx.append(note(&format!("p{}", n % 3), "why"), &format!("id{n}"), NOON + n * 1000)
                        .await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .await
        .unwrap();
}

fn reported(seq: u64, content: &str) -> crate::log::NewEntry {
    let agent = "production".parse().unwrap();
    let source =
        Source { agent, seq, leaf: Digest::of(content.as_bytes()), ts: "2026-11-24T11:00:00Z".to_owned() };
    crate::log::NewEntry { source: Some(source), ..note("p1", content) }
}

async fn report(
    store: &Store,
    seq: u64,
    content: &'static str,
    id: &'static str,
) -> Result<bool, StoreError> {
    let work = store.write(move |tx| {
        Box::pin(async move {
            tx.append_once(reported(seq, content), id, NOON).await.map(|entry| entry.is_some())
        })
    });
    work.await
}

both_engines! {
    async fn entries_are_numbered_linked_and_read_back(bench: Bench) {
        let store = bench.open().await;
        assert_eq!(store.verify().await.unwrap().head, GENESIS);
        fill(&store, 1200).await;
        let verified = store.verify().await.unwrap();
        assert_eq!(verified.count, 1200);
        store.read(move |conn| Box::pin(async move {
            assert_eq!(conn.head().await?.chain, verified.head);
            let page = conn.entries(1195, 100).await?;
            assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), [1195, 1196, 1197, 1198, 1199]);
            let about = conn.entries_for(ResourceKind::Promotion, "p1", 5, 2).await?;
            assert_eq!(about.iter().map(|e| e.seq).collect::<Vec<_>>(), [7, 10]);
            assert_eq!(about[0].resource.id, "p1");
            assert_eq!(about[0].at(), NOON + 7000);
            assert!(conn.entries_for(ResourceKind::Release, "p1", 0, 9).await?.is_empty());
            assert_eq!(conn.entries_in("parcels", None, 0, 9).await?.len(), 9);
            assert_eq!(conn.entries_in("parcels", Some("production"), 1199, 9).await?.len(), 1);
            assert!(conn.entries_in("parcels", Some("staging"), 0, 9).await?.is_empty());
            Ok::<_, StoreError>(())
        })).await.unwrap();
    }

    async fn the_log_as_it_stood_ends_before_the_first_later_entry(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            // The clock is put back between the third and the fourth entry.
            for (n, at) in [10, 20, 30, 15].into_iter().enumerate() {
                tx.append(note("p", ""), &format!("id{n}"), at).await?;
            }
            Ok::<_, StoreError>(())
        })).await.unwrap();
        for (at, expected) in [(9, 0), (10, 1), (29, 2), (30, 4), (i64::MAX, 4)] {
            let found = store.read(move |conn| Box::pin(async move { conn.entries_until(at, 0, 9).await })).await;
            assert_eq!(found.unwrap().len(), expected, "at {at}");
        }
    }

    async fn an_agents_report_is_appended_once(bench: Bench) {
        let store = bench.open().await;
        assert!(report(&store, 4, "started", "a").await.unwrap());
        assert!(!report(&store, 4, "started", "b").await.unwrap());
        let forked = report(&store, 4, "something else", "c").await.unwrap_err();
        assert_eq!(forked, StoreError::Forked { agent: "production".to_owned(), seq: 4 });
        assert!(report(&store, 7, "promoted", "d").await.unwrap());
        let last = store.read(|conn| Box::pin(async move {
            Ok::<_, StoreError>((conn.last_source_seq("production").await?, conn.last_source_seq("staging").await?))
        })).await.unwrap();
        assert_eq!(last, (Some(7), None));
        let leaves = store.read(|conn| Box::pin(async move {
            Ok::<_, StoreError>((conn.source_leaf("production", 4).await?, conn.source_leaf("production", 5).await?, conn.source_leaf("x", u64::MAX).await?))
        })).await.unwrap();
        assert!(leaves.0.is_some() && (leaves.1, leaves.2) == (None, None));
        assert_eq!(store.verify().await.unwrap().count, 2);
        let huge = report(&store, u64::MAX, "x", "e").await.unwrap_err();
        assert!(matches!(huge, StoreError::Invalid { .. }), "{huge}");
        let without = store.write(|tx| Box::pin(async move { tx.append_once(note("p", ""), "f", 0).await })).await;
        assert!(matches!(without, Err(StoreError::Invalid { .. })));
    }

    async fn hostile_texts_are_refused_or_kept_as_they_are(bench: Bench) {
        let store = bench.open().await;
        let strange = "'; DROP TABLE entries; -- \u{202e}\u{1F600}\n\"\\";
        store.write(move |tx| Box::pin(async move { tx.append(note(strange, strange), strange, 0).await })).await.unwrap();
        let read = store.read(move |conn| Box::pin(async move {
            conn.entries_for(ResourceKind::Promotion, strange, 0, 9).await
        })).await.unwrap();
        assert_eq!((read[0].reason.as_str(), read[0].id.as_str()), (strange, strange));
        for new in [note("a\0b", ""), note("p", "")] {
            let id = if new.resource.id == "p" { "i\0d" } else { "id" };
            let refused = store.write(move |tx| Box::pin(async move { tx.append(new, id, 0).await })).await;
            assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
        }
        let kept = store.write(|tx| Box::pin(async move { tx.append(note("p", "a\0b"), "nul-in-reason", 0).await })).await;
        assert_eq!(kept.unwrap().reason, "a\0b");
        assert_eq!(store.verify().await.unwrap().count, 2);
    }

    async fn an_id_is_used_once(bench: Bench) {
        let store = bench.open().await;
        fill(&store, 2).await;
        let again = store.write(|tx| Box::pin(async move { tx.append(note("p", ""), "id1", 0).await })).await;
        assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
        fill_more(&store).await;
        assert_eq!(store.verify().await.unwrap().count, 3);
    }

    async fn every_forgery_is_found(bench: Bench) {
        let store = bench.open().await;
        fill(&store, 40).await;
        let swap = "UPDATE entries SET seq = 1000 WHERE seq = 5; UPDATE entries SET seq = 5 WHERE seq = 6; \
                    UPDATE entries SET seq = 6 WHERE seq = 1000";
        let edit = "UPDATE entries SET text = replace(text, '\"why\"', '\"lie\"') WHERE seq = 7";
        let cases: [(&str, &str, VerifyError); 4] = [
            (edit, "UPDATE entries SET text = replace(text, '\"lie\"', '\"why\"')", ChainError::Leaf(7).into()),
            (swap, swap, ChainError::Link(5).into()),
            ("UPDATE entries SET action = 'x' WHERE seq = 9", "UPDATE entries SET action = 'promotion:note'", VerifyError::Columns(9)),
            ("UPDATE head SET next = 39", "UPDATE head SET next = 40", VerifyError::End { recorded: 39, found: 40 }),
        ];
        for (forge, undo, expected) in cases {
            bench.tamper(forge).await;
            assert_eq!(store.verify().await.unwrap_err(), expected, "{forge}");
            bench.tamper(undo).await;
            assert_eq!(store.verify().await.unwrap().count, 40, "{undo}");
        }
        bench.tamper("DELETE FROM entries WHERE seq = 12").await;
        assert_eq!(store.verify().await.unwrap_err(), ChainError::Gap { expected: 12, found: 13 }.into());
    }

    async fn a_cut_tail_and_a_recomputed_entry_are_found(bench: Bench) {
        let store = bench.open().await;
        fill(&store, 5).await;
        let rows = store.read(|conn| Box::pin(async move { conn.entries(0, 9).await })).await.unwrap();
        let text = rows[2].text.replace("\"why\"", "\"lie\"");
        assert_ne!(text, rows[2].text);
        // A forger who recomputes the leaf breaks the chain.
        bench.tamper(&format!("UPDATE entries SET text = '{text}', leaf = '{}' WHERE seq = 2", lockgate_core::entry::leaf(&text))).await;
        assert_eq!(store.verify().await.unwrap_err(), ChainError::Link(2).into());
        bench.tamper(&format!("UPDATE entries SET text = '{}', leaf = '{}' WHERE seq = 2", rows[2].text, rows[2].leaf)).await;
        bench.tamper("DELETE FROM entries WHERE seq >= 3").await;
        assert_eq!(store.verify().await.unwrap_err(), VerifyError::End { recorded: 5, found: 3 });
        bench.tamper("UPDATE head SET next = 3").await;
        assert_eq!(store.verify().await.unwrap_err(), VerifyError::Head);
    }

    async fn a_changed_entry_is_not_given_out(bench: Bench) {
        let store = bench.open().await;
        fill(&store, 3).await;
        bench.tamper("UPDATE entries SET text = replace(text, 'why', 'lie') WHERE seq = 1").await;
        let read = store.read(|conn| Box::pin(async move { conn.entries_for(ResourceKind::Promotion, "p1", 0, 9).await }));
        assert_eq!(read.await.unwrap_err(), ChainError::Leaf(1).into());
    }
}

async fn fill_more(store: &Store) {
    let more = store.write(|tx| Box::pin(async move { tx.append(note("p", "more"), "more", NOON).await }));
    assert_eq!(more.await.unwrap().seq, 2);
}
