use crate::common::*;
use lockgate_core::route::{ModelRoute, Role};
use lockgate_gateway::{LatencyMargin, LatencyThresholds, OpenBreaker};
use std::collections::BTreeMap;
use std::time::Duration;

fn says(text: &str) -> Behave {
    Behave::Answer(text.to_owned())
}

struct Two {
    world: World,
    old: Worker,
    new: Worker,
}

impl Two {
    fn start() -> Self {
        let world = start(options());
        let old = Worker::start(world.dir.path(), "old", says("old"));
        let new = Worker::start(world.dir.path(), "new", says("new"));
        Self { world, old, new }
    }

    fn at(&self, weight: u32) -> ModelRoute {
        with_candidate(Some(variant("r1", 1, &[&self.old])), variant("r2", 2, &[&self.new]), weight)
    }
}

#[tokio::test]
async fn units_stick_to_their_side_and_only_move_to_the_candidate() {
    let two = Two::start();
    let mut side: BTreeMap<usize, String> = BTreeMap::new();
    for weight in [0, 500, 2500, 5000, 10_000] {
        two.world.publish(two.at(weight)).await;
        let (mut client, mut other) = (two.world.client().await, two.world.client().await);
        let mut on_candidate = 0;
        for unit in 0..300 {
            let first = client.infer(&format!("unit-{unit}")).await.header("x-lockgate-variant").to_owned();
            let second = other.infer(&format!("unit-{unit}")).await.header("x-lockgate-variant").to_owned();
            assert_eq!(first, second, "all connections and threads agree");
            let before = side.insert(unit, first.clone());
            assert!(
                before.as_deref() != Some("candidate") || first == "candidate",
                "unit {unit} was taken back"
            );
            on_candidate += usize::from(first == "candidate");
        }
        let expected = 300.0 * f64::from(weight) / 10_000.0;
        let sigma = (expected * (1.0 - f64::from(weight) / 10_000.0)).sqrt();
        assert!((on_candidate as f64 - expected).abs() <= 4.0 * sigma, "{on_candidate} of 300 at {weight}");
    }
}

#[tokio::test]
async fn counts_are_by_assignment_and_leave_pinned_requests_out() {
    let two = Two::start();
    two.world.publish(two.at(5000)).await;
    let mut client = two.world.client().await;
    for unit in 0..40 {
        client.infer(&format!("u{unit}")).await;
    }
    for _ in 0..7 {
        assert_eq!(
            client.post("/v2/models/delay/versions/2/infer", BODY).await.header("x-lockgate-variant"),
            "candidate"
        );
    }
    let stats = two.world.gateway.stats(&model()).unwrap();
    assert_eq!(stats.salt, "pr_1");
    assert_eq!(stats.segments.iter().map(|s| s.requests).sum::<u64>(), 40);
    assert_eq!(stats.segments.iter().map(|s| s.units).sum::<u64>(), 40);

    // A failing candidate's requests are made good elsewhere and still count against it.
    two.new.now(Behave::Status(503));
    for unit in 100..140 {
        assert_eq!(client.infer(&format!("u{unit}")).await.status, 200);
    }
    let stats = two.world.gateway.stats(&model()).unwrap();
    let of = |arm: Role| stats.segments.iter().find(|s| s.arm == arm).unwrap().clone();
    assert_eq!(of(Role::Baseline).errors.total(), 0);
    assert!(of(Role::Candidate).events.errors > 10);
}

#[tokio::test]
async fn the_breaker_takes_a_failing_candidates_traffic_away_at_once() {
    let two = Two::start();
    two.world.publish(two.at(5000)).await;
    two.new.now(Behave::Status(500));
    let mut client = two.world.client().await;
    let mut bad = 0;
    for unit in 0..400 {
        bad += usize::from(client.infer(&format!("u{unit}")).await.status == 500);
    }
    assert!((20..25).contains(&bad), "{bad} users saw an error");
    assert!(two.world.gateway.stats(&model()).unwrap().breaker_open);
    assert_eq!(two.new.count(), bad);
}

