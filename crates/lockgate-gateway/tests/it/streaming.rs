//! Servers that a team brings, and answers that they stream: passed on piece by piece, and counted when they end.

use crate::common::*;
use lockgate_core::plan::Testers;
use lockgate_core::route::{ModelRoute, Role, Variant};
use lockgate_core::server::{Server, ServerProtocol};
use lockgate_gateway::{ErrorCounts, LogRecord, Protocol};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const DONE: &str = "data: [DONE]\n\n";

/// A server whose answers the test writes.
pub(crate) struct Upstream(pub(crate) TcpListener);

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn variant(&self, protocol: ServerProtocol, stream_ms: u64) -> Variant {
        let address = self.0.local_addr().unwrap().to_string();
        let server = Server { protocol, model: "inside".to_owned(), version: None, health: None, stream_ms };
        let workers = vec![lockgate_core::route::WorkerAddress::Tcp(address)];
        Variant { workers, server: Some(server), ..variant("r1", 1, &[]) }
    }

    /// The next request, and where its answer goes.
    pub(crate) async fn asked(&self) -> (String, TcpStream) {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let text = read_until(&mut stream, "}").await;
        (text, stream)
    }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with(end) {
        let count =
            tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "the connection ended after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A client that has asked for a stream.
pub(crate) async fn asking(world: &World) -> TcpStream {
    asking_with(world, "").await
}

/// The same with more headers.
async fn asking_with(world: &World, headers: &str) -> TcpStream {
    let body = r#"{"model":"delay","stream":true,"messages":[]}"#;
    let mut client = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn serving(stream_ms: u64) -> (World, Upstream) {
    let (world, upstream) = (start(options()), Upstream::start().await);
    world.publish(route(Some(upstream.variant(ServerProtocol::Openai, stream_ms)))).await;
    (world, upstream)
}

/// The record of the only request, once it is there.
pub(crate) async fn record(world: &World) -> LogRecord {
    let mut found = None;
    for _ in 0..500 {
        found = world.records.try_recv().ok();
        if found.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    found.unwrap()
}

fn errors(world: &World) -> ErrorCounts {
    let totals = world.gateway.totals(&model());
    totals.iter().find(|t| t.role == Role::Baseline).unwrap().errors
}

#[tokio::test]
async fn pieces_are_passed_on_as_they_come_and_counted_when_the_last_one_was_there() {
    let (world, upstream) = serving(60_000).await;
    let mut client = asking(&world).await;
    let (asked, mut server) = upstream.asked().await;
    assert!(asked.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with(r#"{"model":"inside","stream":true,"messages":[]}"#), "{asked}");
    server.write_all(HEAD.as_bytes()).await.unwrap();
    for piece in ["data: {\"a\":1}\n\n", "data: {\"a\":2}\n\n"] {
        server.write_all(chunk(piece).as_bytes()).await.unwrap();
        // The server says nothing more before the client has it.
        let got = read_until(&mut client, &format!("{piece}\r\n")).await;
        assert!(!piece.contains("\"a\":1") || got.contains("x-lockgate-prediction-id"), "{got}");
        assert!(world.records.try_recv().is_err());
        assert_eq!(world.gateway.inflight(&digest("revision of r1")), 1);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.write_all(format!("{}0\r\n\r\n", chunk(DONE)).as_bytes()).await.unwrap();
    read_until(&mut client, "0\r\n\r\n").await;
    let record = record(&world).await;
    assert_eq!((record.protocol, record.status), (Protocol::Openai, 200));
    assert_eq!(record.response.unwrap(), format!("data: {{\"a\":1}}\n\ndata: {{\"a\":2}}\n\n{DONE}"));
    assert!(record.latency_us < 300_000, "the latency of a stream is the time to its first byte");
    assert_eq!(errors(&world).total(), 0);
    assert_eq!(world.gateway.inflight(&digest("revision of r1")), 0);
}

#[tokio::test]
async fn streams_that_break_fail_or_end_too_early_are_errors() {
    let failed = "data: {\"error\":{\"message\":\"no\"}}\n\n";
    for (rest, wanted) in [
        // Cut off in the middle.
        (String::new(), ErrorCounts { connect: 1, ..ErrorCounts::default() }),
        // It ends well, but says nothing of its end.
        ("0\r\n\r\n".to_owned(), ErrorCounts { connect: 1, ..ErrorCounts::default() }),
        (
            format!("{}{}0\r\n\r\n", chunk(failed), chunk(DONE)),
            ErrorCounts { http_5xx: 1, ..ErrorCounts::default() },
        ),
    ] {
        let (world, upstream) = serving(60_000).await;
        let mut client = asking(&world).await;
        let (_, mut server) = upstream.asked().await;
        server.write_all(format!("{HEAD}{}{rest}", chunk("data: {\"a\":1}\n\n")).as_bytes()).await.unwrap();
        drop(server);
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all).await;
        assert_eq!(record(&world).await.status, 200);
        assert_eq!(errors(&world), wanted, "{rest:?}");
        // It was tried once: the client had some of it already.
        assert!(tokio::time::timeout(Duration::from_millis(100), upstream.0.accept()).await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_work_and_one_that_has_all_it_wanted_does_not_count_as_gone() {
    for (piece, abandoned) in [("data: {\"a\":1}\n\n", true), (DONE, false)] {
        let (world, upstream) = serving(60_000).await;
        let mut route = with_candidate(
            Some(variant("r0", 1, &[])),
            upstream.variant(ServerProtocol::Openai, 60_000),
            10_000,
        );
        route.unit = None;
        world.publish(route).await;
        let mut client = asking(&world).await;
        let (_, mut server) = upstream.asked().await;
        server.write_all(format!("{HEAD}{}", chunk(piece)).as_bytes()).await.unwrap();
        read_until(&mut client, &format!("{piece}\r\n")).await;
        drop(client);
        // The server sees its connection end.
        let mut buffer = [0; 16];
        let end = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                match server.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        end.await.unwrap();
        record(&world).await;
        let stats = world.gateway.stats(&model()).unwrap();
        let candidate = stats.segments.iter().find(|s| s.arm == Role::Candidate).unwrap();
        assert_eq!((candidate.requests, candidate.abandoned), (1, u64::from(abandoned)));
        assert_eq!(candidate.errors.total(), 0);
    }
}

#[tokio::test]
async fn a_stream_has_a_limit_of_its_own_and_its_first_byte_that_of_the_environment() {
    let (world, upstream) = serving(400).await;
    let mut client = asking(&world).await;
    let (_, mut server) = upstream.asked().await;
    let begun = Instant::now();
    server.write_all(format!("{HEAD}{}", chunk("data: {\"a\":1}\n\n")).as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all).await;
    assert!(begun.elapsed() >= Duration::from_millis(390) && begun.elapsed() < Duration::from_secs(3));
    assert!(!all.ends_with(b"0\r\n\r\n"), "a stream that is broken off must not look whole");
    record(&world).await;
    assert_eq!(errors(&world), ErrorCounts { timeout: 1, ..ErrorCounts::default() });
    // This one never says anything.
    let mut client = asking(&world).await;
    let (_, _server) = upstream.asked().await;
    let mut buffer = [0; 64];
    let count = client.read(&mut buffer).await.unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 504"), "{:?}", String::from_utf8_lossy(&buffer[..count]));
}

#[tokio::test]
async fn a_tester_s_stream_comes_from_its_side_and_is_in_no_count_that_decides() {
    let (world, upstream) = (start(options()), Upstream::start().await);
    let candidate = upstream.variant(ServerProtocol::Openai, 60_000);
    let route = with_candidate(Some(variant("r0", 1, &[])), Variant { model_version: 2, ..candidate }, 0);
    world.publish(ModelRoute { testers: Testers::Anybody, ..route }).await;
    let mut client = asking_with(&world, "x-lockgate-release: candidate\r\n").await;
    let (asked, mut server) = upstream.asked().await;
    assert!(asked.ends_with(r#"{"model":"inside","stream":true,"messages":[]}"#), "{asked}");
    let piece = "data: {\"a\":1}\n\n";
    server.write_all(format!("{HEAD}{}", chunk(piece)).as_bytes()).await.unwrap();
    let got = read_until(&mut client, &format!("{piece}\r\n")).await;
    assert!(got.contains("x-lockgate-variant: candidate"), "{got}");
    assert_eq!(world.gateway.inflight(&digest("revision of r1")), 1, "it holds its workers");
    server.write_all(format!("{}0\r\n\r\n", chunk(DONE)).as_bytes()).await.unwrap();
    read_until(&mut client, "0\r\n\r\n").await;
    let record = record(&world).await;
    assert_eq!((record.forced.as_deref(), record.status), (Some("anybody"), 200));
    assert_eq!(record.response.unwrap(), format!("{piece}{DONE}"));
    assert!(world.gateway.totals(&model()).iter().all(|totals| totals.requests == 0));
    assert_eq!(world.gateway.inflight(&digest("revision of r1")), 0);
    // What its side doesn't speak is refused, and no other side is asked.
    let got =
        world.client().await.with("/v2/models/delay/infer", &[("x-lockgate-release", "candidate")]).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("speaks only OpenAI's API"), "{}", got.text());
}

#[tokio::test]
async fn a_stream_under_way_comes_to_its_end_while_the_gateway_drains() {
    let (world, upstream) = serving(60_000).await;
    let mut client = asking(&world).await;
    let (_, mut server) = upstream.asked().await;
    let piece = "data: {\"a\":1}\n\n";
    server.write_all(format!("{HEAD}{}", chunk(piece)).as_bytes()).await.unwrap();
    read_until(&mut client, &format!("{piece}\r\n")).await;
    let rest = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.write_all(format!("{}0\r\n\r\n", chunk(DONE)).as_bytes()).await.unwrap();
        read_until(&mut client, "0\r\n\r\n").await
    };
    let drained = world.gateway.shutdown(Duration::from_secs(10), Duration::from_millis(50));
    let (drained, got) = tokio::join!(drained, rest);
    assert_eq!(drained.cut_off, 0);
    assert!(got.contains(DONE), "{got}");
    assert_eq!(record(&world).await.response.unwrap(), format!("{piece}{DONE}"));
    assert_eq!(errors(&world).total(), 0);
}

#[tokio::test]
async fn a_server_is_asked_in_its_own_protocol_alone() {
    let (world, upstream) = serving(60_000).await;
    let mut client = world.client().await;
    let got = client.infer("u").await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("speaks only OpenAI's API"), "{}", got.text());
    world.publish(route(Some(upstream.variant(ServerProtocol::Oip, 60_000)))).await;
    let got = client.post("/v1/chat/completions", r#"{"model":"delay","messages":[]}"#).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("\"type\":\"invalid_request_error\""), "{}", got.text());
    let got = client.post("/v1/embeddings", r#"{"model":"nobody","input":""}"#).await;
    assert!(got.status == 404 && got.text().contains("model_not_found"), "{}", got.text());
    assert_eq!(client.post("/openai/v1/completions", "{}").await.status, 400);
    assert!(client.get("/openai/v1/models").await.text().contains("\"id\":\"delay\""));
    assert!(client.get("/openai/v1/models/delay").await.text().contains("\"object\":\"model\""));
    // Its answers are looked at, for it says nothing of them itself.
    let asking = tokio::spawn(async move { client.infer("u").await });
    let (asked, mut server) = upstream.asked().await;
    assert!(asked.starts_with("POST /v2/models/inside/infer HTTP/1.1\r\n"), "{asked}");
    let body =
        r#"{"model_name":"inside","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[NaN]}]}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    server.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    assert_eq!(asking.await.unwrap().text(), body);
    assert_eq!(errors(&world).nonfinite, 1);
}
