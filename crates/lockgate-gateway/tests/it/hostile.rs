use crate::common::*;
use lockgate_gateway::{Deps, Gateway, GatewayError, LogSink};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn says(text: &str) -> Behave {
    Behave::Answer(text.to_owned())
}

async fn raw(world: &World, text: &str) -> String {
    let mut io = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    io.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count =
        tokio::time::timeout(Duration::from_secs(5), io.read(&mut answer)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test]
async fn large_bodies_stream_in_both_directions_within_the_limit() {
    let mut options = options();
    options.max_body = 3 << 20;
    let world = start(options);
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut client = world.client().await;
    let got = client.post("/v2/models/delay/infer", vec![b'x'; 2 << 20]).await;
    assert!(got.text().contains(&format!("\"length\":{}", 2 << 20)), "{}", got.text());
    let record = world.records.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(record.request.is_none(), "a large body is logged as absent");
    worker.now(Behave::Large(5 << 20));
    assert_eq!(client.post("/v2/models/delay/infer", BODY).await.body.len(), 5 << 20);
    let before = worker.count();
    let got = world.client().await.post("/v2/models/delay/infer", vec![b'x'; (3 << 20) + 1]).await;
    assert!(got.status == 413 && got.text().contains("3145728"), "{}", got.text());
    assert_eq!(worker.count(), before);
}

#[tokio::test]
async fn a_body_without_a_length_that_grows_too_large_is_413_and_nobodys_fault() {
    let mut options = options();
    options.max_body = 2 << 20;
    let world = start(options);
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut io = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    io.write_all(b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 256 << 10, "x".repeat(256 << 10));
    // As clients do that read nothing before they have sent everything.
    for _ in 0..40 {
        io.write_all(chunk.as_bytes()).await.unwrap();
    }
    io.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let count =
        tokio::time::timeout(Duration::from_secs(5), io.read(&mut answer)).await.unwrap().unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(world.gateway.totals(&model())[0].errors.total(), 0);
}

#[tokio::test]
async fn half_requests_and_noise_harm_nobody() {
    let mut options = options();
    options.header_timeout = Duration::from_millis(200);
    options.body_timeout = Duration::from_millis(200);
    let world = start(options);
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    assert!(raw(&world, "\x16\x03\x01 no http at all\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let half =
        raw(&world, "POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nhalf")
            .await;
    assert!(half.starts_with("HTTP/1.1 408") && half.contains("didn't arrive in time"), "{half}");
    assert_eq!(raw(&world, "POST /v2/models/delay/inf").await, "", "a head that never ends is hung up on");
    assert!(
        raw(&world, "GET /v2/models/%ff/ready HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 404")
    );
    assert_eq!(world.client().await.infer("u").await.status, 200);
    assert_eq!(worker.count(), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let mut options = options();
    options.max_connections = 3;
    let world = start(options);
    let worker = Worker::start(world.dir.path(), "a", says("hi"));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = world.client().await;
        assert_eq!(client.infer("u").await.status, 200);
        kept.push(client);
    }
    assert_eq!(raw(&world, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await, "");
    let text = kept[0].get("/metrics").await.text();
    assert!(
        text.contains("lockgate_gateway_connections_refused_total{environment=\"production\"} 1"),
        "{text}"
    );
}

#[test]
fn settings_and_addresses_that_make_no_sense_are_refused_with_what_to_do() {
    struct Fixed;
    impl lockgate_core::clock::Clock for Fixed {
        fn now_ms(&self) -> i64 {
            0
        }
    }
    impl lockgate_core::clock::Entropy for Fixed {
        fn fill(&self, _: &mut [u8]) {}
    }
    let deps =
        || Deps { clock: Arc::new(Fixed), entropy: Arc::new(Fixed), log: LogSink::none(), listener: None };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = options();
    busy.listen = taken.local_addr().unwrap();
    let error = Gateway::start(busy, Default::default(), deps()).unwrap_err();
    assert!(error.to_string().contains("another process has this port"), "{error}");
    let mut wrong = options();
    wrong.breaker.limit = 1.5;
    let error = Gateway::start(wrong, Default::default(), deps()).unwrap_err();
    assert!(matches!(
        error,
        GatewayError::Option { field: "breaker", .. } | GatewayError::Option { field: "breaker.limit", .. }
    ));
}
