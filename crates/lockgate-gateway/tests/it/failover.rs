use crate::common::*;
use lockgate_core::route::{ModelRoute, Role};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

fn says(text: &str) -> Behave {
    Behave::Answer(text.to_owned())
}

#[tokio::test]
async fn a_killed_worker_costs_no_request_where_there_is_another() {
    let world = start(options());
    let (a, b) =
        (Worker::start(world.dir.path(), "a", says("a")), Worker::start(world.dir.path(), "b", says("b")));
    world.publish(route(Some(variant("r1", 1, &[&a, &b])))).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.client().await);
    }
    let mut running = tokio::task::JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            for i in 0..200 {
                let got = client.infer(&format!("u{i}")).await;
                assert_eq!(got.status, 200, "{}", got.text());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(80)).await;
    a.kill().await;
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert!(b.count() > 300);
    let totals = world.gateway.totals(&model());
    assert_eq!((totals[0].requests, totals[0].errors.total()), (800, 0));
}

#[tokio::test]
async fn the_backup_answers_when_the_baseline_is_gone_and_it_counts_against_the_baseline() {
    let world = start(options());
    let (a, b) =
        (Worker::start(world.dir.path(), "a", says("a")), Worker::start(world.dir.path(), "b", says("b")));
    let backup = Some(variant("rules", 9, &[&b]));
    world.publish(ModelRoute { backup, ..route(Some(variant("r1", 1, &[&a]))) }).await;
    let mut client = world.client().await;
    assert_eq!(client.infer("u").await.header("x-lockgate-variant"), "baseline");
    let address = a.address.clone();
    a.kill().await;
    let got = client.infer("u").await;
    assert_eq!((got.status, got.header("x-lockgate-variant")), (200, "backup"));
    let totals = world.gateway.totals(&model());
    let baseline = totals.iter().find(|t| t.role == Role::Baseline).unwrap();
    assert_eq!((baseline.requests, baseline.failovers, baseline.errors.connect), (2, 1, 1));

    // The worker comes back at the same place: it is found again without a new table.
    let a = Worker::start(world.dir.path(), "a", says("a"));
    assert_eq!(a.address, address);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(client.infer("u").await.header("x-lockgate-variant"), "baseline");
}

#[tokio::test]
async fn a_request_waits_a_moment_for_a_lone_worker_to_come_back() {
    let world = start(options());
    let a = Worker::start(world.dir.path(), "a", says("a"));
    world.publish(route(Some(variant("r1", 1, &[&a])))).await;
    let mut client = world.client().await;
    assert_eq!(client.infer("u").await.status, 200);
    a.kill().await;
    let waiting = tokio::spawn(async move { (client.infer("u").await, client) });
    tokio::time::sleep(Duration::from_millis(120)).await;
    let a = Worker::start(world.dir.path(), "a", says("a"));
    let (got, mut client) = waiting.await.unwrap();
    assert_eq!(got.status, 200);
    a.kill().await;
    let got = client.infer("u").await;
    assert_eq!((got.status, got.header("retry-after")), (503, "1"));
    assert!(got.text().contains("no worker of model `delay` can be reached"), "{}", got.text());
}

