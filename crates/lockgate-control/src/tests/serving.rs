//! What serves is what the agent's reports say.

use super::{Agent, Bench, plain};
use crate::states;
use lockgate_core::actor::{ActorKind, Via};
use lockgate_core::digest::Digest;
use lockgate_core::event::InstructionKind;
use lockgate_store::StateRow;

/// A bench with releases that staging has, and production's agent.
async fn staged(bench: &Bench, releases: u64) -> Vec<Digest> {
    let mut staging = Agent::new(bench, "staging").await;
    let mut made = Vec::new();
    for version in 1..=releases {
        let digest = bench.release(&plain(version)).await;
        staging.confirm(&digest).await;
        made.push(digest);
    }
    made
}

#[tokio::test]
async fn what_was_replaced_on_probation_serves_again_when_its_successor_goes_back() {
    let bench = Bench::new(true).await;
    let v = staged(&bench, 4).await;
    let mut agent = Agent::new(&bench, "production").await;
    let first = agent.confirm(&v[0]).await;
    let second = agent.bring(&v[1]).await;
    let third = agent.bring(&v[2]).await;
    assert_eq!(bench.stage(&second).await, "superseded");
    agent.broken.insert(v[2]);
    agent.go().await;
    assert_eq!(bench.stage(&third).await, "rolled-back");
    assert_eq!(bench.serves("production").await, Some(v[1]));
    assert_eq!(bench.stage(&second).await, "confirmed", "it is what the environment serves");

    // A new plan is measured against what serves, and the agent takes it.
    let plan = bench.control.plan(&bench.ana, &Bench::wish(&v[3], "production")).await.unwrap();
    assert_eq!(plan.plan.baseline.as_ref().map(|b| b.release), Some(v[1]));
    let fourth = agent.bring(&v[3]).await;
    let back = bench.control.rollback(&bench.ana, &super::place("production"), None, "no").await.unwrap();
    assert_eq!(back.id, fourth);
    agent.go().await;
    assert_eq!((bench.stage(&fourth).await, bench.serves("production").await), ("rolled-back", Some(v[1])));

    // And it can be told to go back itself: to the backup, for there is nothing further.
    let back = bench.control.rollback(&bench.ana, &super::place("production"), None, "no").await.unwrap();
    assert_eq!(back.id, second);
    agent.go().await;
    assert_eq!((bench.stage(&second).await, bench.serves("production").await), ("rolled-back", None));

    let refused =
        bench.control.instruct(&bench.ana, &first, InstructionKind::Rollback, "").await.unwrap_err();
    assert!(refused.to_string().contains("does not serve"), "{refused}");
    bench.is_proven().await;
}

#[tokio::test]
async fn a_report_that_comes_late_leads_to_the_same() {
    let bench = Bench::new(true).await;
    let v = staged(&bench, 3).await;
    let mut agent = Agent::new(&bench, "production").await;
    agent.confirm(&v[0]).await;
    let second = agent.bring(&v[1]).await;
    let third = bench.ask(&v[2], "production").await.unwrap().id;
    agent.fetch().await;
    bench.pass(1000);
    agent.look();
    bench.pass(1000);
    agent.look();
    agent.broken.insert(v[2]);
    agent.look();
    agent.report().await.unwrap();
    assert_eq!((bench.stage(&second).await, bench.stage(&third).await), ("confirmed", "rolled-back"));
    assert_eq!(bench.serves("production").await, Some(v[1]));
    bench.is_proven().await;
}

#[tokio::test]
async fn after_two_rollbacks_the_backup_serves_and_a_new_release_comes_in() {
    let bench = Bench::new(true).await;
    let v = staged(&bench, 4).await;
    let mut agent = Agent::new(&bench, "production").await;
    for release in &v[..3] {
        agent.confirm(release).await;
    }
    for left in [Some(v[1]), None] {
        bench.control.rollback(&bench.ana, &super::place("production"), None, "").await.unwrap();
        agent.go().await;
        assert_eq!(bench.serves("production").await, left, "never what served long ago");
    }
    let nothing =
        bench.control.rollback(&bench.ana, &super::place("production"), None, "").await.unwrap_err();
    assert!(nothing.to_string().contains("serves nothing"), "{nothing}");
    let plan = bench.control.plan(&bench.ana, &Bench::wish(&v[3], "production")).await.unwrap();
    assert_eq!(plan.plan.baseline, None);
    agent.bring(&v[3]).await;
    assert_eq!(bench.serves("production").await, Some(v[3]));
    bench.is_proven().await;
}

#[tokio::test]
async fn a_rollback_to_nothing_is_refused_at_once() {
    let bench = Bench::new(false).await;
    let v = staged(&bench, 1).await;
    let mut agent = Agent::new(&bench, "production").await;
    let only = agent.confirm(&v[0]).await;
    let refused = bench.control.rollback(&bench.ana, &super::place("production"), None, "").await;
    assert!(refused.unwrap_err().to_string().contains("nothing that `production` could go back to"));
    assert!(bench.promotion(&only).await.instructions.is_empty(), "nothing is left that would come later");
}

#[tokio::test]
async fn a_promotion_that_was_replaced_before_it_rolled_has_not_passed() {
    let bench = Bench::new(true).await;
    let (old, new) = (bench.release(&plain(1)).await, bench.release(&plain(2)).await);
    let replaced = bench.ask(&old, "review").await.unwrap().id;
    let waits = bench.ask(&new, "review").await.unwrap().id;
    assert_eq!(
        (bench.stage(&replaced).await, bench.stage(&waits).await),
        ("superseded", "awaiting-approval")
    );
    let refused = bench.ask(&old, "live").await.unwrap_err();
    assert!(refused.to_string().contains("has not passed `review`"), "{refused}");
    // One that was replaced after it had entered has.
    let ben = bench.control.actor(ActorKind::User, "ben@example.org", Via::Loopback).await.unwrap();
    let hash = bench.promotion(&waits).await.plan_hash;
    bench.control.approve(&ben, &waits, hash).await.unwrap();
    let mut review = Agent::new(&bench, "review").await;
    for _ in 0..2 {
        bench.pass(1000);
        review.go().await;
    }
    assert_eq!(bench.stage(&waits).await, "probation");
    bench.ask(&new, "live").await.unwrap();
}

#[tokio::test]
async fn only_what_waits_is_looked_at_again_and_again() {
    let bench = Bench::new(true).await;
    staged(&bench, 2).await;
    let due = bench.store.read(|conn| Box::pin(async move { states::due(conn, i64::MAX).await })).await;
    assert!(due.unwrap().is_empty(), "what is confirmed waits for nothing");
    // One that ended and can't even be read any more does not hurt those that wait.
    let broken = StateRow {
        stage: "confirmed".to_owned(),
        ..StateRow::new("Promotion", "pr_old", &"no promotion").unwrap()
    };
    let kept = bench.control.write(move |tx| Box::pin(async move { Ok(tx.save_state(broken).await?) }));
    kept.await.unwrap();
    bench.control.reconcile().await.unwrap();
}
