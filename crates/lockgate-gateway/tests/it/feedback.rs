//! `POST /feedback`: what is read, what goes to the keeper, and what it answers.

use crate::common::*;
use lockgate_core::bearer::Tokens;
use lockgate_core::route::RouteTable;
use lockgate_gateway::{Deps, FeedbackCall, Gateway, GatewayOptions, LogSink, TellStatus, Told};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc::Receiver;

const ID: &str = "01M8AY7JZFMHB6BY6FXZAJM00";

/// A gateway whose feedback goes to the test.
fn kept() -> (World, Receiver<FeedbackCall>) {
    kept_with(options())
}

fn kept_with(options: GatewayOptions) -> (World, Receiver<FeedbackCall>) {
    let (log, records) = LogSink::channel(1_000);
    let (log, calls) = log.with_feedback();
    let deps = Deps {
        clock: Arc::new(Time(AtomicU64::new(0))),
        entropy: Arc::new(Bytes8(AtomicU64::new(1))),
        log,
        listener: None,
    };
    let gateway = Gateway::start(options, RouteTable::default(), deps).unwrap();
    gateway.open();
    (World { gateway, records, dir: tempfile::tempdir().unwrap() }, calls)
}

fn told(status: TellStatus, note: Option<&str>) -> Told {
    Told { status, note: note.map(str::to_owned) }
}

/// A keeper that knows what to say by the last character of a prediction's id.
fn play(mut calls: Receiver<FeedbackCall>) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut seen = 0;
        while let Some(FeedbackCall { items, answer }) = calls.recv().await {
            seen += items.len();
            let all = items.iter().map(|item| match item.prediction.chars().last() {
                Some('1') => told(TellStatus::Recorded, None),
                Some('2') => told(TellStatus::Known, Some("a note")),
                Some('3') => told(TellStatus::Unknown, Some("no such prediction")),
                Some('4') => told(TellStatus::Conflict, Some("it is 1")),
                Some('6') => told(TellStatus::TooMany, Some("no more names")),
                _ => told(TellStatus::Failed, None),
            });
            answer.send(all.collect()).unwrap();
        }
        seen
    })
}

