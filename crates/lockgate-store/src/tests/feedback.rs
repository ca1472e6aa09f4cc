//! What is said of predictions.

use crate::feedback::{Drawn, Feedback, Kept, Said};
use crate::testing::{Bench, NOON, both_engines};

fn drawn(id: &str, promotion: &str, at: i64) -> Drawn {
    Drawn {
        id: id.to_owned(),
        promotion: promotion.to_owned(),
        weight: 5_000,
        candidate: id.ends_with('c'),
        answered: true,
        unit: u64::MAX - 3,
        at,
    }
}

fn said(prediction: &str, name: &str, value: Said) -> Feedback {
    Feedback { prediction: prediction.to_owned(), name: name.to_owned(), value, at: NOON }
}

both_engines! {
    async fn the_first_value_of_a_name_stands(bench: Bench) {
        let store = bench.open().await;
        let say = |one: Feedback| store.write(move |tx| Box::pin(async move { tx.say(&one).await }));
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

    async fn a_rollout_finds_what_was_said_of_its_predictions_in_order(bench: Bench) {
        let store = bench.open().await;
        let written = store.write(|tx| Box::pin(async move {
            for one in [drawn("2c", "pr_1", 2), drawn("1b", "pr_1", 1), drawn("3c", "pr_2", 3), drawn("1b", "pr_9", 9)] {
                tx.draw(&one).await?;
            }
            for id in ["3c", "2c", "other", "1b"] {
                tx.say(&said(id, "outcome", Said::Number(0.5))).await?;
            }
            Ok::<_, crate::StoreError>(())
        }));
        written.await.unwrap();
        let (all, of, one, kept) = store
            .read(|conn| Box::pin(async move {
                let (all, of) = (conn.drawn_for("pr_1").await?, conn.feedback_for("pr_1").await?);
                Ok::<_, crate::StoreError>((all, of, conn.drawn("3c").await?, conn.drawn_promotions().await?))
            }))
            .await
            .unwrap();
        assert_eq!(all, [drawn("1b", "pr_1", 1), drawn("2c", "pr_1", 2)]);
        assert_eq!(of.iter().map(|f| f.prediction.as_str()).collect::<Vec<_>>(), ["2c", "1b"]);
        assert_eq!((one, kept), (Some(drawn("3c", "pr_2", 3)), vec!["pr_1".to_owned(), "pr_2".to_owned()]));
        store.write(|tx| Box::pin(async move { tx.forget_drawn("pr_1").await })).await.unwrap();
        let left = store.read(|conn| Box::pin(async move { conn.drawn_for("pr_1").await })).await.unwrap();
        assert_eq!(left, []);
    }
}
