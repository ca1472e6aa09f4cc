//! Models inside the gateway.

use crate::common::*;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http_body_util::Full;
use hyper::{Request, Response};
use lockgate_core::route::ModelRoute;
use lockgate_gateway::{GatewayError, LaneState, Ran, Runner};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a runner does with its next request; after all of them it answers 200.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Answer(u16),
    Busy(Duration),
    Pass,
    Panic,
    Hang,
}

#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<Does>>);

impl Runner for Script {
    fn answer(&self, _: Request<Full<Bytes>>) -> LocalBoxFuture<'_, Option<Ran>> {
        let next = self.0.lock().unwrap().pop_front().unwrap_or(Does::Answer(200));
        let ran = |status: u16, busy| {
            let response = Response::builder().status(status).header("content-type", "application/json");
            let body = Full::new(Bytes::from_static(br#"{"worker":"inside","said":"inside"}"#));
            Some(Ran { response: response.body(body).unwrap(), busy })
        };
        async move {
            match next {
                Does::Answer(status) => ran(status, Duration::ZERO),
                Does::Busy(busy) => ran(200, busy),
                Does::Pass => None,
                Does::Panic => panic!("on purpose"),
                Does::Hang => std::future::pending().await,
            }
        }
        .boxed_local()
    }
}

/// A gateway with one worker `w` and a lane for its release.
async fn lane(does: &[Does]) -> (World, Worker, ModelRoute) {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "w", Behave::Answer("worker".to_owned()));
    let baseline = variant("r1", 1, &[&worker]);
    let runner = Arc::new(Script(Mutex::new(does.iter().copied().collect())));
    world.gateway.bring_inline(baseline.revision, model(), baseline.release, runner);
    let route = ModelRoute { inline: true, ..route(Some(baseline)) };
    world.publish(route.clone()).await;
    (world, worker, route)
}

fn state(world: &World) -> LaneState {
    world.gateway.inline(&digest("revision of r1")).unwrap()
}

async fn said(world: &World, requests: usize) -> Vec<String> {
    let mut client = world.client().await;
    let mut all = Vec::new();
    for i in 0..requests {
        let got = client.infer(&format!("u{i}")).await;
        all.push(if got.status == 200 { got.said() } else { got.status.to_string() });
    }
    all
}

