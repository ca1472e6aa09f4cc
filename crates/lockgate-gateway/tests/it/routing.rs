use crate::common::*;
use lockgate_core::plan::Testers;
use lockgate_core::route::{ModelRoute, Role, WorkerAddress};
use lockgate_gateway::{GatewayError, GatewayOptions, Protocol};
use std::time::Duration;

fn says(text: &str) -> Behave {
    Behave::Answer(text.to_owned())
}

#[tokio::test]
async fn a_prediction_goes_to_the_baseline_and_says_who_answered() {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 3, &[&worker])))).await;
    let mut client = world.client().await;
    let got = client.infer("alice").await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(got.text().contains("/v2/models/delay/infer"));
    assert_eq!(got.header("x-lockgate-release"), digest("r1").short());
    assert_eq!((got.header("x-lockgate-model-version"), got.header("x-lockgate-variant")), ("3", "baseline"));
    let id = got.header("x-lockgate-prediction-id").to_owned();
    assert_eq!(id.len(), 26);

    let record = world.records.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((record.id, record.status, record.unit.as_deref()), (id, 200, Some("alice")));
    assert_eq!((record.assigned, record.served), (Role::Baseline, Some(Role::Baseline)));
    assert_eq!(record.request.as_deref(), Some(BODY.as_bytes()));
    assert_eq!(record.response.as_deref(), Some(&got.body[..]));

    let got = client.post("/invocations", "{}").await;
    assert!(got.text().contains("\"path\":\"/invocations\""), "{}", got.text());
    assert_eq!(world.records.recv_timeout(Duration::from_secs(5)).unwrap().protocol, Protocol::Mlflow);
    let got = client.post("/models/delay/invocations", "{}").await;
    assert!(got.text().contains("\"path\":\"/invocations\""), "{}", got.text());
    assert_eq!(client.get("/v2/models/delay").await.status, 200);
}

#[tokio::test]
async fn unknown_things_are_404_with_what_there_is() {
    let world = start(options());
    let mut client = world.client().await;
    let got = client.post("/v2/models/delay/infer", BODY).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("nothing is deployed in environment `production`"), "{}", got.text());
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    assert_eq!(client.get("/v2/health/live").await.status, 200);

    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 3, &[&worker])))).await;
    assert_eq!(client.get("/v2/health/ready").await.status, 200);
    let got = client.post("/v2/models/dely/infer", BODY).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("it serves `delay`"), "{}", got.text());
    let got = client.post("/v2/models/delay/versions/9/infer", BODY).await;
    assert!(got.status == 404 && got.text().contains("no version 9"), "{}", got.text());
    assert_eq!(client.post("/v2/models/delay/versions/3/infer", BODY).await.status, 200);
    assert_eq!(client.get("/nonsense").await.status, 404);
    assert_eq!(client.get("/invocations").await.status, 405);
    assert_eq!(client.get("/v2/models/delay/infer").await.status, 405);
}

#[tokio::test]
async fn a_table_is_refused_whole_or_used_whole() {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let old = world.gateway.publish(table(1, route(None))).await;
    assert!(matches!(old, Err(GatewayError::Epoch { offered: 1, applied: 1 })));
    let heavy = with_candidate(None, variant("r2", 2, &[&worker]), 10_001);
    let none = ModelRoute { timeout_ms: 0, ..route(None) };
    for wrong in [heavy, none] {
        let refused = world.gateway.publish(table(7, wrong)).await;
        assert!(matches!(refused, Err(GatewayError::Table { .. })));
    }
    assert_eq!(world.gateway.applied_epoch(), 1);
    assert_eq!(world.client().await.infer("u").await.status, 200, "the table before is still in use");
}

#[tokio::test]
async fn after_publishing_no_request_starts_by_an_older_table() {
    let world = start(options());
    let (a, b) =
        (Worker::start(world.dir.path(), "a", says("a")), Worker::start(world.dir.path(), "b", says("b")));
    world.publish(route(Some(variant("r1", 1, &[&a])))).await;
    for turn in 0..20_u64 {
        let target = if turn % 2 == 0 { &b } else { &a };
        world.publish(route(Some(variant("r", turn, &[target])))).await;
        let before = (a.count(), b.count());
        for _ in 0..4 {
            assert_eq!(world.client().await.infer("u").await.status, 200);
        }
        let grown = (a.count() - before.0, b.count() - before.1);
        assert_eq!(grown, if turn % 2 == 0 { (0, 4) } else { (4, 0) });
    }
}

