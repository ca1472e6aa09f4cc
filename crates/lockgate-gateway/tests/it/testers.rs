//! Testers who say which side is to answer, and candidates that only they reach.

use crate::common::*;
use lockgate_core::plan::Testers;
use lockgate_core::preview::{Claims, PreviewKey};
use lockgate_core::route::ModelRoute;
use std::time::Duration;

const INFER: &str = "/v2/models/delay/infer";
const FOR_EVER: i64 = 2_000_000_000_000;

pub(crate) struct Two {
    pub(crate) world: World,
    pub(crate) old: Worker,
    pub(crate) new: Worker,
}

pub(crate) fn claims() -> Claims {
    Claims {
        environment: "production".parse().unwrap(),
        model: model(),
        side: "candidate".to_owned(),
        by: Some("u_ann".parse().unwrap()),
        expires: FOR_EVER,
    }
}

pub(crate) fn signed(claims: &Claims) -> String {
    claims.sign(&PreviewKey::new([7; 32])).unwrap()
}

impl Two {
    pub(crate) fn start() -> Self {
        let world = start(options());
        let [old, new] =
            ["old", "new"].map(|name| Worker::start(world.dir.path(), name, Behave::Answer(name.to_owned())));
        Self { world, old, new }
    }

    pub(crate) fn at(&self, weight: u32, testers: Testers) -> ModelRoute {
        let (old, new) = (variant("r1", 1, &[&self.old]), variant("r2", 2, &[&self.new]));
        ModelRoute { testers, ..with_candidate(Some(old), new, weight) }
    }

    pub(crate) fn preview(&self) -> ModelRoute {
        previewing(Some(variant("r1", 1, &[&self.old])), variant("r2", 2, &[&self.new]))
    }
}

#[tokio::test]
async fn a_token_leads_to_its_side_by_header_cookie_and_path_and_says_who_answered() {
    let two = Two::start();
    two.world.publish(two.preview()).await;
    let mut client = two.world.client().await;
    let token = signed(&claims());
    let below = format!("/preview/{token}{INFER}");
    let cookie = format!("session=1; lockgate-preview={token}");
    for (path, headers) in [
        (INFER, vec![("x-lockgate-preview", token.as_str())]),
        (INFER, vec![("cookie", cookie.as_str())]),
        (below.as_str(), vec![]),
        (INFER, vec![("x-lockgate-preview", token.as_str()), ("x-lockgate-release", "candidate")]),
        (
            INFER,
            vec![("x-lockgate-preview", token.as_str()), ("x-lockgate-release", &digest("r2").hex()[..8])],
        ),
        (
            INFER,
            vec![("x-lockgate-preview", token.as_str()), ("x-lockgate-release", &digest("r2").to_string())],
        ),
    ] {
        let got = client.with(path, &headers).await;
        assert_eq!((got.status, got.said()), (200, "new".to_owned()), "{path} {headers:?}");
        assert_eq!(got.header("x-lockgate-variant"), "candidate");
        assert_eq!(got.header("x-lockgate-release"), digest("r2").short());
        assert!(!got.header("x-lockgate-prediction-id").is_empty());
    }
    let got = client.with(INFER, &[("x-lockgate-preview", &token), ("x-lockgate-release", "baseline")]).await;
    assert_eq!(got.said(), "old");
    // Questions about the model go the same way.
    assert_eq!(client.get(&format!("/preview/{token}/v2/models/delay")).await.said(), "new");
    assert_eq!(client.get("/v2/models/delay").await.said(), "old");
    // And everybody else is where they were.
    for unit in 0..50 {
        assert_eq!(client.infer(&format!("u{unit}")).await.said(), "old");
    }
}