#[tokio::test]
async fn a_revision_is_quiet_once_its_traffic_is_gone() {
    let two = Two::start();
    let (baseline, candidate) = (digest("revision of r1"), digest("revision of r2"));
    two.world.publish(two.at(10_000)).await;
    assert_eq!(two.world.gateway.last_sent(&candidate), None);
    let mut client = two.world.client().await;
    client.infer("u").await;
    assert!(two.world.gateway.last_sent(&candidate).unwrap() < Duration::from_secs(5));
    two.world.publish(route(Some(variant("r1", 1, &[&two.old])))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.infer("u").await;
    let quiet = two.world.gateway.last_sent(&candidate).unwrap();
    assert!(quiet >= Duration::from_millis(50));
    assert!(two.world.gateway.last_sent(&baseline).unwrap() < quiet);
    assert_eq!(two.world.gateway.inflight(&candidate), 0);
}

#[tokio::test]
async fn slow_candidates_show_by_the_thresholds_that_were_set_before() {
    let two = Two::start();
    two.world.publish(two.at(5000)).await;
    let margin = LatencyMargin { factor: 1.2, floor_us: 1000 };
    let thresholds = LatencyThresholds {
        slo_us: Some(100_000),
        rollback: margin,
        promote: margin,
        baseline_quantiles_us: [20_000, 20_000, 20_000],
        warmup_us: None,
    };
    two.world.gateway.set_thresholds(&model(), thresholds).unwrap();
    let broken = LatencyThresholds { baseline_quantiles_us: [3, 2, 1], ..thresholds };
    assert!(two.world.gateway.set_thresholds(&model(), broken).is_err());
    two.new.now(Behave::Slow(Duration::from_millis(120)));
    let mut client = two.world.client().await;
    for unit in 0..12 {
        client.infer(&format!("u{unit}")).await;
    }
    let stats = two.world.gateway.stats(&model()).unwrap();
    let candidate = stats.segments.iter().find(|s| s.arm == Role::Candidate).unwrap();
    assert!(candidate.requests > 0);
    assert_eq!(candidate.events.slow_slo, candidate.units);
    assert_eq!(candidate.events.slow_rollback, [candidate.units; 3]);
}

#[tokio::test]
async fn a_candidate_alone_serves_until_there_is_a_baseline() {
    let two = Two::start();
    let alone = with_candidate(None, variant("r2", 2, &[&two.new]), 2500);
    let backup = Some(variant("rules", 9, &[&two.old]));
    two.world.publish(ModelRoute { backup, ..alone.clone() }).await;
    let mut client = two.world.client().await;
    let mut seen = BTreeMap::new();
    for unit in 0..60 {
        let got = client.infer(&format!("u{unit}")).await;
        assert_eq!(got.status, 200);
        *seen.entry(got.header("x-lockgate-variant").to_owned()).or_insert(0) += 1;
    }
    assert!(seen["candidate"] > 3 && seen["backup"] > 30, "{seen:?}");
    two.world.publish(alone).await;
    for unit in 0..20 {
        assert_eq!(client.infer(&format!("u{unit}")).await.header("x-lockgate-variant"), "candidate");
    }
}

/// One gateway takes another one's place: where the first sends nobody any more, the second sends nobody either.
#[tokio::test]
async fn a_breaker_that_is_open_stays_open_in_the_gateway_that_comes_after() {
    let (before, after) = (start(options()), start(options()));
    let old = Worker::start(before.dir.path(), "old", Behave::Answer("old".to_owned()));
    let new = Worker::start(before.dir.path(), "new", Behave::Status(500));
    let route = || with_candidate(Some(variant("r1", 1, &[&old])), variant("r2", 2, &[&new]), 5000);
    before.publish(route()).await;
    after.publish(route()).await;
    assert_eq!(before.gateway.open_breakers(), []);
    let mut client = before.client().await;
    for unit in 0..200 {
        client.infer(&format!("u{unit}")).await;
    }
    let open = before.gateway.open_breakers();
    let known = OpenBreaker { model: model(), salt: "pr_1".to_owned(), mirrored: false };
    assert_eq!((open.len(), &open[0]), (1, &known));
    // Of another rollout it says nothing.
    assert!(!after.gateway.open_breaker(&OpenBreaker { salt: "pr_0".to_owned(), ..known.clone() }));
    assert!(!after.gateway.open_breaker(&OpenBreaker { model: "other".parse().unwrap(), ..known.clone() }));
    assert!(!after.gateway.stats(&model()).unwrap().breaker_open);
    assert!(after.gateway.open_breaker(&known));
    let asked = new.count();
    let mut client = after.client().await;
    for unit in 0..100 {
        assert_eq!(client.infer(&format!("u{unit}")).await.said(), "old");
    }
    assert_eq!(new.count(), asked);
    assert!(after.gateway.stats(&model()).unwrap().breaker_open, "the agent sees it, and goes back");
    assert_eq!(after.gateway.open_breakers(), [known]);
    // Also that of mirrored requests, by itself.
    let mirrors = mirroring(variant("r1", 1, &[&old]), variant("r2", 2, &[&new]), 10_000);
    let third = start(options());
    third.publish(mirrors).await;
    assert!(third.gateway.open_breaker(&OpenBreaker { mirrored: true, ..open[0].clone() }));
    let stats = third.gateway.stats(&model()).unwrap();
    assert!(stats.shadow.unwrap().breaker_open && !stats.breaker_open, "{stats:?}");
}
