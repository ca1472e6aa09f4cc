//! Mirrored requests: nobody gets their answers, nobody waits for them, and they are counted by themselves.

use crate::common::*;
use lockgate_core::route::{ModelRoute, Role, WHOLE};
use lockgate_gateway::{GatewayOptions, RolloutStats, SegmentStats, ShadowStats};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn predicts(data: &str) -> Behave {
    Behave::Predict(data.to_owned())
}

struct Two {
    world: World,
    old: Worker,
    new: Worker,
}

impl Two {
    fn start() -> Self {
        Self::with(64)
    }

    /// So many mirrored requests at a time.
    fn with(shadow_inflight: usize) -> Self {
        let world = start(GatewayOptions { shadow_inflight, ..options() });
        let old = Worker::start(world.dir.path(), "old", predicts("1, 0.5"));
        let new = Worker::start(world.dir.path(), "new", predicts("1, 0.5"));
        Self { world, old, new }
    }

    fn at(&self, share: u32) -> ModelRoute {
        mirroring(variant("r1", 1, &[&self.old]), variant("r2", 2, &[&self.new]), share)
    }

    /// Sends so many requests, each of a unit of its own; all must be the baseline's good answers.
    async fn ask(&self, count: u32) {
        let mut client = self.world.client().await;
        for unit in 0..count {
            let got = client.infer(&format!("unit-{unit}-{count}")).await;
            assert_eq!((got.status, got.header("x-lockgate-variant")), (200, "baseline"), "{}", got.text());
        }
    }

    fn stats(&self) -> RolloutStats {
        self.world.gateway.stats(&model()).unwrap()
    }

    fn shadow(&self) -> ShadowStats {
        self.stats().shadow.unwrap()
    }

    /// Waits until this holds of what was mirrored.
    async fn until(&self, what: &str, holds: impl Fn(&ShadowStats) -> bool) -> ShadowStats {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.shadow();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "not {what}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn arm(&self, arm: Role) -> SegmentStats {
        self.stats().segments.into_iter().find(|s| s.shadow && s.arm == arm).unwrap()
    }
}