#[tokio::test]
async fn whoever_may_not_or_asks_for_what_isnt_there_gets_an_error_and_no_other_side() {
    let two = Two::start();
    two.world.publish(two.at(5000, Testers::Token)).await;
    let mut client = two.world.client().await;
    let good = signed(&claims());
    let foreign = claims().sign(&PreviewKey::new([8; 32])).unwrap();
    let late = signed(&Claims { expires: 1000, ..claims() });
    let other_model = signed(&Claims { model: "other".parse().unwrap(), ..claims() });
    let other_place = signed(&Claims { environment: "staging".parse().unwrap(), ..claims() });
    let before = (two.old.count(), two.new.count());
    let (token, release) = ("x-lockgate-preview", "x-lockgate-release");
    for (headers, status, words) in [
        (vec![(release, "candidate")], 401, "takes a preview token"),
        (vec![(token, "")], 401, "not one of this environment"),
        (vec![(token, "rubbish")], 401, "not one of this environment"),
        (vec![("cookie", "lockgate-preview=rubbish")], 401, "not one of this environment"),
        (vec![(token, foreign.as_str())], 401, "not one of this environment"),
        (
            vec![(token, late.as_str())],
            401,
            "has expired; get one with: lockgate preview --env production --model delay",
        ),
        (vec![(token, other_model.as_str())], 401, "is for model `other`"),
        (vec![(token, other_place.as_str())], 401, "in environment `staging`"),
        (vec![(token, good.as_str()), (release, "backup")], 400, "none of `candidate`, `baseline`"),
        (vec![(token, good.as_str()), (release, "00")], 400, "at least 6 digits"),
        (
            vec![(token, good.as_str()), (release, "000000")],
            404,
            "has no 000000 here now; it has baseline v1",
        ),
    ] {
        let got = client.with(INFER, &headers).await;
        assert_eq!(got.status, status, "{headers:?}: {}", got.text());
        assert!(got.text().starts_with("{\"error\":") && got.text().contains(words), "{}", got.text());
        assert_eq!(got.header("x-lockgate-variant"), "");
    }
    // In each protocol's own shape.
    let got = client.with("/invocations", &[(token, late.as_str())]).await;
    assert_eq!(got.status, 401);
    assert!(got.text().contains("\"error_code\":\"UNAUTHENTICATED\""), "{}", got.text());
    let got = client.with("/v1/models/delay:predict", &[(release, "candidate")]).await;
    assert_eq!(got.status, 401);
    // A version that is another side's.
    let got = client.with("/v2/models/delay/versions/1/infer", &[(token, good.as_str())]).await;
    assert_eq!(got.status, 404, "{}", got.text());
    // Off is off, with a good token too.
    two.world.publish(two.at(5000, Testers::Nobody)).await;
    for headers in [vec![(token, good.as_str())], vec![(release, "candidate")]] {
        let got = client.with(INFER, &headers).await;
        assert_eq!(got.status, 403);
        assert!(
            got.text().contains("nobody may choose who answers in environment `production`"),
            "{}",
            got.text()
        );
    }
    // No candidate: said, and not made good by the baseline.
    let alone = ModelRoute { split: None, ..two.at(0, Testers::Anybody) };
    two.world.publish(alone).await;
    let got = client.with(INFER, &[(release, "candidate")]).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("has no candidate here now; it has baseline v1"), "{}", got.text());
    assert_eq!((two.old.count(), two.new.count()), before, "no side was asked");
}

#[tokio::test]
async fn the_smoke_tests_own_token_is_good_where_no_testers_are_and_anybody_means_anybody() {
    let two = Two::start();
    two.world.publish(ModelRoute { testers: Testers::Nobody, ..two.preview() }).await;
    let mut client = two.world.client().await;
    let own = signed(&Claims { by: None, side: digest("r2").hex(), ..claims() });
    assert_eq!(client.with(INFER, &[("x-lockgate-preview", &own)]).await.said(), "new");
    two.world.publish(two.at(0, Testers::Anybody)).await;
    assert_eq!(client.with(INFER, &[("x-lockgate-release", "candidate")]).await.said(), "new");
    let forced: Vec<_> = two.world.records.try_iter().filter_map(|r| r.forced).collect();
    assert_eq!(forced, ["smoke test", "anybody"]);
}

#[tokio::test]
async fn the_same_release_under_another_configuration_is_another_side() {
    let two = Two::start();
    let mut route = two.preview();
    let (old, new) = (digest("revision of old"), digest("revision of new"));
    for (variant, revision) in route
        .baseline
        .iter_mut()
        .zip([old])
        .chain(route.split.iter_mut().map(|s| &mut s.candidate).zip([new]))
    {
        variant.release = digest("r2");
        variant.revision = revision;
    }
    two.world.publish(route).await;
    let mut client = two.world.client().await;
    // The smoke test asks the revision that it is about, never what serves.
    let own = signed(&Claims { by: None, side: new.hex(), ..claims() });
    assert_eq!(client.with(INFER, &[("x-lockgate-preview", &own)]).await.said(), "new");
    let unclear = signed(&Claims { by: None, side: digest("r2").hex(), ..claims() });
    let got = client.with(INFER, &[("x-lockgate-preview", &unclear)]).await;
    assert_eq!(got.status, 400, "{}", got.text());
    // And its token opens nothing else.
    let got = client.with(INFER, &[("x-lockgate-preview", &own), ("x-lockgate-release", "baseline")]).await;
    assert_eq!(got.status, 403, "{}", got.text());
}