#[tokio::test]
async fn what_is_inside_answers_and_the_workers_take_what_it_passes_on() {
    let (world, worker, route) =
        lane(&[Does::Answer(200), Does::Pass, Does::Answer(200), Does::Answer(400)]).await;
    assert_eq!(said(&world, 4).await, ["inside", "worker", "inside", "400"]);
    assert_eq!((worker.count(), state(&world)), (1, LaneState::Open));
    let mut client = world.client().await;
    assert_eq!(
        client.post("/v2/models/delay/infer", vec![b' '; 65 << 10]).await.said(),
        "worker",
        "too large"
    );
    assert_eq!(client.get("/v2/models/delay").await.said(), "worker");
    let totals = world.gateway.totals(&model());
    assert_eq!((totals[0].requests, totals[0].errors.total(), totals[0].retries), (5, 0, 0));
    let metrics = client.get("/metrics").await.text();
    for line in ["outcome=\"answered\"} 3", "outcome=\"passed\"} 1", "outcome=\"failed\"} 0"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // A killed worker costs nothing, and a table without the lane asks the workers again.
    let before = worker.count();
    world.publish(ModelRoute { inline: false, ..route.clone() }).await;
    assert_eq!(said(&world, 2).await, ["worker"; 2]);
    assert_eq!(worker.count(), before + 2);
    world.publish(route).await;
    worker.kill().await;
    assert_eq!(said(&world, 5).await, ["inside"; 5]);
}

#[tokio::test]
async fn a_table_with_something_to_compare_has_no_place_for_it() {
    let (world, worker, route) = lane(&[]).await;
    let split = with_candidate(route.baseline.clone(), variant("r2", 2, &[&worker]), 5000).split;
    for candidate in [
        with_candidate(route.baseline.clone(), variant("r2", 2, &[&worker]), 1).split,
        mirroring(route.baseline.clone().unwrap(), variant("r2", 2, &[&worker]), 100).split,
        previewing(route.baseline.clone(), variant("r2", 2, &[&worker])).split,
        split,
    ] {
        let epoch = world.gateway.applied_epoch() + 1;
        let both = table(epoch, ModelRoute { split: candidate, ..route.clone() });
        let refused = world.gateway.publish(both).await;
        assert!(matches!(&refused, Err(GatewayError::Table { reason, .. }) if reason.contains("compared")));
    }
    // And a lane that somebody left for the candidate's revision is never asked.
    let candidate = variant("r2", 2, &[&worker]);
    world.gateway.bring_inline(candidate.revision, model(), candidate.release, Arc::new(Script::default()));
    world.publish(with_candidate(route.baseline.clone(), candidate, 5000)).await;
    assert_eq!(said(&world, 40).await, vec!["worker"; 40]);
}

#[tokio::test]
async fn what_fails_inside_alone_is_answered_by_a_worker_and_left() {
    let (world, worker, _) = lane(&[Does::Answer(200), Does::Answer(500)]).await;
    assert_eq!(said(&world, 3).await, ["inside", "worker", "worker"]);
    assert_eq!(worker.count(), 2);
    assert_eq!(state(&world), LaneState::Demoted("the model failed where a worker's did not".to_owned()));
    let totals = world.gateway.totals(&model());
    assert_eq!((totals[0].errors.total(), totals[0].retries), (0, 1));
}

#[tokio::test]
async fn what_fails_everywhere_is_the_request_s_fault() {
    let (world, worker, _) = lane(&[Does::Answer(500)]).await;
    worker.now(Behave::Status(500));
    assert_eq!(said(&world, 2).await, ["500", "inside"]);
    assert_eq!((worker.count(), state(&world)), (1, LaneState::Open));
    assert_eq!(world.gateway.totals(&model())[0].errors.http_5xx, 1);
}

#[tokio::test]
async fn a_panic_costs_no_answer_and_the_lane() {
    let (world, _worker, _) = lane(&[Does::Panic]).await;
    assert_eq!(said(&world, 2).await, ["worker"; 2]);
    assert_eq!(state(&world), LaneState::Demoted("the model's code panicked".to_owned()));
    let metrics = world.client().await.get("/metrics").await.text();
    assert!(metrics.contains("lockgate_inline_demoted{") && metrics.contains("\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn one_that_hangs_is_given_up_after_the_environment_s_time_and_left() {
    let (world, worker, _) = lane(&[Does::Hang]).await;
    assert_eq!(said(&world, 2).await, ["504", "worker"]);
    assert_eq!(
        (worker.count(), state(&world)),
        (1, LaneState::Demoted("a request took longer than 500 ms".to_owned()))
    );
    assert_eq!(world.gateway.totals(&model())[0].errors.timeout, 1);
}

#[tokio::test]
async fn a_slow_one_is_left_and_a_new_deployment_begins_anew() {
    let slow = Does::Busy(Duration::from_micros(1400));
    let (world, _worker, route) = lane(&[slow; 6]).await;
    assert_eq!(said(&world, 7).await, [vec!["inside"; 6], vec!["worker"]].concat());
    assert_eq!(state(&world), LaneState::Demoted("p99 1.4 ms > 1 ms".to_owned()));
    let baseline = route.baseline.clone().unwrap();
    world.gateway.keep_inline(&[]);
    assert_eq!(world.gateway.inline(&baseline.revision), None);
    world.gateway.bring_inline(baseline.revision, model(), baseline.release, Arc::new(Script::default()));
    world.publish(ModelRoute { timeout_ms: 501, ..route }).await;
    assert_eq!(said(&world, 1).await, ["inside"]);
}