#[tokio::test]
async fn metrics_count_by_model_side_and_release() {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut client = world.client().await;
    for _ in 0..3 {
        client.infer("u").await;
    }
    let text = client.get("/metrics").await.text();
    let release = digest("r1").short();
    let labels =
        format!("environment=\"production\",model=\"delay\",variant=\"baseline\",release=\"{release}\"");
    for line in [
        format!("lockgate_requests_total{{{labels},status=\"2xx\"}} 3"),
        format!("lockgate_errors_total{{{labels},class=\"timeout\"}} 0"),
        format!("lockgate_request_duration_seconds_count{{{labels}}} 3"),
        format!("lockgate_traffic_share{{{labels}}} 1"),
        "lockgate_gateway_epoch{environment=\"production\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn shutting_down_lets_requests_finish_and_takes_no_new_ones() {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_millis(200)));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut client = world.client().await;
    let request = tokio::spawn(async move { client.infer("u").await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    let drained = world.gateway.shutdown(Duration::from_secs(5), Duration::ZERO).await;
    assert_eq!(drained.cut_off, 0);
    assert_eq!(request.await.unwrap().status, 200);
    assert!(tokio::net::TcpStream::connect(world.gateway.local_addr()).await.is_err());
}

/// A worker's address that takes no connection and refuses none: whoever tries waits until it gives up.
struct Stuck {
    address: WorkerAddress,
    _held: (socket2::Socket, Vec<std::net::TcpStream>),
}

impl Stuck {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&at, Duration::from_millis(100)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(64).collect();
        assert!(queue.len() < 64, "its queue is never full");
        Self { address: WorkerAddress::Tcp(at.to_string()), _held: (socket, queue) }
    }
}

/// A worker that can't be reached keeps a request waiting; meanwhile the candidate is taken off the table. The request must
/// not go on to the candidate's next worker: after publishing, no request starts by an older table.
#[tokio::test]
async fn what_was_taken_off_the_table_during_a_try_gets_no_second_one() {
    let world = start(GatewayOptions {
        connect_timeout: Duration::from_millis(800),
        threads: 1,
        // Whoever could not be reached is tried again at once: the turn alone says which worker is first.
        evict: Duration::ZERO,
        ..options()
    });
    let (old, new) = (
        Worker::start(world.dir.path(), "old", says("old")),
        Worker::start(world.dir.path(), "new", says("new")),
    );
    let stuck = Stuck::new();
    let mut candidate = variant("r2", 2, &[&new]);
    candidate.workers.push(stuck.address.clone());
    let with = |testers| ModelRoute {
        testers,
        timeout_ms: 5000,
        ..with_candidate(Some(variant("r1", 1, &[&old])), candidate.clone(), 10_000)
    };
    for (testers, headers, status) in
        [(Testers::Nobody, vec![], 200), (Testers::Anybody, vec![("x-lockgate-release", "candidate")], 503)]
    {
        loop {
            world.publish(with(testers)).await;
            let (mut client, headers) = (world.client().await, headers.clone());
            let asked = tokio::spawn(async move { client.with("/v2/models/delay/infer", &headers).await });
            tokio::time::sleep(Duration::from_millis(200)).await;
            if asked.is_finished() {
                // The good worker was first: once more, then it is the other one's turn.
                assert_eq!(asked.await.unwrap().said(), "new");
                continue;
            }
            world.publish(route(Some(variant("r1", 1, &[&old])))).await;
            let before = new.count();
            let got = asked.await.unwrap();
            assert_eq!((got.status, new.count()), (status, before), "{}", got.text());
            break;
        }
    }
}

/// Also where a request could go to another side: with all the traffic on one of two sides, every worker of it has its turn.
#[tokio::test]
async fn workers_of_a_side_take_turns_however_many_sides_there_are() {
    let world = start(GatewayOptions { threads: 1, ..options() });
    let workers = ["old", "a", "b"].map(|name| Worker::start(world.dir.path(), name, says(name)));
    let [old, a, b] = &workers;
    world.publish(with_candidate(Some(variant("r1", 1, &[old])), variant("r2", 2, &[a, b]), 10_000)).await;
    let mut client = world.client().await;
    for unit in 0..40 {
        assert_eq!(client.infer(&format!("u{unit}")).await.status, 200);
    }
    assert_eq!([old, a, b].map(Worker::count), [0, 20, 20]);
}