#[tokio::test]
async fn forced_requests_are_in_no_count_that_decides_and_say_so_in_the_log() {
    let two = Two::start();
    two.world.publish(two.at(5000, Testers::Token)).await;
    let mut client = two.world.client().await;
    let token = signed(&claims());
    for unit in 0..40 {
        client.infer(&format!("u{unit}")).await;
    }
    let (stats, totals) = (two.world.gateway.stats(&model()), two.world.gateway.totals(&model()));
    two.new.now(Behave::Status(500));
    for side in ["candidate", "baseline"] {
        for _ in 0..60 {
            let unit =
                [("x-lockgate-preview", token.as_str()), ("x-lockgate-release", side), ("x-unit", "u1")];
            let got = client.with(INFER, &unit).await;
            // A candidate that fails is shown as it is: nobody makes it good.
            assert_eq!(got.status, if side == "candidate" { 500 } else { 200 });
        }
    }
    assert_eq!(two.world.gateway.stats(&model()), stats, "neither guards nor breaker saw them");
    assert_eq!(two.world.gateway.totals(&model()), totals);
    assert!(!two.world.gateway.stats(&model()).unwrap().breaker_open);
    let records: Vec<_> = two.world.records.try_iter().collect();
    let forced: Vec<_> = records.iter().filter(|r| r.forced.is_some()).collect();
    assert_eq!((records.len(), forced.len()), (160, 120));
    let first = forced[0];
    assert_eq!(first.forced.as_deref(), Some("tester u_ann"));
    assert_eq!((first.assigned.as_str(), first.served.unwrap().as_str()), ("candidate", "candidate"));
    let metrics = client.get("/metrics").await.text();
    let line = |status: &str| {
        let end = format!("status=\"{status}\"}} 60");
        metrics.lines().any(|l| l.starts_with("lockgate_forced_requests_total") && l.ends_with(&end))
    };
    assert!(line("5xx") && line("2xx"), "{metrics}");
}

