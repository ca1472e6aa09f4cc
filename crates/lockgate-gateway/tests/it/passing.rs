//! Answers of servers that a team brings: what is looked at, what is not, how long one may take, and whose fault it is.

use crate::common::*;
use crate::streaming::{HEAD, Upstream, asking, chunk, record};
use lockgate_core::route::{Role, Variant, WHOLE, WorkerAddress};
use lockgate_core::server::ServerProtocol;
use lockgate_gateway::{ErrorCounts, SegmentStats, Unexamined};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const JSON: &str = "content-type: application/json\r\n";

/// A gateway whose candidate, which gets everything, is a server that the test plays.
async fn brought(world: &World, protocol: ServerProtocol, stream_ms: u64) -> Upstream {
    let upstream = Upstream::start().await;
    let candidate = upstream.variant(protocol, stream_ms);
    let mut route = with_candidate(Some(variant("r0", 1, &[])), candidate, WHOLE);
    route.unit = None;
    world.publish(route).await;
    upstream
}

fn candidate(world: &World) -> SegmentStats {
    let stats = world.gateway.stats(&model()).unwrap();
    stats.segments.into_iter().find(|s| s.arm == Role::Candidate).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < end, "not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks by OIP while the test plays the server: its whole answer, or less of it than it announced.
async fn answered(
    world: &World,
    upstream: &Upstream,
    head: &str,
    length: usize,
    body: &[u8],
) -> (String, Vec<u8>) {
    let mut client = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    let request = format!(
        "POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept-encoding: br, gzip;q=0.1\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let (asked, mut server) = upstream.asked().await;
    let head = format!("HTTP/1.1 200 OK\r\n{head}content-length: {length}\r\n\r\n");
    let write = async {
        let _ = server.write_all(head.as_bytes()).await;
        let _ = server.write_all(body).await;
        drop(server);
    };
    let mut got = Vec::new();
    let (_, _) = tokio::join!(write, client.read_to_end(&mut got));
    (asked, got)
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_nothing_up_beyond_the_limit_and_is_to_blame_itself() {
    let world = start(options());
    let upstream = brought(&world, ServerProtocol::Openai, 700).await;
    let mut client = asking(&world).await;
    let (_, mut server) = upstream.asked().await;
    let begun = Instant::now();
    server.write_all(HEAD.as_bytes()).await.unwrap();
    let piece = chunk(&format!("data: {{\"a\":\"{}\"}}\n\n", "x".repeat(100_000)));
    server.write_all(piece.as_bytes()).await.unwrap();
    let mut start = [0; 64];
    client.read_exact(&mut start).await.unwrap();
    // It says as much as anybody takes, until its connection is ended.
    let writing = async { while server.write_all(piece.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), writing).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(650), "{:?}", begun.elapsed());
    assert_eq!(record(&world).await.status, 200);
    assert_eq!(
        world.gateway.inflight(&digest("revision of r1")),
        0,
        "nothing holds the seal of a way back up"
    );
    let seen = candidate(&world);
    assert_eq!((seen.requests, seen.abandoned, seen.errors), (1, 1, ErrorCounts::default()));
    // What the client still gets is not a stream that looks whole.
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_connection_whose_client_takes_nothing_is_closed() {
    let mut options = options();
    options.send_timeout = Duration::from_millis(300);
    let world = start(options);
    let worker = Worker::start(world.dir.path(), "a", Behave::Large(50 << 20));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let mut client = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
    let request = format!(
        "POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut other = world.client().await;
    let one = "lockgate_gateway_connections{environment=\"production\"} 1\n";
    until("closed", async || other.get("/metrics").await.text().contains(one)).await;
    assert_eq!(world.gateway.inflight(&digest("revision of r1")), 0);
    let totals = &world.gateway.totals(&model())[0];
    assert_eq!((totals.requests, totals.errors.total()), (1, 0));
    drop(client);
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_is_its_side_s_error_and_one_that_comes_whole_is_none() {
    let world = start(options());
    let upstream = brought(&world, ServerProtocol::Oip, 60_000).await;
    let size = 3 << 20;
    let mut body = vec![b' '; size];
    body[0] = b'{';
    body[size - 1] = b'}';
    let (_, got) = answered(&world, &upstream, JSON, size, &body).await;
    assert!(got.ends_with(&body[size - 1000..]));
    assert_eq!(record(&world).await.response, None, "too large to be recorded");
    let seen = candidate(&world);
    assert_eq!((seen.requests, seen.abandoned, seen.errors), (1, 0, ErrorCounts::default()));
    assert_eq!(seen.events.unexamined, 0);
    answered(&world, &upstream, JSON, size, &body[..2 << 20]).await;
    record(&world).await;
    assert_eq!(candidate(&world).errors, ErrorCounts { connect: 1, ..ErrorCounts::default() });
    // NaN anywhere in it is found while it passes.
    body.splice(size - 10..size - 7, *b"NaN");
    answered(&world, &upstream, JSON, size, &body).await;
    record(&world).await;
    assert_eq!(candidate(&world).errors, ErrorCounts { connect: 1, nonfinite: 1, ..ErrorCounts::default() });
    assert_eq!(world.gateway.inflight(&digest("revision of r1")), 0);
}

#[tokio::test]
async fn what_can_t_be_looked_at_is_told_and_a_server_is_asked_for_what_can() {
    let world = start(options());
    let upstream = brought(&world, ServerProtocol::Oip, 60_000).await;
    let packed = format!("{JSON}content-encoding: br\r\n");
    let (asked, got) = answered(&world, &upstream, &packed, 4, b"\x0b\x00{}").await;
    assert!(asked.contains("accept-encoding: gzip\r\n") && asked.contains("via: 1.1 lockgate-"), "{asked}");
    assert!(got.ends_with(b"\x0b\x00{}"), "the client gets it all the same");
    assert_eq!(record(&world).await.unexamined, Some(Unexamined::Encoding));
    let large = vec![b' '; 2 << 20];
    let binary = "content-type: application/octet-stream\r\ninference-header-content-length: 2\r\n";
    answered(&world, &upstream, binary, large.len(), &large).await;
    assert_eq!(record(&world).await.unexamined, Some(Unexamined::Size));
    let seen = candidate(&world);
    assert_eq!((seen.requests, seen.events.unexamined, seen.errors.total()), (2, 2, 0));
    let text = world.client().await.get("/metrics").await.text();
    for reason in ["encoding", "size"] {
        let wanted = format!("reason=\"{reason}\"}} 1\n");
        assert!(
            text.lines()
                .any(|l| l.starts_with("lockgate_unexamined_answers_total")
                    && format!("{l}\n").ends_with(&wanted)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_a_server_claims_of_its_answers_is_not_believed_in_any_form() {
    let world = start(options());
    let upstream = brought(&world, ServerProtocol::Oip, 60_000).await;
    let claims = format!("{JSON}x-lockgate-nonfinite: 5\r\nx-lockgate-answer: 00000000000000aa\r\n");
    let mut large = vec![b' '; 2 << 20];
    large[0] = b'{';
    for body in [&b"{\"outputs\":[]}"[..], &large] {
        for _ in 0..2 {
            answered(&world, &upstream, &claims, body.len(), body).await;
            record(&world).await;
        }
    }
    let events = format!("{claims}content-type: text/event-stream\r\n").replace(JSON, "");
    answered(&world, &upstream, &events, 2, b"\n\n").await;
    record(&world).await;
    let seen = candidate(&world);
    assert_eq!((seen.requests, seen.errors.total()), (5, 0));
}

#[tokio::test]
async fn a_server_that_leads_back_to_its_gateway_is_found_out_at_once() {
    let world = start(options());
    let own = WorkerAddress::Tcp(world.gateway.local_addr().to_string());
    let upstream = Upstream::start().await;
    let mut looped = Variant { workers: vec![own], ..upstream.variant(ServerProtocol::Oip, 60_000) };
    if let Some(server) = &mut looped.server {
        server.model = "delay".to_owned();
    }
    world.publish(route(Some(looped))).await;
    let got = world.client().await.infer("u").await;
    assert_eq!(got.status, 508);
    assert!(got.text().contains("leads back"), "{}", got.text());
    assert_eq!(world.client().await.get("/v2/models/delay/ready").await.status, 508);
    let totals = &world.gateway.totals(&model())[0];
    assert_eq!((totals.requests, totals.errors.http_5xx), (1, 1), "it was taken in once");
}

#[tokio::test]
async fn what_a_model_says_of_itself_is_short() {
    let world = start(options());
    let worker = Worker::start(world.dir.path(), "a", Behave::Large(2 << 20));
    world.publish(route(Some(variant("r1", 1, &[&worker])))).await;
    let got = world.client().await.get("/v2/models/delay").await;
    assert!(got.status == 502 && got.text().contains("too large"), "{}", got.text());
}

#[tokio::test]
async fn a_mirrored_answer_is_judged_by_its_end() {
    let world = start(options());
    let (old, upstream) =
        (Worker::start(world.dir.path(), "a", Behave::Predict("1".to_owned())), Upstream::start().await);
    let candidate = upstream.variant(ServerProtocol::Oip, 60_000);
    world.publish(mirroring(variant("r0", 1, &[&old]), candidate, WHOLE)).await;
    assert_eq!(world.client().await.infer("u").await.status, 200);
    let (_, mut server) = upstream.asked().await;
    let head = format!("HTTP/1.1 200 OK\r\n{JSON}content-length: {}\r\n\r\n", 3 << 20);
    server.write_all(head.as_bytes()).await.unwrap();
    server.write_all(&vec![b' '; 2 << 20]).await.unwrap();
    drop(server);
    let mirrored = || {
        let stats = world.gateway.stats(&model()).unwrap();
        stats.segments.into_iter().find(|s| s.shadow && s.arm == Role::Candidate && s.requests == 1)
    };
    until("counted", async || mirrored().is_some()).await;
    assert_eq!(mirrored().unwrap().errors.connect, 1);
}

#[tokio::test]
async fn what_can_t_be_read_is_compared_with_nothing() {
    let world = start(options());
    let (upstream, new) =
        (Upstream::start().await, Worker::start(world.dir.path(), "n", Behave::Predict("1".to_owned())));
    let old = upstream.variant(ServerProtocol::Oip, 60_000);
    let new = Variant { revision: digest("revision of r2"), ..variant("r2", 2, &[&new]) };
    world.publish(mirroring(old, new, WHOLE)).await;
    for (packing, compared) in [("br", false), ("identity", true)] {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{JSON}content-encoding: {packing}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let serving = async {
            loop {
                let (_, mut server) = upstream.asked().await;
                server.write_all(head.as_bytes()).await.unwrap();
            }
        };
        let asking = async {
            for number in 0..60 {
                assert_eq!(world.client().await.infer(&format!("{packing}-{number}")).await.status, 200);
            }
            // What is mirrored is mirrored by then.
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        tokio::select! {
            () = serving => {}
            () = asking => {}
        }
        let seen = world.gateway.stats(&model()).unwrap().shadow.unwrap();
        assert_eq!(seen.samples.total() > 0, compared, "{seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_goes_on_and_on_is_late_where_its_client_takes_all_of_it() {
    let world = start(options());
    let upstream = brought(&world, ServerProtocol::Openai, 500).await;
    let mut client = asking(&world).await;
    let (_, mut server) = upstream.asked().await;
    server.write_all(HEAD.as_bytes()).await.unwrap();
    let speaking = async {
        while server.write_all(chunk("data: {\"a\":1}\n\n").as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut got = Vec::new();
    let both = async { tokio::join!(speaking, client.read_to_end(&mut got)) };
    let _ = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    record(&world).await;
    let seen = candidate(&world);
    assert_eq!((seen.abandoned, seen.errors), (0, ErrorCounts { timeout: 1, ..ErrorCounts::default() }));
}
