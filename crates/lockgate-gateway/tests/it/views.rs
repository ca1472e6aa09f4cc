//! Questions that name no model, or are about one as a whole: a tester gets the side that would answer, or is refused.

use crate::common::*;
use crate::testers::{Two, claims, signed};
use lockgate_core::plan::Testers;
use lockgate_core::preview::Claims;

/// Everything that is answered without a prediction, and must not be the users' side's for a tester.
const QUESTIONS: [&str; 14] = [
    "/v2/health/live",
    "/v2/health/ready",
    "/ping",
    "/health",
    "/version",
    "/v2",
    "/v2/models",
    "/v1/models",
    "/openai/v1/models",
    "/openai/v1/models/delay",
    "/models",
    "/v2/models/stats",
    "/v2/models/delay/stats",
    "/v1/models/delay",
];

fn versions(text: &str) -> Vec<&str> {
    let of = |n: &'static str| text.replace(' ', "").contains(&format!("\"version\":\"{n}\"")).then_some(n);
    ["1", "2"].into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn lists_and_statistics_below_a_preview_address_are_the_candidates() {
    let two = Two::start();
    two.world.publish(two.preview()).await;
    let mut client = two.world.client().await;
    let below = format!("/preview/{}", signed(&claims()));
    for path in QUESTIONS {
        let got = client.get(&format!("{below}{path}")).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
    }
    client.infer("user").await;
    for _ in 0..2 {
        assert_eq!(client.with(&format!("{below}/v2/models/delay/infer"), &[]).await.status, 200);
    }
    for (path, users, testers) in
        [("/v2/models/delay/stats", "1", "2"), ("/v2/models/stats", "1", "2"), ("/v1/models/delay", "1", "2")]
    {
        let (plain, own) =
            (client.get(path).await.text(), client.get(&format!("{below}{path}")).await.text());
        assert_eq!((versions(&plain), versions(&own)), (vec![users], vec![testers]), "{path}: {plain} {own}");
    }
    let index = client.post(&format!("{below}/v2/repository/index"), "").await.text();
    assert_eq!(versions(&index), ["2"], "{index}");
    // Its own requests are in a tester's statistics, and in nobody else's.
    let count = async |client: &mut Client, path: &str| {
        let stats: serde_json::Value = serde_json::from_slice(&client.get(path).await.body).unwrap();
        stats["model_stats"][0]["inference_stats"]["success"]["count"].as_u64().unwrap()
    };
    assert_eq!(count(&mut client, &format!("{below}/v2/models/delay/stats")).await, 2);
    assert_eq!(count(&mut client, "/v2/models/delay/stats").await, 1);
    // The other side's version is not there for this token.
    let got = client.get(&format!("{below}/v2/models/delay/versions/1/stats")).await;
    assert_eq!(got.status, 404, "{}", got.text());
    // What is about the whole gateway has no side.
    assert_eq!(client.get(&format!("{below}/metrics")).await.status, 400);
    assert_eq!(client.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn readiness_is_that_of_the_side_which_would_answer() {
    let two = Two::start();
    let below = format!("/preview/{}", signed(&claims()));
    let ready = ["/v2/health/ready", "/ping", "/v2/models/delay/ready"];
    // Nothing serves yet, and the candidate is warm.
    two.world.publish(previewing(None, variant("r2", 2, &[&two.new]))).await;
    let mut client = two.world.client().await;
    for path in ready {
        assert_eq!(client.get(&format!("{below}{path}")).await.status, 200, "{path}");
    }
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    // The other way around.
    two.world.publish(previewing(Some(variant("r1", 1, &[&two.old])), variant("r2", 2, &[]))).await;
    for path in ready {
        assert_eq!(client.get(&format!("{below}{path}")).await.status, 503, "{path}");
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    // And where there is no candidate at all.
    let alone = lockgate_core::route::ModelRoute { split: None, ..two.preview() };
    two.world.publish(alone).await;
    for path in ready {
        let got = client.get(&format!("{below}{path}")).await;
        assert_eq!(got.status, 404, "{path}");
        assert!(got.text().contains("has no candidate here now"), "{}", got.text());
    }
}

#[tokio::test]
async fn who_may_not_is_refused_and_gets_nothing_of_the_users_side() {
    let two = Two::start();
    two.world.publish(two.at(5000, Testers::Token)).await;
    let mut client = two.world.client().await;
    let late = signed(&Claims { expires: 1000, ..claims() });
    let elsewhere = signed(&Claims { environment: "staging".parse().unwrap(), ..claims() });
    for token in ["rubbish", &late, &elsewhere] {
        for path in QUESTIONS.into_iter().chain(["/metrics"]) {
            let got = client.get(&format!("/preview/{token}{path}")).await;
            assert_eq!(got.status, 401, "{path}: {}", got.text());
            assert!(got.text().contains("lockgate preview --env production"), "{}", got.text());
        }
        let got = client.post(&format!("/preview/{token}/v2/repository/index"), "").await;
        assert_eq!(got.status, 401, "{}", got.text());
    }
    let good = signed(&claims());
    two.world.publish(two.at(5000, Testers::Nobody)).await;
    for path in QUESTIONS {
        assert_eq!(client.get(&format!("/preview/{good}{path}")).await.status, 403, "{path}");
        assert_eq!(client.get(path).await.status, 200, "{path}: everybody else is where they were");
    }
}
