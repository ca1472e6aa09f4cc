//! What is taken of a journal, what is only kept, and what is refused.

use super::{Agent, Bench, plain};
use crate::ControlError;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Effect, ResourceKind};
use lockgate_core::event::{Event, RolloutEvent, WorkerEvent};
use lockgate_core::id::PromotionId;

fn worker(worker: u32) -> Option<Event> {
    let (model, release) = (super::model(), Digest::of(b"r"));
    Some(Event::Worker(WorkerEvent::Back { model, release, worker, after_ms: 1 }))
}

fn note(agent: &mut Agent<'_>, n: u32) {
    let own = agent.environment.to_string();
    agent.note(ResourceKind::Environment, &own, worker(n));
}

async fn trouble(bench: &Bench) -> Option<String> {
    let status = bench.control.status(&bench.ana).await.unwrap();
    status.environments.into_iter().find(|e| e.name.as_str() == "production").unwrap().trouble
}

#[tokio::test]
async fn a_journal_that_was_lost_restored_or_forked_is_refused_and_people_see_it() {
    let bench = Bench::new(true).await;
    let mut agent = Agent::new(&bench, "production").await;
    (0..4).for_each(|n| note(&mut agent, n));
    agent.report().await.unwrap();
    agent.hello().await.unwrap();
    let kept = agent.journal.clone();

    let forks: [&dyn Fn(&mut Agent<'_>); 3] =
        [&|agent| agent.journal.clear(), &|agent| agent.journal.truncate(2), &|agent| {
            agent.journal.truncate(2);
            (7..12).for_each(|n| note(agent, n));
        }];
    for fork in forks {
        fork(&mut agent);
        let refused = agent.hello().await.unwrap_err();
        assert!(refused.to_string().contains("forked"), "{refused}");
        assert!(trouble(&bench).await.is_some_and(|t| t.contains("forked")));
        agent.journal.clone_from(&kept);
        agent.hello().await.unwrap();
        assert_eq!(trouble(&bench).await, None);
    }
    // Also one that doesn't say hello: an equal number with another leaf is no repetition.
    agent.journal.truncate(3);
    (7..9).for_each(|n| note(&mut agent, n));
    let refused = agent.report_from(3).await.unwrap_err();
    assert!(
        matches!(&refused, ControlError::Conflict { message, .. } if message.contains("forked")),
        "{refused}"
    );
    assert!(trouble(&bench).await.is_some());
    agent.journal.clone_from(&kept);
    agent.report().await.unwrap();
    assert_eq!(trouble(&bench).await, None);
}

#[tokio::test]
async fn an_entry_that_can_not_be_followed_is_kept_and_stands_in_nobodys_way() {
    let bench = Bench::new(true).await;
    let mut agent = Agent::new(&bench, "production").await;
    let unknown = PromotionId::new(format!("pr_{:026}", 7)).unwrap();
    agent.claim(&unknown, RolloutEvent::Confirmed);
    agent.claim(&PromotionId::new(format!("pr_{:026}", 8)).unwrap(), RolloutEvent::OnBackup);
    agent.note(
        ResourceKind::Promotion,
        "no id at all",
        worker(1).map(|_| Event::Rollout(Box::new(RolloutEvent::OnBackup))),
    );
    agent.note(ResourceKind::Environment, "production", None);
    agent.text("{\"v\":1,\"from\":\"the future\"}".to_owned());
    note(&mut agent, 1);
    let reported = agent.report().await.unwrap();
    assert_eq!(reported.through, Some(5));
    let entries = bench.control.entries_of(ResourceKind::Environment, "production").await.unwrap();
    let sources = |effect| entries.iter().filter(|e| e.source.is_some() && e.effect == effect).count();
    assert_eq!((sources(Effect::Deny), sources(Effect::Allow)), (5, 1));
    assert_eq!(agent.report().await.unwrap().through, Some(5), "once");
    bench.is_proven().await;
}

#[tokio::test]
async fn a_rollouts_event_counts_only_where_it_can_follow() {
    let bench = Bench::new(true).await;
    let mut staging = Agent::new(&bench, "staging").await;
    let release = bench.release(&plain(1)).await;
    let id = bench.ask(&release, "staging").await.unwrap().id;
    let until = super::NOON;
    staging.claim(&id, RolloutEvent::Promoted { judgement: None, probation_until: until });
    staging.claim(&id, RolloutEvent::Confirmed);
    let mut plan = bench.promotion(&id).await.plan;
    plan.rollout.guards.clear();
    plan.rollout.probation_ms = 1;
    staging.claim(&id, RolloutEvent::Started { plan: Box::new(plan) });
    staging
        .claim(&id, RolloutEvent::StepEntered { step: 0, weight: 1, shadow: 0, epoch: 1, judgement: None });
    staging.report().await.unwrap();
    let promotion = bench.promotion(&id).await;
    assert_eq!((promotion.stage.name(), promotion.entered), ("rolling", None));
    assert_eq!(bench.serves("staging").await, None);
    let refused = bench.ask(&release, "production").await.unwrap_err();
    assert!(refused.to_string().contains("has not passed `staging`"), "{refused}");
    let entries = bench.control.entries_of(ResourceKind::Promotion, id.as_str()).await.unwrap();
    assert_eq!(entries.iter().filter(|e| e.effect == Effect::Deny).count(), 4);
    // What is true is followed, even so.
    bench.pass(1000);
    staging.go().await;
    bench.pass(1000);
    staging.go().await;
    assert_eq!(bench.stage(&id).await, "probation");
    bench.is_proven().await;
}
