//! What verification says, and which promotion brought a prediction.

use super::{Agent, Bench, plain};
use crate::ControlError;
use lockgate_core::promotion::Stage;

#[tokio::test]
async fn a_name_that_is_not_the_committed_one_is_found() {
    let bench = Bench::new(true).await;
    bench.is_proven().await;
    // The person's name goes, what opens the commitments stays: that is no erasure.
    bench
        .store
        .write(|tx| {
            Box::pin(async move {
                tx.erase("ana@example.org", "\"somebody else\"").await.map_err(ControlError::from)
            })
        })
        .await
        .unwrap();
    let view = bench.control.verify_audit(&bench.ana).await.unwrap();
    assert!(view.chain_ok && !view.tables_ok);
    assert!(view.problem.unwrap().contains("without being erased"));
    bench
        .store
        .write(|tx| {
            Box::pin(async move {
                tx.erase("ana@example.org", "\"ana@example.org\"").await.map_err(ControlError::from)
            })
        })
        .await
        .unwrap();
    let view = bench.control.verify_audit(&bench.ana).await.unwrap();
    assert!(view.tables_ok, "an erased person leaves nothing to compare: {:?}", view.problem);
}

#[tokio::test]
async fn a_database_that_fails_is_no_broken_chain() {
    let bench = Bench::new(true).await;
    bench.store.close().await;
    assert!(matches!(bench.control.verify_audit(&bench.ana).await, Err(ControlError::Store(_))));
    assert!(matches!(bench.control.rebuild(&bench.ana).await, Err(ControlError::Store(_))));
}

#[tokio::test]
async fn a_prediction_is_traced_to_the_promotion_that_brought_its_revision() {
    let bench = Bench::new(true).await;
    let mut staging = Agent::new(&bench, "staging").await;
    let release = bench.release(&plain(1)).await;
    let brought = staging.confirm(&release).await;
    let at = super::NOON + 3_000_000;
    // Asked for later and replaced before it rolled; and one of another configuration.
    let mut replaced = bench.promotion(&brought).await;
    (replaced.moved, replaced.entered) = (None, None);
    replaced.id = format!("pr_{:026}", 1).parse().unwrap();
    replaced.stage = Stage::Superseded { by: brought.clone() };
    replaced.created += 1;
    let mut other = bench.promotion(&brought).await;
    other.id = format!("pr_{:026}", 2).parse().unwrap();
    other.plan.revision.configuration = lockgate_core::digest::Digest::of(b"another configuration");
    other.moved = other.moved.map(|m| m + 1);
    let mut later = bench.promotion(&brought).await;
    later.id = format!("pr_{:026}", 3).parse().unwrap();
    later.moved = Some(at + 1);
    let revision = bench.promotion(&brought).await.plan.revision.digest();
    let row = serde_json::json!({ "revision": revision.to_string(), "at_ms": at });
    let all = [replaced, other, later, bench.promotion(&brought).await];
    let found = crate::trace::brought(&all, &super::place("staging"), &row).unwrap();
    assert_eq!(found.id, brought);
    assert!(crate::trace::brought(&all, &super::place("production"), &row).is_none());
}