#[tokio::test]
async fn what_is_mirrored_counts_for_both_arms_and_for_nothing_else() {
    let two = Two::start();
    two.world.publish(two.at(WHOLE)).await;
    two.ask(200).await;
    let seen = two.until("all settled", |s| s.mirrored + s.dropped == 200).await;
    assert!(seen.mirrored > 150 && seen.streaming == 0, "{seen:?}");
    let (old, new) = (two.arm(Role::Baseline), two.arm(Role::Candidate));
    for arm in [&old, &new] {
        assert_eq!(
            (arm.weight, arm.requests, arm.units, arm.exposed),
            (WHOLE, seen.mirrored, seen.mirrored, seen.mirrored)
        );
        assert_eq!((arm.errors.total(), arm.client_errors, arm.abandoned), (0, 0, 0));
    }
    assert_eq!(two.new.count(), two.new.mirrored.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(two.new.count() as u64, seen.mirrored, "each reached the candidate once");
    // One in four is asked of the baseline again, and that says that it is no user's either.
    let again = two.old.mirrored.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(two.old.count(), 200 + again);
    assert!(again > 10 && again as u64 >= seen.samples.total(), "{again} of {}", seen.mirrored);
    assert_eq!((seen.samples.more, seen.samples.less, seen.differed, seen.noise), (0, 0, 0, 0));
    // Live counters know the users' requests alone.
    let stats = two.stats();
    assert!(stats.segments.iter().all(|s| s.shadow || s.requests == 0), "{stats:?}");
    let totals = two.world.gateway.totals(&model());
    let requests = |role| totals.iter().filter(|t| t.role == role).map(|t| t.requests).sum::<u64>();
    assert_eq!((requests(Role::Baseline), requests(Role::Candidate)), (200, 0));
    assert_eq!(totals.iter().map(|t| t.retries).sum::<u64>(), 0);
    let records: Vec<_> = two.world.records.try_iter().collect();
    assert!(records.len() == 200 && records.iter().all(|r| r.assigned == Role::Baseline));
    // And they are seen by whoever watches the gateway.
    let metrics = two.world.client().await.get("/metrics").await.text();
    let line = format!("outcome=\"mirrored\"}} {}", seen.mirrored);
    assert!(metrics.contains("lockgate_shadow_requests_total") && metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn users_get_the_same_answers_whatever_share_is_mirrored() {
    let two = Two::start();
    two.new.now(predicts("2, 0.9"));
    let mut bodies = std::collections::BTreeSet::new();
    for share in [1, 100, 2500, 9999, WHOLE] {
        two.world.publish(two.at(share)).await;
        let mut client = two.world.client().await;
        for unit in 0..60 {
            let got = client.infer(&format!("unit-{unit}")).await;
            assert_eq!(got.header("x-lockgate-variant"), "baseline");
            bodies.insert(got.text());
        }
        // Not even by its version: nobody gets a candidate's answer.
        assert_eq!(client.post("/v2/models/delay/versions/2/infer", BODY).await.status, 404);
        assert_eq!(client.post("/v2/models/delay/versions/1/infer", BODY).await.status, 200);
    }
    two.world.publish(route(Some(variant("r1", 1, &[&two.old])))).await;
    bodies.insert(two.world.client().await.infer("u").await.text());
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn a_candidate_that_is_only_mirrored_to_serves_nobody_even_where_nothing_else_can() {
    let two = Two::start();
    let mut alone = two.at(WHOLE);
    alone.baseline = None;
    two.world.publish(alone).await;
    let mut client = two.world.client().await;
    for unit in 0..20 {
        assert_eq!(client.infer(&format!("u{unit}")).await.status, 503);
    }
    assert_eq!(two.new.count(), 0);
    // A baseline that is gone for a while fails over to the backup, never to the candidate.
    let backup = Worker::start(two.world.dir.path(), "rules", predicts("0, 0.0"));
    let mut route = two.at(WHOLE);
    route.backup = Some(variant("rules", 9, &[&backup]));
    two.world.publish(route).await;
    two.old.kill().await;
    for unit in 0..20 {
        let got = client.infer(&format!("v{unit}")).await;
        assert_eq!((got.status, got.header("x-lockgate-variant")), (200, "backup"));
    }
}

#[tokio::test]
async fn answers_that_differ_show_net_of_the_noise_of_the_baseline() {
    let two = Two::start();
    two.new.now(predicts("2, 0.5"));
    two.world.publish(two.at(WHOLE)).await;
    two.ask(120).await;
    let seen = two.until("compared", |s| s.samples.total() >= 10).await;
    assert_eq!((seen.samples.same, seen.samples.less, seen.noise), (0, 0, 0), "{seen:?}");
    assert_eq!((seen.differed, seen.kinds.class), (seen.samples.total(), seen.samples.total()));
    // Within the tolerance nothing differs, though the hashes do.
    let near = Two::start();
    near.new.now(predicts("1, 0.52"));
    near.world.publish(near.at(WHOLE)).await;
    near.ask(120).await;
    let seen = near.until("compared", |s| s.samples.total() >= 10).await;
    assert_eq!((seen.differed, seen.noise), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn a_second_answer_that_fails_is_no_noise_of_the_model() {
    let two = Two::start();
    two.old.now(Behave::PredictOnce("1, 0.5".to_owned()));
    two.new.now(predicts("2, 0.5"));
    two.world.publish(two.at(WHOLE)).await;
    two.ask(120).await;
    let seen = two.until("asked", |s| s.mirrored + s.dropped == 120).await;
    assert!(two.old.mirrored.load(Ordering::SeqCst) >= 10, "it was asked again");
    assert_eq!((seen.samples.total(), seen.noise), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn a_slow_candidate_is_asked_less_and_slows_nobody() {
    let two = Two::with(4);
    two.new.now(Behave::Slow(Duration::from_millis(300)));
    two.world.publish(two.at(WHOLE)).await;
    let begun = Instant::now();
    two.ask(300).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?} for 300 answers: they waited for the candidate");
    let seen = two.until("settled", |s| s.mirrored + s.dropped == 300).await;
    assert!(seen.dropped > 200, "{seen:?}");
    let (old, new) = (two.arm(Role::Baseline), two.arm(Role::Candidate));
    assert_eq!(old.requests, new.requests, "what is dropped is dropped for both");
    assert!(new.latency.quantile(0.01).unwrap() >= 300_000 && old.latency.quantile(0.5).unwrap() < 300_000);
}

#[tokio::test]
async fn a_candidate_that_fails_is_not_mirrored_to_any_more_and_no_user_notices() {
    let two = Two::start();
    two.new.now(Behave::Status(500));
    two.world.publish(two.at(WHOLE)).await;
    two.ask(200).await;
    let seen = two.until("open", |s| s.breaker_open).await;
    assert!((20..40).contains(&seen.mirrored), "{seen:?}");
    assert!(!two.stats().breaker_open, "that one is for live traffic");
    assert_eq!(two.arm(Role::Candidate).errors.http_5xx, seen.mirrored);
}

#[tokio::test]
async fn a_candidate_that_hangs_up_or_is_gone_costs_no_user_anything() {
    let two = Two::start();
    two.new.now(Behave::HangUp);
    two.world.publish(two.at(WHOLE)).await;
    two.ask(15).await;
    let seen = two.until("settled", |s| s.mirrored + s.dropped == 15).await;
    assert_eq!(two.arm(Role::Candidate).errors.connect, seen.mirrored, "one try each");
    assert_eq!(two.new.count() as u64, seen.mirrored);
    let Two { world, old, new } = two;
    new.kill().await;
    let mut client = world.client().await;
    for unit in 0..50 {
        assert_eq!(client.infer(&format!("w{unit}")).await.status, 200);
    }
    drop(old);
}

#[tokio::test]
async fn large_bodies_are_not_mirrored_and_counted_as_such() {
    let two = Two::start();
    two.world.publish(two.at(WHOLE)).await;
    let mut client = two.world.client().await;
    let got = client.post("/v2/models/delay/infer", vec![b' '; 3 << 20]).await;
    assert_eq!(got.status, 200);
    let seen = two.until("told", |s| s.streaming == 1).await;
    assert_eq!((seen.mirrored, two.new.count()), (0, 0));
}

#[tokio::test]
async fn nothing_is_mirrored_once_the_table_says_so_or_while_it_is_no_evidence() {
    let two = Two::start();
    let mut idle = two.at(WHOLE);
    idle.split.as_mut().unwrap().counted = false;
    two.world.publish(idle).await;
    two.ask(30).await;
    two.world.publish(two.at(WHOLE)).await;
    two.ask(31).await;
    two.until("settled", |s| s.mirrored + s.dropped == 31).await;
    two.world.publish(route(Some(variant("r1", 1, &[&two.old])))).await;
    let asked = two.new.count();
    two.ask(32).await;
    assert_eq!(two.new.count(), asked);
    assert_eq!(two.world.gateway.inflight(&digest("revision of r2")), 0);
}

#[tokio::test]
async fn a_table_that_mirrors_and_splits_is_refused() {
    let two = Two::start();
    for (share, weight) in [(0, 0), (WHOLE + 1, 0), (100, 1)] {
        let mut route = two.at(share);
        route.split.as_mut().unwrap().weight = weight;
        assert!(two.world.gateway.publish(table(1, route)).await.is_err(), "{share} {weight}");
    }
}