fn says(last: u32, rest: &str) -> String {
    format!(r#"{{"prediction_id": "{ID}{last}"{rest}}}"#)
}

#[tokio::test]
async fn one_is_answered_by_what_became_of_it() {
    let (world, calls) = kept();
    let keeper = play(calls);
    let mut client = world.client().await;
    for (last, status, words) in [
        (1, 200, "recorded"),
        (2, 200, "a note"),
        (3, 404, "no such"),
        (4, 409, "it is 1"),
        (5, 503, "failed"),
        (6, 400, "no more names"),
    ] {
        let got = client.post("/feedback", says(last, r#", "outcome": 1"#)).await;
        assert_eq!(got.status, status, "{}", got.text());
        assert!(got.text().contains(words), "{}", got.text());
    }
    // What can't be read goes nowhere.
    for (body, status, words) in [
        ("{".to_owned(), 400, "not JSON"),
        (says(1, ""), 400, "nothing is said"),
        (says(1, r#", "outcome": null"#), 400, "must be a number"),
        ("[]".to_owned(), 400, "empty"),
        (" ".repeat((1 << 20) + 1), 413, "in parts"),
    ] {
        let got = world.client().await.post("/feedback", body).await;
        assert_eq!(got.status, status, "{}", got.text());
        assert!(got.text().contains(words), "{}", got.text());
    }
    assert_eq!(client.get("/feedback").await.status, 405);
    drop(client);
    drop(world);
    assert_eq!(keeper.await.unwrap(), 6);
}

#[tokio::test]
async fn several_are_answered_each_and_are_no_success_unless_all_are_kept() {
    let (world, calls) = kept();
    let _keeper = play(calls);
    let mut client = world.client().await;
    let with = |all: &[u32]| {
        let items: Vec<String> = all.iter().map(|last| says(*last, r#", "outcome": 0"#)).collect();
        format!(r#"{{"feedback": [{}]}}"#, items.join(","))
    };
    let good = client.post("/feedback", with(&[1, 2])).await;
    assert_eq!(good.status, 200);
    let mixed =
        client.post("/feedback", format!("[{},{},3]", says(1, r#", "a": 1"#), says(3, r#", "a": 1"#))).await;
    assert_eq!(mixed.status, 422);
    let json: serde_json::Value = serde_json::from_slice(&mixed.body).unwrap();
    assert_eq!((json["kept"].as_u64(), json["refused"].as_u64()), (Some(1), Some(2)));
    let words: Vec<_> = (0..3).map(|i| json["results"][i]["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["recorded", "unknown", "wrong"]);
    assert!(json["error"].as_str().unwrap().contains("2 of 3"));
    assert_eq!(client.post("/feedback", with(&[1, 5])).await.status, 503);
}

#[tokio::test]
async fn where_a_token_is_asked_for_nobody_speaks_without_it_and_predictions_need_none() {
    let tokens = Tokens::parse("the-first-of-two-tokens\nthe-second-of-two-tokens").unwrap();
    let (world, calls) = kept_with(GatewayOptions { feedback_tokens: Some(tokens), ..options() });
    let keeper = play(calls);
    let mut client = world.client().await;
    let body = || says(1, r#", "outcome": 1"#);
    for headers in [
        &[][..],
        &[("authorization", "Bearer the-third-of-two-tokens")],
        &[("authorization", "the-first-of-two-tokens")],
    ] {
        let got = client.post_with("/feedback", headers, body()).await;
        assert_eq!(got.status, 401, "{}", got.text());
        assert!(got.header("www-authenticate").starts_with("Bearer"));
        assert!(got.text().contains("authorization: Bearer"), "{}", got.text());
    }
    for good in ["Bearer the-first-of-two-tokens", "bearer the-second-of-two-tokens"] {
        assert_eq!(client.post_with("/feedback", &[("authorization", good)], body()).await.status, 200);
    }
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    drop(client);
    drop(world);
    assert_eq!(keeper.await.unwrap(), 2, "what was refused went to nobody");
}

#[tokio::test]
async fn a_gateway_without_a_keeper_and_one_that_is_too_busy_say_so() {
    let world = start(options());
    let got = world.client().await.post("/feedback", says(1, r#", "outcome": 1"#)).await;
    assert_eq!(got.status, 503);
    assert!(got.text().contains("nobody keeps"), "{}", got.text());
    // Calls that nobody takes fill the queue; the next one is refused at once, and predictions go on.
    let (world, calls) = kept();
    let mut waiting = Vec::new();
    for _ in 0..lockgate_gateway::feedback::QUEUE {
        let mut client = world.client().await;
        waiting
            .push(tokio::spawn(async move { client.post("/feedback", says(1, r#", "outcome": 1"#)).await }));
    }
    while calls.len() < lockgate_gateway::feedback::QUEUE {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let got = world.client().await.post("/feedback", says(1, r#", "outcome": 1"#)).await;
    assert_eq!((got.status, got.header("retry-after")), (503, "1"));
    assert_eq!(world.client().await.get("/v2/health/live").await.status, 200);
    drop(calls);
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 503, "whether it was kept is not known");
    }
}

#[tokio::test]
async fn records_say_which_rollout_drew_a_request_and_not_where_none_did() {
    let (world, _calls) = kept();
    let old = Worker::start(world.dir.path(), "old", Behave::Answer("old".to_owned()));
    let new = Worker::start(world.dir.path(), "new", Behave::Answer("new".to_owned()));
    let route = with_candidate(Some(variant("r1", 1, &[&old])), variant("r2", 2, &[&new]), 5_000);
    world.publish(route.clone()).await;
    let mut client = world.client().await;
    for n in 0..20 {
        let got = client.infer(&format!("unit-{n}")).await;
        let record = world.records.recv().unwrap();
        let drawn = record.drawn.unwrap();
        assert_eq!((drawn.arm.as_str(), drawn.weight), (got.header("x-lockgate-variant"), 5_000));
        assert_eq!(*drawn.salt, *route.split.as_ref().unwrap().salt);
        assert_eq!(record.id, got.header("x-lockgate-prediction-id"));
    }
    // A request that names a version is no part of the draw, nor is any while a side can't serve.
    let pinned = client.post("/v2/models/delay/versions/2/infer", BODY).await;
    assert_eq!(pinned.header("x-lockgate-variant"), "candidate");
    assert_eq!(world.records.recv().unwrap().drawn, None);
    let mut uncounted = route;
    uncounted.split.as_mut().unwrap().counted = false;
    world.publish(uncounted).await;
    client.infer("unit-1").await;
    assert_eq!(world.records.recv().unwrap().drawn, None);
}
