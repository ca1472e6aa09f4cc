//! What is said of predictions.

use crate::feedback::{Drawn, Feedback, Kept, NAMES, Said};
use crate::place::Place;
use crate::testing::{Bench, NOON, both_engines};
use crate::{open, steps};

fn drawn(id: &str, promotion: &str, at: i64) -> Drawn {
    Drawn {
        id: id.to_owned(),
        promotion: promotion.to_owned(),
        weight: 5_000,
        candidate: id.ends_with('c'),
        answered: true,
        unit: u64::MAX - 3,
        at,
        noted: at + 1,
        kept: id.ends_with('c'),
    }
}

fn said(prediction: &str, name: &str, value: Said) -> Feedback {
    Feedback { prediction: prediction.to_owned(), name: name.to_owned(), value, at: NOON }
}

both_engines! {
    async fn the_first_value_of_a_name_stands(bench: Bench) {
        let store = bench.open().await;
        let say = |one: Feedback| {
            store.write(move |tx| Box::pin(async move {
                let next = tx.next_event().await?;
                tx.say(&one, next).await
            }))
        };
        let one = said("p1", "outcome", Said::Number(1.0));
        assert_eq!(say(one.clone()).await.unwrap(), Kept::New);
        assert_eq!(say(Feedback { at: NOON + 9, ..one.clone() }).await.unwrap(), Kept::Known(one.clone()));
        let other = say(said("p1", "outcome", Said::Number(0.0))).await.unwrap();
        assert_eq!(other, Kept::Other(one.clone()));
        let label = said("p1", "label", Said::Text("cat".to_owned()));
        assert_eq!(say(label.clone()).await.unwrap(), Kept::New);
        assert!(say(said("p1", "x", Said::Text("a\0".to_owned()))).await.is_err());
        let all = store.read(|conn| Box::pin(async move { conn.feedback_of("p1").await })).await.unwrap();
        assert_eq!(all, [label, one]);
    }

    async fn no_more_names_than_may_be_are_said_of_one_prediction(bench: Bench) {
        let store = bench.open().await;
        let say = |id: &'static str, name: String| {
            store.write(move |tx| Box::pin(async move {
                let next = tx.next_event().await?;
                tx.say(&said(id, &name, Said::Number(1.0)), next).await
            }))
        };
        for n in 0..NAMES {
            assert_eq!(say("p1", format!("n{n}")).await.unwrap(), Kept::New);
        }
        assert_eq!(say("p1", "more".to_owned()).await.unwrap(), Kept::Full);
        assert!(matches!(say("p1", "n0".to_owned()).await.unwrap(), Kept::Known(_)), "what was said stands");
        assert_eq!(say("p2", "more".to_owned()).await.unwrap(), Kept::New, "it is another prediction's own");
    }

    async fn a_rollout_finds_what_was_said_of_its_predictions_in_order_and_in_pages(bench: Bench) {
        let store = bench.open().await;
        let written = store.write(|tx| Box::pin(async move {
            assert_eq!(tx.next_event().await?, 0);
            let draws = [drawn("2c", "pr_1", 2), drawn("1b", "pr_1", 1), drawn("3c", "pr_2", 3), drawn("1b", "pr_9", 9)];
            for (seq, one) in (0..).zip(&draws) {
                tx.draw(one, seq).await?;
            }
            for (seq, id) in (4..).zip(["3c", "2c", "other", "1b"]) {
                tx.say(&said(id, "outcome", Said::Number(0.5)), seq).await?;
            }
            assert_eq!(tx.next_event().await?, 8);
            Ok::<_, crate::StoreError>(())
        }));
        written.await.unwrap();
        let (all, rest, of, one, kept) = store
            .read(|conn| Box::pin(async move {
                let (all, rest) = (conn.drawn_after("pr_1", i64::MIN, 9).await?, conn.drawn_after("pr_1", 0, 1).await?);
                let of = conn.feedback_after("pr_1", 0, 9).await?;
                assert_eq!(conn.feedback_after("pr_1", of[0].0, 1).await?, of[1..]);
                Ok::<_, crate::StoreError>((all, rest, of, conn.drawn("3c").await?, conn.drawn_promotions().await?))
            }))
            .await
            .unwrap();
        // By their numbers, not by their times.
        assert_eq!(all, [(0, drawn("2c", "pr_1", 2)), (1, drawn("1b", "pr_1", 1))]);
        assert_eq!(rest, all[1..]);
        assert_eq!(of.iter().map(|(seq, (f, _))| (*seq, f.prediction.as_str())).collect::<Vec<_>>(), [(5, "2c"), (7, "1b")]);
        assert_eq!(of[0].1, (said("2c", "outcome", Said::Number(0.5)), drawn("2c", "pr_1", 2)), "each has its own time");
        assert_eq!((one, kept), (Some(drawn("3c", "pr_2", 3)), vec!["pr_1".to_owned(), "pr_2".to_owned()]));
        let forget = |most| store.write(move |tx| Box::pin(async move { tx.forget_drawn("pr_1", most).await }));
        assert_eq!((forget(1).await.unwrap(), forget(9).await.unwrap(), forget(9).await.unwrap()), (1, 1, 0));
        let left = store.read(|conn| Box::pin(async move { conn.drawn_after("pr_1", i64::MIN, 9).await })).await.unwrap();
        assert_eq!(left, []);
    }

    async fn predictions_from_before_they_had_an_order_come_first_by_their_times(bench: Bench) {
        if bench.is_sqlite() {
            std::fs::create_dir_all(bench.folder().join("deep")).unwrap();
            std::fs::write(bench.file(), "").unwrap();
        }
        let place = Place::parse(&bench.url).unwrap();
        let mut connection = steps::migrate_to(&place, 15).await;
        let rows = "INSERT INTO drawn (id, promotion, weight, candidate, answered, unit, at) VALUES \
            ('b', 'pr_1', 5000, 1, 1, 7, 30), ('c', 'pr_1', 5000, 0, 1, 8, 10), ('a', 'pr_1', 5000, 0, 0, 9, 30)";
        connection.batch(&place, rows).await.unwrap();
        let said = "INSERT INTO feedback (prediction, name, number, at, seq) VALUES ('c', 'outcome', 1, 40, 0)";
        connection.batch(&place, said).await.unwrap();
        open::close(connection, &place).await.unwrap();
        let store = bench.open().await;
        let (drawn, said, next) = store
            .read(|conn| Box::pin(async move {
                let said = conn.feedback_after("pr_1", i64::MIN, 9).await?;
                Ok::<_, crate::StoreError>((conn.drawn_after("pr_1", i64::MIN, 9).await?, said, conn.next_event().await?))
            }))
            .await
            .unwrap();
        let order: Vec<_> = drawn.iter().map(|(seq, d)| (*seq, d.id.as_str(), d.noted, d.kept)).collect();
        assert_eq!(order, [(-3, "c", 10, true), (-2, "a", 30, true), (-1, "b", 30, true)]);
        assert_eq!((said.len(), said[0].0, next), (1, 0, 1));
    }

    async fn what_has_passed_is_forgotten_unless_it_is_needed_or_something_was_said_of_it(bench: Bench) {
        let store = bench.open().await;
        let written = store.write(|tx| Box::pin(async move {
            // Those that end in `c` are needed for longer.
            for (seq, one) in (0..).zip([drawn("1b", "pr_1", 1), drawn("2b", "pr_1", 2), drawn("3c", "pr_1", 3), drawn("4b", "pr_1", 4), drawn("5b", "pr_2", 1)]) {
                tx.draw(&one, seq).await?;
            }
            tx.say(&said("2b", "outcome", Said::Number(1.0)), 9).await?;
            Ok::<_, crate::StoreError>(())
        }));
        written.await.unwrap();
        let forget = |from, to| store.write(move |tx| Box::pin(async move { tx.forget_passed("pr_1", from..to, 10).await }));
        assert_eq!((forget(2, 4).await.unwrap(), forget(i64::MIN, 4).await.unwrap()), (0, 1));
        let left = store.read(|conn| Box::pin(async move { conn.drawn_after("pr_1", i64::MIN, 9).await })).await.unwrap();
        assert_eq!(left.iter().map(|(_, d)| d.id.as_str()).collect::<Vec<_>>(), ["2b", "3c", "4b"]);
    }
}