#[tokio::test]
async fn forced_requests_are_not_mirrored_and_reach_a_shadow() {
    let two = Two::start();
    let (old, new) = (variant("r1", 1, &[&two.old]), variant("r2", 2, &[&two.new]));
    let mirrors = ModelRoute { testers: Testers::Token, ..mirroring(old, new, 10_000) };
    two.world.publish(mirrors).await;
    let mut client = two.world.client().await;
    let token = signed(&claims());
    for _ in 0..5 {
        assert_eq!(client.with(INFER, &[("x-lockgate-preview", &token)]).await.said(), "new");
        let got =
            client.with(INFER, &[("x-lockgate-preview", &token), ("x-lockgate-release", "baseline")]).await;
        assert_eq!(got.said(), "old");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((two.new.count(), two.new.mirrored.load(std::sync::atomic::Ordering::SeqCst)), (5, 0));
    client.infer("u").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(two.new.mirrored.load(std::sync::atomic::Ordering::SeqCst), 1, "a user's request is");
}

#[tokio::test]
async fn a_preview_without_anything_that_serves_is_no_way_in_for_users() {
    let two = Two::start();
    two.world.publish(previewing(None, variant("r2", 2, &[&two.new]))).await;
    let mut client = two.world.client().await;
    assert_eq!(client.infer("u").await.status, 503);
    assert_eq!(client.post("/v2/models/delay/versions/2/infer", BODY).await.status, 404);
    assert_eq!(two.new.count(), 0);
    let token = signed(&claims());
    assert_eq!(client.with(INFER, &[("x-lockgate-preview", &token)]).await.said(), "new");
    // A failing baseline is not made good by what is only previewed.
    two.world.publish(two.preview()).await;
    two.old.now(Behave::Status(503));
    assert_eq!(client.infer("u").await.status, 503);
    assert_eq!(two.new.count(), 1);
    // What the baseline does meanwhile is counted, to judge the other side by later.
    let stats = two.world.gateway.stats(&model()).unwrap();
    let baseline: Vec<_> = stats.segments.iter().filter(|s| s.requests > 0).collect();
    assert_eq!(baseline.len(), 1);
    assert_eq!((baseline[0].weight, baseline[0].arm.as_str(), baseline[0].requests), (0, "baseline", 1));
}

/// S45: a share of nothing is nobody, and all is everybody; exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_of_nothing_and_of_all_are_exact_over_connections_and_threads() {
    let two = Two::start();
    for (weight, side) in [(0, "old"), (10_000, "new")] {
        two.world.publish(two.at(weight, Testers::Nobody)).await;
        let (old, new) = (two.old.count(), two.new.count());
        let mut running = tokio::task::JoinSet::new();
        for c in 0..8 {
            let mut client = two.world.client().await;
            running.spawn(async move {
                for i in 0..2500 {
                    // Named and unnamed units.
                    let got = match i % 2 {
                        0 => client.infer(&format!("{c}-{i}")).await,
                        _ => client.with(INFER, &[]).await,
                    };
                    assert_eq!((got.status, got.said().as_str()), (200, side));
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
        let (old, new) = (two.old.count() - old, two.new.count() - new);
        assert_eq!((old, new), if weight == 0 { (20_000, 0) } else { (0, 20_000) });
    }
}

/// S46: a unit keeps its side over a restart of the gateway, and at a larger weight only joins the candidate's.
#[tokio::test]
async fn a_unit_keeps_its_side_when_the_gateway_starts_again() {
    let two = Two::start();
    let mut side = std::collections::BTreeMap::new();
    let mut others = Vec::new();
    for weight in [1000, 1000, 5000] {
        // Another gateway with seeds of its own, as after a restart or on another machine.
        let again = start(options());
        again.publish(two.at(weight, Testers::Nobody)).await;
        let mut client = again.client().await;
        for unit in 0..400 {
            let now = client.infer(&format!("unit-{unit}")).await.said();
            let before: Option<String> = side.insert(unit, now.clone());
            assert!(
                before.is_none_or(|b| b == now || (weight == 5000 && now == "new")),
                "unit {unit} was moved"
            );
        }
        others.push(again);
    }
}

#[tokio::test]
async fn a_switch_there_and_back_under_load_loses_no_request() {
    let two = Two::start();
    two.world.publish(two.preview()).await;
    let mut running = tokio::task::JoinSet::new();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for c in 0..6 {
        let (mut client, over) = (two.world.client().await, over.clone());
        running.spawn(async move {
            let mut sent = 0_u32;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let got = client.infer(&format!("{c}-{sent}")).await;
                assert_eq!(got.status, 200, "{}", got.text());
                sent += 1;
            }
            sent
        });
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        two.world.publish(two.at(10_000, Testers::Nobody)).await;
        // After the answer no request starts on the other side: with those under way the count stands still.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let old = two.old.count();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(two.old.count(), old);
        two.world.publish(two.preview()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let new = two.new.count();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(two.new.count(), new);
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent: u32 = running.join_all().await.iter().sum();
    assert!(sent > 20, "{sent}");
}

/// S48: what is under way at the switch ends where it began.
#[tokio::test]
async fn long_requests_outlive_the_switch() {
    let two = Two::start();
    two.old.now(Behave::Slow(Duration::from_millis(200)));
    two.world.publish(two.preview()).await;
    let mut running = tokio::task::JoinSet::new();
    for unit in 0..8 {
        let mut client = two.world.client().await;
        running.spawn(async move { client.infer(&format!("u{unit}")).await });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    two.world.publish(two.at(10_000, Testers::Nobody)).await;
    for got in running.join_all().await {
        assert_eq!((got.status, got.header("x-lockgate-variant")), (200, "baseline"));
    }
    assert_eq!((two.old.count(), two.new.count()), (8, 0));
}

#[tokio::test]
async fn lists_show_what_users_may_get_and_nothing_else() {
    let two = Two::start();
    let mut client = two.world.client().await;
    let mut versions = async |route: ModelRoute| {
        two.world.publish(route).await;
        let index = client.post("/v2/repository/index", "").await.text();
        let status = client.get("/v1/models/delay").await.text();
        let stats = client.get("/v2/models/delay/stats").await.text();
        [(index, "\"version\":\"2\""), (status, "\"version\":\"2\""), (stats, "\"version\":\"2\"")]
            .map(|(text, what)| text.replace(": ", ":").contains(what))
    };
    assert_eq!(versions(two.preview()).await, [false; 3]);
    assert_eq!(versions(two.at(0, Testers::Nobody)).await, [false; 3]);
    assert_eq!(versions(two.at(10_000, Testers::Nobody)).await, [true; 3]);
    two.new.now(Behave::Status(500));
    let mut users = two.world.client().await;
    for unit in 0..60 {
        users.infer(&format!("u{unit}")).await;
    }
    assert!(two.world.gateway.stats(&model()).unwrap().breaker_open);
    assert_eq!(versions(two.at(10_000, Testers::Nobody)).await, [false; 3], "its breaker is open");
}