#[tokio::test]
async fn time_outs_and_hang_ups_are_answered_and_counted() {
    let world = start(options());
    let a = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_secs(5)));
    world.publish(route(Some(variant("r1", 1, &[&a])))).await;
    let mut client = world.client().await;
    let got = client.infer("u").await;
    assert_eq!(got.status, 504);
    assert!(got.text().contains("within 500 ms"), "{}", got.text());
    a.now(Behave::HangUp);
    assert_eq!(client.infer("u").await.status, 503);
    a.now(Behave::Status(500));
    let before = a.count();
    assert_eq!(client.infer("u").await.status, 500);
    assert_eq!(a.count(), before + 1, "a model's own error is not tried again");
    a.now(Behave::Nonfinite);
    assert_eq!(client.infer("u").await.status, 200);
    a.now(Behave::Status(400));
    assert_eq!(client.infer("u").await.status, 400);
    let errors = world.gateway.totals(&model())[0].errors;
    assert_eq!((errors.timeout, errors.connect, errors.http_5xx, errors.nonfinite), (1, 1, 1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_as_abandoned() {
    let world = start(options());
    let (a, b) = (
        Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_secs(5))),
        Worker::start(world.dir.path(), "b", says("b")),
    );
    world.publish(with_candidate(Some(variant("r1", 1, &[&a])), variant("r2", 2, &[&b]), 0)).await;
    let mut io = tokio::net::TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    let head = format!(
        "POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    io.write_all(head.as_bytes()).await.unwrap();
    while world.gateway.totals(&model())[0].inflight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(io);
    let record = world.records.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((record.status, record.served), (499, None));
    let stats = world.gateway.stats(&model()).unwrap();
    assert_eq!((stats.segments[0].abandoned, stats.segments[0].events.errors), (1, 0));
    assert_eq!(world.gateway.totals(&model())[0].inflight, 0);
}

/// A client's own patience may be shorter than the environment's: that it leaves says nothing of the worker, but that no answer
/// comes after it left does.
#[tokio::test]
async fn a_worker_that_hangs_is_found_out_though_no_client_waits_for_so_long() {
    let world = start(lockgate_gateway::GatewayOptions { threads: 1, ..options() });
    let a = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_secs(60)));
    let b = Worker::start(world.dir.path(), "b", says("b"));
    world.publish(route(Some(variant("r1", 1, &[&a, &b])))).await;
    let impatient = async || {
        let mut client = world.client().await;
        tokio::time::timeout(Duration::from_millis(200), client.infer("u")).await.is_ok()
    };
    for _ in 0..8 {
        impatient().await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = a.count();
    let mut late = 0;
    for _ in 0..12 {
        late += u32::from(!impatient().await);
    }
    // One in two seconds finds out whether it still hangs.
    assert!(late <= 1 && a.count() <= before + 1, "{late} late, {} sent to it", a.count() - before);
}

#[tokio::test]
async fn a_worker_that_is_only_slower_than_its_clients_is_not_taken_for_one_that_hangs() {
    let world = start(lockgate_gateway::GatewayOptions { threads: 1, ..options() });
    let a = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_millis(150)));
    world.publish(route(Some(variant("r1", 1, &[&a])))).await;
    for _ in 0..20 {
        let mut client = world.client().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), client.infer("u")).await.is_err());
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let b = Worker::start(world.dir.path(), "b", says("b"));
    world.publish(route(Some(variant("r1", 1, &[&a, &b])))).await;
    let before = a.count();
    let mut client = world.client().await;
    for _ in 0..10 {
        assert_eq!(client.infer("u").await.status, 200);
    }
    assert!(a.count() >= before + 4, "it gets its turns");
}

#[tokio::test]
async fn mirrored_requests_neither_clear_nor_spoil_what_is_known_of_a_worker() {
    // The candidate's worker is the baseline's, too: it answers nothing but mirrored requests.
    let world = start(lockgate_gateway::GatewayOptions { threads: 1, ..options() });
    let a = Worker::start(world.dir.path(), "a", Behave::HangUnlessMirrored);
    let b = Worker::start(world.dir.path(), "b", says("b"));
    world.publish(mirroring(variant("r1", 1, &[&a, &b]), variant("r2", 2, &[&a]), 10_000)).await;
    let mut client = world.client().await;
    let mut late = 0;
    for i in 0..40 {
        late += usize::from(client.infer(&format!("u{i}")).await.status == 504);
    }
    assert_eq!(late, 3, "its answers to mirrored requests don't bring it back");
}

#[tokio::test]
async fn a_worker_that_hangs_is_passed_over_and_found_again() {
    let world = start(lockgate_gateway::GatewayOptions { threads: 1, ..options() });
    let a = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_secs(60)));
    let b = Worker::start(world.dir.path(), "b", says("b"));
    world.publish(route(Some(variant("r1", 1, &[&a, &b])))).await;
    let mut client = world.client().await;
    let mut late = 0;
    for i in 0..40 {
        late += usize::from(client.infer(&format!("u{i}")).await.status == 504);
    }
    assert_eq!(
        late, 3,
        "every request is answered as its own worker answers it, but a worker that hangs gets few"
    );
    // One request in a while finds out whether it still hangs, and no other one meets it meanwhile.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let mut running = tokio::task::JoinSet::new();
    for i in 0..16 {
        let mut client = world.client().await;
        running.spawn(async move { client.infer(&format!("v{i}")).await.status });
    }
    let got = running.join_all().await;
    assert_eq!(got.iter().filter(|s| **s == 504).count(), 1, "{got:?}");
    // It is itself again.
    a.now(says("a"));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let before = a.count();
    for i in 0..20 {
        assert_eq!(client.infer(&format!("w{i}")).await.status, 200);
    }
    assert!(a.count() >= before + 8, "{} requests", a.count() - before);
}
