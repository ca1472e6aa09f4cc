//! What went back for a fault of its own stays out, whatever it is registered as.

use super::{Agent, Bench, manifest, plain};
use crate::ControlError;
use lockgate_core::actor::{ActorKind, Via};
use lockgate_core::entry::ResourceKind;

#[tokio::test]
async fn a_nightly_retrain_of_the_same_bytes_is_quarantined_and_only_a_person_lifts_that() {
    let bench = Bench::new(true).await;
    let mut staging = Agent::new(&bench, "staging").await;
    let good = bench.release(&plain(1)).await;
    staging.confirm(&good).await;
    let bad = bench.release(&manifest(2, "monday", "faulty")).await;
    staging.bring(&bad).await;
    staging.broken.insert(bad);
    staging.go().await;
    assert_eq!(bench.serves("staging").await, Some(good));

    let again = bench.release(&manifest(3, "tuesday", "faulty")).await;
    let refused = bench.ask(&again, "staging").await.unwrap_err();
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    let mut wish = Bench::wish(&again, "staging");
    let plan = bench.control.plan(&bench.ana, &wish).await.unwrap();
    assert!(plan.obstacles.iter().any(|o| o.contains("quarantined")), "{:?}", plan.obstacles);

    wish.lift_quarantine = Some("  ".to_owned());
    let refused = bench.control.request_promotion(&bench.ana, &wish).await.unwrap_err();
    assert!(matches!(refused, ControlError::Invalid { .. }), "{refused}");

    wish.lift_quarantine = Some("the data were broken that night".to_owned());
    let robot = bench.control.actor(ActorKind::Service, "ci", Via::Token).await.unwrap();
    let refused = bench.control.request_promotion(&robot, &wish).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused(_)), "{refused}");

    let lifted = bench.control.request_promotion(&bench.ana, &wish).await.unwrap().id;
    let entries = bench.control.entries_of(ResourceKind::Promotion, lifted.as_str()).await.unwrap();
    assert_eq!(entries[0].reason, "quarantine lifted: the data were broken that night");
}

#[tokio::test]
async fn a_lift_is_recorded_only_where_something_was_lifted() {
    let bench = Bench::new(true).await;
    let release = bench.release(&plain(1)).await;
    let mut wish = Bench::wish(&release, "staging");
    wish.lift_quarantine = Some("just in case".to_owned());
    let id = bench.control.request_promotion(&bench.ana, &wish).await.unwrap().id;
    let entries = bench.control.entries_of(ResourceKind::Promotion, id.as_str()).await.unwrap();
    assert_eq!(entries[0].reason, "");
}
