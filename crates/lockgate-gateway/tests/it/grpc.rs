//! gRPC as any client speaks it: frames, codes, metadata, and what hostile clients send.

use crate::common::{
    Behave, Worker, World, digest, options, previewing, route, start, variant, with_candidate,
};
use crate::testers::{claims, signed};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockgate_gateway::Protocol;
use lockgate_wire::Encoding;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// `ModelInferRequest` with a model's name, a version and an id.
fn asks(model: &str, version: &str) -> Vec<u8> {
    let field = |number: u8, text: &str| [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat();
    [field(1, model), field(2, version), field(3, "q")].concat()
}

fn frame(packed: u8, message: &[u8]) -> Vec<u8> {
    [&[packed], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

struct Call {
    code: u16,
    words: String,
    headers: HeaderMap,
    body: Bytes,
}

struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(world: &World) -> Self {
        let io = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
        let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
        let (sender, connection) = connection.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn call(&mut self, path: &str, body: Vec<u8>, more: &[(&str, &str)]) -> Call {
        let mut request =
            Request::post(format!("http://gateway{path}")).header("content-type", "application/grpc");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let collected = response.into_body().collect().await.unwrap();
        let said = collected.trailers().cloned().unwrap_or_else(|| headers.clone());
        let text = |name: &str| said.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        Call {
            code: text("grpc-status").parse().unwrap(),
            words: text("grpc-message"),
            headers,
            body: collected.to_bytes(),
        }
    }

    async fn infer(&mut self, message: &[u8]) -> Call {
        self.call(INFER, frame(0, message), &[]).await
    }
}

fn answers(dir: &World, name: &str) -> Worker {
    Worker::start(dir.dir.path(), name, Behave::Answer(name.to_owned()))
}

#[tokio::test]
async fn a_prediction_is_routed_counted_recorded_and_named_in_the_metadata() {
    let world = start(options());
    let old = answers(&world, "old");
    world.publish(route(Some(variant("old", 1, &[&old])))).await;
    let mut client = Client::connect(&world).await;
    let unit = [("x-unit", "alice"), ("x-request-id", "r-7"), ("grpc-timeout", "20S")];
    let got = client.call(INFER, frame(0, &asks("delay", "")), &unit).await;
    assert_eq!((got.code, got.words.as_str()), (0, ""));
    assert_eq!(got.body[0], 0);
    assert_eq!(u32::from_be_bytes(got.body[1..5].try_into().unwrap()) as usize, got.body.len() - 5);
    let said = String::from_utf8_lossy(&got.body[5..]);
    assert!(said.contains(&format!("\"path\":\"{INFER}\"")) && said.contains("\"length\":12"), "{said}");
    assert_eq!(got.headers["x-lockgate-variant"], "baseline");
    assert_eq!(got.headers["x-request-id"], "r-7");
    let record = world.records.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(got.headers["x-lockgate-prediction-id"], record.id.as_str());
    assert_eq!(
        (record.protocol, record.unit.as_deref(), record.status),
        (Protocol::Grpc, Some("alice"), 200)
    );
    assert_eq!(record.request.as_deref(), Some(&asks("delay", "")[..]));
    assert_eq!(world.gateway.totals(&crate::common::model())[0].by_class[1], 1);
    // The same port still speaks HTTP/1.1, and HTTP/2 without gRPC.
    assert_eq!(world.client().await.infer("bob").await.status, 200);
}

#[tokio::test]
async fn packed_messages_arrive_unpacked_and_units_keep_their_side() {
    let world = start(options());
    let (old, new) = (answers(&world, "old"), answers(&world, "new"));
    world.publish(with_candidate(Some(variant("old", 1, &[&old])), variant("new", 2, &[&new]), 5000)).await;
    let mut client = Client::connect(&world).await;
    let mut plain = world.client().await;
    for number in 0..20 {
        let unit = format!("unit-{number}");
        let encoding = if number % 2 == 0 { Encoding::Gzip } else { Encoding::Deflate };
        let packed = frame(1, &encoding.pack(&asks("delay", "")).unwrap());
        let more = [("x-unit", unit.as_str()), ("grpc-encoding", encoding.as_str())];
        let got = client.call(INFER, packed, &more).await;
        assert!(String::from_utf8_lossy(&got.body).contains("\"length\":12"));
        let rest = plain.infer(&unit).await;
        assert_eq!(got.headers["x-lockgate-variant"], rest.headers["x-lockgate-variant"], "{unit}");
    }
    let pinned = client.infer(&asks("delay", "2")).await;
    assert_eq!(pinned.headers["x-lockgate-release"], digest("new").short().as_str());
}

#[tokio::test]
async fn errors_have_the_protocols_codes_and_words() {
    let mut options = options();
    options.max_body = 1000;
    let world = start(options);
    let worker = answers(&world, "old");
    world.publish(route(Some(variant("old", 1, &[&worker])))).await;
    let mut client = Client::connect(&world).await;
    let good = asks("delay", "");
    let lying = [&frame(0, &good)[..4], &[200], &good].concat();
    let bomb = frame(1, &Encoding::Gzip.pack(&vec![0; 100_000]).unwrap());
    let gzip = [("grpc-encoding", "gzip")];
    for (path, body, more, code, words) in [
        (INFER, frame(0, &asks("other", "")), &[][..], 5, "no model `other`"),
        (INFER, frame(0, &asks("delay", "9")), &[], 5, "no version 9"),
        (INFER, frame(0, &asks("delay", "-1")), &[], 5, "no model version"),
        (INFER, frame(0, &[0x0a, 200]), &[], 3, "no valid protobuf"),
        (INFER, vec![], &[], 3, "no message"),
        (INFER, vec![0, 0, 0], &[], 3, "no message"),
        (INFER, lying, &[], 3, "frame says 200 bytes"),
        (INFER, [frame(0, &good), frame(0, &good)].concat(), &[], 3, "frame says 12 bytes"),
        (INFER, frame(7, &good), &[], 3, "neither 0 nor 1"),
        (INFER, frame(1, &good), &[], 3, "no grpc-encoding"),
        (INFER, frame(1, &good), &gzip, 3, "can't be unpacked"),
        (INFER, bomb, &gzip, 8, "larger than 1000 bytes"),
        (INFER, frame(0, &[0; 2000]), &[], 8, "larger than 1000 bytes"),
        (INFER, frame(0, &good), &[("grpc-encoding", "snappy")], 12, "snappy"),
        (INFER, frame(0, &good), &[("grpc-timeout", "soon")], 3, "grpc-timeout"),
        ("/inference.GRPCInferenceService/Explain", frame(0, &[]), &[], 12, "Explain"),
        ("/some.Service/Call", frame(0, &[]), &[], 12, "/some.Service/Call"),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", frame(0, &[]), &[], 9, "promotions"),
        ("/inference.GRPCInferenceService/ModelMetadata", frame(0, &[0xff]), &[], 3, "no valid protobuf"),
        (
            "/inference.GRPCInferenceService/ModelStatistics",
            frame(0, &[0x0a, 1, b'x']),
            &[],
            5,
            "no model `x`",
        ),
        ("/grpc.health.v1.Health/Check", frame(0, &[0x0a, 1, b'x']), &[], 5, "`x`"),
    ] {
        let got = client.call(path, body, more).await;
        assert_eq!(got.code, code, "{path} {words}: {}", got.words);
        assert!(got.words.contains(words), "{path}: {} lacks {words}", got.words);
    }
    for (behave, code) in [
        (Behave::Status(400), 3),
        (Behave::Status(404), 5),
        (Behave::Status(429), 8),
        (Behave::Status(500), 13),
    ] {
        worker.now(behave.clone());
        let got = client.infer(&good).await;
        assert_eq!((got.code, got.words.as_str()), (code, "no"), "{behave:?}");
    }
    worker.now(Behave::Slow(Duration::from_secs(5)));
    let got = client.infer(&good).await;
    assert_eq!(got.code, 4, "the route's own limit: {}", got.words);
    let got = client.call(INFER, frame(0, &good), &[("grpc-timeout", "30m")]).await;
    assert_eq!(got.code, 4, "{}", got.words);
    assert!(got.words.contains("the client's deadline"), "{}", got.words);
    worker.kill().await;
    assert_eq!(client.infer(&good).await.code, 14);
}

#[tokio::test]
async fn a_stream_answers_each_message_and_ends_with_the_client_or_the_gateway() {
    let world = start(options());
    let worker = answers(&world, "old");
    world.publish(route(Some(variant("old", 1, &[&worker])))).await;
    let mut client = Client::connect(&world).await;
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let three =
        [frame(0, &asks("delay", "")), frame(0, &asks("other", "")), frame(0, &asks("delay", ""))].concat();
    let got = client.call(path, three.clone(), &[]).await;
    assert_eq!(got.code, 0, "{}", got.words);
    let (mut rest, mut kinds) = (&got.body[..], vec![]);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        // Field 2 is an answer, field 1 an error's words.
        kinds.push(rest[5] >> 3);
        rest = &rest[5 + length..];
    }
    assert_eq!(kinds, [2, 1, 2]);
    let cut = client.call(path, three[..three.len() - 1].to_vec(), &[]).await;
    assert_eq!(cut.code, 3, "{}", cut.words);
    assert!(cut.words.contains("within a message"));
    let huge = client.call(path, vec![0, 255, 255, 255, 255], &[]).await;
    assert_eq!(huge.code, 8, "{}", huge.words);
}

#[tokio::test]
async fn half_a_preface_is_waited_for_and_what_only_looks_like_one_is_http_1() {
    let mut options = options();
    options.header_timeout = Duration::from_millis(400);
    let world = start(options);
    let first_bytes = async |parts: &[&[u8]]| {
        let mut io = TcpStream::connect(world.gateway.local_addr()).await.unwrap();
        for part in parts {
            io.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut answer = vec![];
        let _ = tokio::time::timeout(Duration::from_secs(5), io.read_buf(&mut answer)).await.unwrap();
        answer
    };
    // A settings frame comes first on HTTP/2: its length, then type 4.
    let settings = first_bytes(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"]).await;
    assert_eq!(settings.get(3), Some(&4), "{settings:?}");
    let one = first_bytes(&[b"P", b"RINT /v2 HTTP/1.1\r\nhost: x\r\n\r\n"]).await;
    assert!(one.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&one));
    // Nothing more comes: the connection is closed.
    assert!(first_bytes(&[b"PRI * HT"]).await.is_empty());
}

#[tokio::test]
async fn clients_whose_deadlines_are_short_dont_hide_a_worker_that_hangs() {
    let world = start(lockgate_gateway::GatewayOptions { threads: 1, ..options() });
    let a = Worker::start(world.dir.path(), "a", Behave::Slow(Duration::from_secs(60)));
    let b = answers(&world, "b");
    world.publish(route(Some(variant("r1", 1, &[&a, &b])))).await;
    let mut client = Client::connect(&world).await;
    let message = frame(0, &asks("delay", ""));
    let mut late = async |calls| {
        let mut late = 0;
        for _ in 0..calls {
            let call = client.call(INFER, message.clone(), &[("grpc-timeout", "200m")]).await;
            late += u32::from(call.code == 4);
        }
        late
    };
    let first = late(8).await;
    assert!(first >= 3, "{first}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    // One in two seconds finds out whether it still hangs.
    let then = late(12).await;
    assert!(then <= 1, "{then}");
}

#[tokio::test]
async fn calls_are_sent_to_a_side_by_metadata_and_errors_have_grpcs_codes() {
    let world = start(options());
    let (old, new) = (answers(&world, "old"), answers(&world, "new"));
    world.publish(previewing(Some(variant("r1", 1, &[&old])), variant("r2", 2, &[&new]))).await;
    let token = signed(&claims());
    let mut client = Client::connect(&world).await;
    let message = frame(0, &asks("delay", ""));
    let call = client.call(INFER, message.clone(), &[("x-lockgate-preview", &token)]).await;
    assert_eq!((call.code, call.headers["x-lockgate-variant"].to_str().unwrap()), (0, "candidate"));
    let call = client.call(INFER, message.clone(), &[]).await;
    assert_eq!(call.headers["x-lockgate-variant"], "baseline");
    let call = client.call(INFER, message.clone(), &[("x-lockgate-preview", "lgp1.no.no")]).await;
    assert_eq!(call.code, 16, "{}", call.words);
    let none = [("x-lockgate-preview", token.as_str()), ("x-lockgate-release", "0123456789")];
    let call = client.call(INFER, message, &none).await;
    assert_eq!(call.code, 5, "{}", call.words);
}

/// Calls that name no model, or ask about one as a whole, are about the side that a tester's token leads to.
#[tokio::test]
async fn questions_are_answered_for_the_side_of_the_token() {
    let world = start(options());
    let (old, new) = (answers(&world, "old"), answers(&world, "new"));
    let at = |candidate: &[&Worker]| previewing(Some(variant("r1", 1, &[&old])), variant("r2", 2, candidate));
    world.publish(at(&[&new])).await;
    let token = signed(&claims());
    let mut client = Client::connect(&world).await;
    let (own, none) = ([("x-lockgate-preview", token.as_str())], [("x-lockgate-preview", "lgp1.no.no")]);
    let service = |call: &str| format!("/inference.GRPCInferenceService/{call}");
    let field = |text: &str| [&[10, text.len() as u8], text.as_bytes()].concat();
    let health = "/grpc.health.v1.Health/Check".to_owned();
    let questions = [
        (service("ServerLive"), vec![]),
        (service("ServerReady"), vec![]),
        (service("ServerMetadata"), vec![]),
        (service("ModelReady"), field("delay")),
        (service("ModelStatistics"), field("delay")),
        (service("ModelStatistics"), vec![]),
        (service("RepositoryIndex"), vec![]),
        (health.clone(), vec![]),
        (health, field("delay")),
    ];
    for (path, message) in &questions {
        let call = client.call(path, frame(0, message), &own).await;
        assert_eq!(call.code, 0, "{path}: {}", call.words);
        let call = client.call(path, frame(0, message), &none).await;
        assert_eq!(call.code, 16, "{path}: who may not ask is told so: {}", call.words);
    }
    for path in ["ModelStatistics", "RepositoryIndex"].map(service) {
        // A version is the second field of what is in the list.
        let of = |n: u8| [18, 1, n];
        let has = |body: &Bytes, n: u8| body.windows(3).any(|w| w == of(n));
        let call = client.call(&path, frame(0, &[]), &own).await;
        assert!(has(&call.body, b'2') && !has(&call.body, b'1'), "{path}: {:?}", call.body);
        let call = client.call(&path, frame(0, &[]), &[]).await;
        assert!(has(&call.body, b'1') && !has(&call.body, b'2'), "{path}: {:?}", call.body);
    }
    // Without a worker the candidate is not ready, however ready the users' side is.
    world.publish(at(&[])).await;
    for (path, message) in [(service("ServerReady"), vec![]), (service("ModelReady"), field("delay"))] {
        let yes = client.call(&path, frame(0, &message), &[]).await;
        assert_eq!((yes.code, &yes.body[..]), (0, &frame(0, &[8, 1])[..]), "{path}");
        let own = client.call(&path, frame(0, &message), &own).await;
        assert_ne!((own.code, &own.body[..]), (0, &frame(0, &[8, 1])[..]), "{path}");
    }
}

/// S48: calls over one connection go on while all users are switched there and back.
#[tokio::test]
async fn calls_survive_a_switch_there_and_back() {
    let world = start(options());
    let (old, new) = (answers(&world, "old"), answers(&world, "new"));
    let side = |weight| with_candidate(Some(variant("r1", 1, &[&old])), variant("r2", 2, &[&new]), weight);
    world.publish(side(0)).await;
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (mut client, over) = (Client::connect(&world).await, over.clone());
        running.spawn(async move {
            let mut calls = 0_u32;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let call = client.infer(&asks("delay", "")).await;
                assert_eq!(call.code, 0, "{}", call.words);
                calls += 1;
            }
            calls
        });
    }
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let met = || old.count() > 0 && new.count() > 0;
    for turn in 0.. {
        // However busy the machine is: some calls on either side.
        if turn >= 20 && (met() || std::time::Instant::now() > until) {
            break;
        }
        for weight in [10_000, 0] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            world.publish(side(weight)).await;
        }
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(running.join_all().await.iter().sum::<u32>() > 20);
    assert!(old.count() > 0 && new.count() > 0, "{} and {}", old.count(), new.count());
}
