//! A real worker process on a real socket, spoken to as a gateway does.

use crate::common::{Answer, Client, Release, release, socket};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use lockgate_core::schema::ColumnType::{Double, Float, String as Text};
use lockgate_runtime::worker::header;
use lockgate_wire::oip::{InferResponse, ResponseHead, write_binary_response};
use lockgate_wire::{Data, Encoding, Limits};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

fn logreg() -> Release {
    release("logreg.onnx", &[("a", Double), ("b", Double), ("c", Double), ("d", Double)])
}

fn rows(data: &str, count: usize) -> String {
    format!(
        r#"{{"id":"q1","inputs":[{{"name":"features","shape":[{count},4],"datatype":"FP32","data":{data}}}]}}"#
    )
}

fn outputs(answer: &Answer) -> InferResponse {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    InferResponse::parse(&answer.body, &Limits::default()).unwrap()
}

fn floats(response: &InferResponse, index: usize) -> &[f32] {
    match response.outputs[index].data() {
        Data::Fp32(values) => values,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_equal_what_scikit_learn_says_in_both_dialects() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let answer = client.infer(rows("[[0,0,0,0],[1,3,1,-2],[-1,20,0.5,4]]", 3)).await;
    let response = outputs(&answer);
    assert_eq!(
        (response.model_name.as_str(), response.model_version.as_deref(), response.id.as_deref()),
        ("delay", Some("7"), Some("q1"))
    );
    assert_eq!(response.outputs[0].data(), &Data::Int64(vec![0, 1, 0]));
    // From make.py, which asked scikit-learn.
    let want = [0.638_983_6, 0.361_016_4, 0.130_668_8, 0.869_331_2, 0.658_237_1, 0.341_762_9];
    assert!(
        floats(&response, 1).iter().zip(want).all(|(have, want)| (have - want).abs() < 1e-5),
        "{response:?}"
    );
    assert_eq!(answer.header(header::ROWS), Some("3"));
    assert_eq!(answer.header(header::NONFINITE), None);
    assert!(answer.header(header::INFER_US).unwrap().parse::<u64>().is_ok());
    let hash = answer.header(header::ANSWER).unwrap().to_owned();
    assert_eq!(hash.len(), 16);

    let split =
        r#"{"dataframe_split":{"columns":["d","c","b","a"],"data":[[0,0,0,0],[-2,1,3,1],[4,0.5,20,-1]]}}"#;
    let mlflow = client.post("/invocations", split).await;
    assert_eq!(mlflow.status, StatusCode::OK, "{}", mlflow.text());
    assert_eq!(mlflow.json()["predictions"][1]["label"], 1);
    assert_eq!(
        mlflow.header(header::ANSWER),
        Some(hash.as_str()),
        "the same answer has the same hash in both dialects"
    );
    let other = client.infer(rows("[0,0,0,1]", 1)).await;
    assert_ne!(other.header(header::ANSWER), Some(hash.as_str()));

    let one = r#""outputs":[{"name":"probabilities"}],"inputs""#;
    let only = outputs(&client.infer(rows("[0,0,0,0]", 1).replace(r#""inputs""#, one)).await);
    assert_eq!(only.outputs.len(), 1);
    let versioned = client.post("/v2/models/delay/versions/7/infer", rows("[0,0,0,0]", 1)).await;
    assert_eq!(outputs(&versioned).outputs.len(), 2);
    let csv = Request::post("/invocations").header("content-type", "text/csv; charset=utf-8");
    let csv = client.send(csv.body(Full::from("a,b,c,d\n1,3,1,-2\n")).unwrap()).await.unwrap();
    assert_eq!(csv.json()["predictions"][0]["label"], 1);
    worker.stop(Duration::from_secs(5)).await;
    assert!(!release.path("s/w-0.sock").exists(), "a stopped worker leaves no socket");
}

#[tokio::test]
async fn health_metadata_and_unknown_paths() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    assert_eq!(client.get("/v2/health/live").await.text(), r#"{"live":true}"#);
    assert_eq!(client.get("/v2/health/ready").await.text(), r#"{"ready":true}"#);
    assert_eq!(client.get("/v2/models/delay/ready").await.json()["ready"], true);
    assert_eq!(client.get("/v2").await.json()["name"], "lockgate");
    assert_eq!(client.get("/ping").await.text(), "\n");
    assert_eq!(client.get("/health").await.status, StatusCode::OK);
    assert!(client.get("/version").await.text().starts_with(char::is_numeric));
    let metadata = client.get("/v2/models/delay").await.json();
    assert_eq!(
        metadata["inputs"][0],
        serde_json::json!({"name": "features", "datatype": "FP32", "shape": [-1, 4]})
    );
    assert_eq!(metadata["versions"], serde_json::json!(["7"]));
    for path in [
        "/v2/models/other",
        "/v2/models/delay/versions/8",
        "/v2/models/delay/x",
        "/",
        "/v2/models/delay/infer/x",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(client.post("/v2/models/other/infer", "{}").await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.get("/v2/models/delay/infer").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.get("/invocations").await.header("allow"), Some("POST"));
}

#[tokio::test]
async fn bad_input_is_400_with_the_field_and_never_500() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let wide = rows("[1,2,3,4]", 1).replace("[1,4]", "[1,5]").replace("4]}", "4,5]}");
    for (body, want) in [
        (String::new(), "the body ends"),
        ("{".to_owned(), "the body ends"),
        ("null".to_owned(), "null where an object"),
        (rows("[1,2,3]", 1), "inputs[0].data: the shape [1, 4] holds 4 elements, but data has 3"),
        (rows("[1,2,3,\"x\"]", 1), "inputs[0].data: a string where FP32"),
        (wide, "features: the model takes the shape [-1,4]"),
        (
            rows("[1,2,3,4]", 1).replace("FP32", "INT64"),
            "features: the model takes FP32, but the request has INT64",
        ),
        (rows("[1,2,3,4]", 1).replace("features", "x"), "x: the model has no such input"),
        (rows("[]", 0), "there are no rows"),
        (
            rows("[1,2,3,4]", 1).replace("\"inputs\"", "\"outputs\":[{\"name\":\"z\"}],\"inputs\""),
            "no output `z`",
        ),
    ] {
        let answer = client.infer(body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.json()["error"].as_str().unwrap().contains(want), "{body}: {}", answer.text());
    }
    for (body, want) in [
        (r#"{"dataframe_records":[{"a":1,"b":2,"c":3}]}"#, "d: the model needs this column"),
        (r#"{"dataframe_records":[{"a":1,"b":2,"c":3,"d":"x"}]}"#, "d: text where double"),
        (r#"{"inputs":[[1,2,3]]}"#, "3 values, but the model takes 4"),
        ("{}", "none of dataframe_split"),
    ] {
        let answer = client.post("/invocations", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json()["error_code"], "BAD_REQUEST");
        assert!(answer.json()["message"].as_str().unwrap().contains(want), "{body}: {}", answer.text());
    }
    let xml = Request::post("/v2/models/delay/infer")
        .header("content-type", "text/xml")
        .body(Full::from("<x/>"))
        .unwrap();
    assert_eq!(client.send(xml).await.unwrap().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let bare = Request::post("/invocations").body(Full::from("{}")).unwrap();
    assert_eq!(client.send(bare).await.unwrap().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let bare = Request::post("/v2/models/delay/infer").body(Full::from(rows("[1,2,3,4]", 1))).unwrap();
    assert_eq!(client.send(bare).await.unwrap().status, StatusCode::OK, "stock clients send no Content-Type");
    for length in ["9", "-1", "1e3", "99999999999999999999", "1000"] {
        let binary =
            Request::post("/v2/models/delay/infer").header("inference-header-content-length", length);
        let answer = client.send(binary.body(Full::from(rows("[1,2,3,4]", 1))).unwrap()).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{length}: {}", answer.text());
    }
    assert_eq!(client.infer(rows("[1,2,3,4]", 1)).await.status, StatusCode::OK, "and it still answers");
}

#[tokio::test]
async fn strings_and_missing_values_reach_the_model() {
    let release = release("mixed.onnx", &[("carrier", Text), ("delay", Float)]);
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let body = r#"{"dataframe_records":[{"carrier":"AA","delay":1.5},{"carrier":"BB","delay":1.5},{"carrier":"??","delay":null}]}"#;
    let answer = client.post("/invocations", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.text().starts_with(r#"{"predictions":[{"label":1,"#), "{}", answer.text());
    assert_eq!(answer.header(header::ROWS), Some("3"));
    // The missing value makes the third row's two probabilities NaN.
    assert_eq!(answer.header(header::NONFINITE), Some("2"), "{}", answer.text());
    let nul = client.post("/invocations", r#"{"dataframe_records":[{"carrier":"a\u0000","delay":1}]}"#).await;
    assert_eq!(nul.status, StatusCode::BAD_REQUEST, "{}", nul.text());
}

#[tokio::test]
async fn every_type_passes_unchanged() {
    let release = release("kinds.onnx", &[]);
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let body = r#"{"inputs":[
        {"name":"s","shape":[2],"datatype":"BYTES","data":["é\n",""]},
        {"name":"f","shape":[2],"datatype":"FP32","data":[0.1,-Infinity]},
        {"name":"d","shape":[2],"datatype":"FP64","data":[0.1,NaN]},
        {"name":"l","shape":[2],"datatype":"INT64","data":[-9223372036854775808,9223372036854775807]},
        {"name":"i","shape":[2],"datatype":"INT32","data":[-2147483648,1]},
        {"name":"h","shape":[2],"datatype":"FP16","data":[-65504,0.1]},
        {"name":"g","shape":[2],"datatype":"BF16","data":[3e38,1]},
        {"name":"b","shape":[2],"datatype":"BOOL","data":[true,false]}]}"#;
    let answer = client.infer(body).await;
    let response = outputs(&answer);
    passed_unchanged(&response);
    assert_eq!(answer.header(header::NONFINITE), Some("2"));

    // The same in binary form, both ways.
    let asked = lockgate_wire::oip::InferRequest::parse(body.as_bytes(), &Limits::default()).unwrap();
    let head = ResponseHead { model_name: "m", ..ResponseHead::default() };
    let (bytes, json) = write_binary_response(&head, &asked.inputs, |_| true);
    let text = std::str::from_utf8(&bytes[..json]).unwrap();
    let text = text.replace(r#""outputs":"#, r#""parameters":{"binary_data_output":true},"inputs":"#);
    let whole = [text.as_bytes(), &bytes[json..]].concat();
    let request =
        Request::post("/v2/models/delay/infer").header("inference-header-content-length", text.len());
    let binary = client.send(request.body(Full::from(whole)).unwrap()).await.unwrap();
    assert_eq!(binary.status, StatusCode::OK, "{}", binary.text());
    assert_eq!(binary.header("content-type"), Some("application/octet-stream"));
    let json = binary.header("inference-header-content-length").unwrap().parse().unwrap();
    passed_unchanged(&InferResponse::parse_binary(&binary.body, json, &Limits::default()).unwrap());
    assert_eq!(binary.header(header::ANSWER), answer.header(header::ANSWER), "the form is not the answer");
}

fn passed_unchanged(response: &InferResponse) {
    let find = |name: &str| response.outputs.iter().find(|t| t.name() == name).unwrap().data().clone();
    assert_eq!(find("s_out"), Data::Bytes(vec!["é\n".to_owned(), String::new()]));
    assert_eq!(find("f_out"), Data::Fp32(vec![0.1, f32::NEG_INFINITY]));
    assert!(matches!(find("d_out"), Data::Fp64(v) if v[0].to_bits() == 0.1f64.to_bits() && v[1].is_nan()));
    assert_eq!(find("l_out"), Data::Int64(vec![i64::MIN, i64::MAX]));
    assert_eq!(find("i_out"), Data::Int32(vec![i32::MIN, 1]));
    assert_eq!(find("b_out"), Data::Bool(vec![true, false]));
    assert!(matches!(find("h_out"), Data::Fp16(v) if v[0] == half::f16::MIN && v[1].to_bits() == 0x2e66));
    assert!(matches!(find("g_out"), Data::Bf16(v) if v[0].to_f32() > 2.9e38 && v[1].to_f32() == 1.0));
}

#[tokio::test]
async fn bodies_are_packed_both_ways_and_a_bomb_is_413() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let many = rows(&format!("[{}]", vec!["1,2,3,4"; 500].join(",")), 500);
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let post = |body: &[u8], accept: &str| {
            let packed = encoding.pack(body).unwrap();
            let request =
                Request::post("/v2/models/delay/infer").header("content-encoding", encoding.as_str());
            request.header("accept-encoding", accept).body(Full::from(packed)).unwrap()
        };
        let answer = client.send(post(many.as_bytes(), encoding.as_str())).await.unwrap();
        assert_eq!(answer.header("content-encoding"), Some(encoding.as_str()));
        let unpacked = encoding.unpack(&answer.body, 1 << 20).unwrap();
        let plain = client.send(post(many.as_bytes(), "identity")).await.unwrap();
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(unpacked, plain.body);
        let bomb = client.send(post(&vec![b' '; 70 << 20], "")).await.unwrap();
        assert_eq!(bomb.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", bomb.text());
        let broken = Request::post("/v2/models/delay/infer").header("content-encoding", encoding.as_str());
        let broken = client.send(broken.body(Full::from(&b"\xff\xffno"[..])).unwrap()).await.unwrap();
        assert_eq!(broken.status, StatusCode::BAD_REQUEST, "{}", broken.text());
    }
    let brotli = Request::post("/v2/models/delay/infer").header("content-encoding", "br");
    let brotli = client.send(brotli.body(Full::from(many)).unwrap()).await.unwrap();
    assert_eq!(brotli.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_failing_model_is_500_without_paths_and_the_next_request_is_answered() {
    let release = release("lookup.onnx", &[]);
    let worker = release.serve(&[("--instances", "2")]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let ask = |index: i64| {
        format!(r#"{{"inputs":[{{"name":"index","shape":[1],"datatype":"INT64","data":[{index}]}}]}}"#)
    };
    for _ in 0..3 {
        let failed = client.infer(ask(9)).await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
        let message = failed.json()["error"].as_str().unwrap().to_owned();
        assert!(message.starts_with("the model failed:") && !message.contains('/'), "{message}");
        assert_eq!(floats(&outputs(&client.infer(ask(2)).await), 0), [12.0]);
    }
    let failed = client.post("/invocations", r#"{"inputs":[9]}"#).await;
    assert_eq!(
        (failed.status, failed.json()["error_code"].as_str()),
        (StatusCode::INTERNAL_SERVER_ERROR, Some("INTERNAL_ERROR"))
    );
}

#[tokio::test]
async fn nonfinite_outputs_are_written_and_counted() {
    let release = release("log.onnx", &[("x", Double)]);
    let worker = release.serve(&[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let answer = client.post("/invocations", r#"{"inputs":[[1],[-1],[0],[null]]}"#).await;
    assert_eq!(answer.text(), r#"{"predictions":[0.0,NaN,-Infinity,NaN]}"#);
    assert_eq!(answer.header(header::NONFINITE), Some("3"));
}

#[tokio::test]
async fn oversized_and_half_requests_harm_nobody() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let path = socket(&worker);
    let mut steady = Client::connect(&path).await;

    // Announced too large: answered before the body is read.
    let mut raw = UnixStream::connect(&path).await.unwrap();
    raw.write_all(b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n")
        .await
        .unwrap();
    let mut start = [0; 12];
    raw.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");

    // Sent in full, as a client does that doesn't listen before it has sent all: an answer or a closed connection.
    let mut big = Client::connect(&path).await;
    let request = Request::post("/v2/models/delay/infer").body(Full::from(vec![b' '; 100 << 20])).unwrap();
    if let Ok(answer) = big.send(request).await {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    // Not announced (chunked): counted while it comes.
    let mut raw = UnixStream::connect(&path).await.unwrap();
    raw.write_all(b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 70 && raw.write_all(&chunk).await.is_ok() {
        sent += 1;
    }
    assert!(sent >= 64, "{sent}");
    raw.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");

    // Half a head, half a body, and garbage.
    for half in [
        &b"POST /v2/mod"[..],
        b"POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"inputs\":",
        b"\x00\xff\x16\x03\r\n\r\n",
    ] {
        let mut raw = UnixStream::connect(&path).await.unwrap();
        raw.write_all(half).await.unwrap();
        raw.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), raw.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(steady.infer(rows("[1,2,3,4]", 1)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    let release = logreg();
    let worker = release.serve(&[]).await;
    let path = socket(&worker);
    let body = rows("[1,2,3,4]", 1);
    let mut raw = UnixStream::connect(&path).await.unwrap();
    let head =
        format!("POST /v2/models/delay/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let (first, second) = body.as_bytes().split_at(20);
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(first).await.unwrap();
    // The worker has accepted this connection once it has answered a later one.
    assert_eq!(Client::connect(&path).await.get("/ping").await.status, StatusCode::OK);
    let stopping = tokio::spawn(worker.stop(Duration::from_secs(10)));
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while path.exists() {
        assert!(std::time::Instant::now() < deadline, "the worker still listens");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    raw.write_all(second).await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_large_batch_does_not_hold_up_health_checks_and_order_is_kept() {
    let release = release("log.onnx", &[]);
    let worker = release.serve(&[("--instances", "2")]).await;
    let path = socket(&worker);
    let count = 200_000;
    let values: Vec<String> = (1..=count).map(|i| i.to_string()).collect();
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{count},1],"datatype":"FP32","data":[{}]}}]}}"#,
        values.join(",")
    );
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (path, body) = (path.clone(), body.clone());
        tasks.push(tokio::spawn(async move { Client::connect(&path).await.infer(body).await }));
    }
    let mut health = Client::connect(&path).await;
    for _ in 0..50 {
        assert_eq!(health.get("/v2/health/ready").await.status, StatusCode::OK);
    }
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.header(header::ROWS), Some("200000"));
        let response = outputs(&answer);
        let values = floats(&response, 0);
        let right =
            values.iter().enumerate().all(|(i, v)| (f64::from(*v) - ((i + 1) as f64).ln()).abs() < 1e-4);
        assert!(right && values.len() == count);
    }
}

#[test]
fn a_worker_on_tcp_answers_and_ends_well_on_sigterm() {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};
    let release = logreg();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let spec = release.spec(&[("--tcp", &free)]);
    let mut worker = Command::new(&spec.program).args(&spec.args).stdin(Stdio::piped()).spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut io = loop {
        if let Ok(io) = std::net::TcpStream::connect(&free) {
            break io;
        }
        assert!(
            std::time::Instant::now() < deadline && worker.try_wait().unwrap().is_none(),
            "the worker doesn't listen"
        );
        std::thread::sleep(Duration::from_millis(5));
    };
    io.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"ready\":true}"), "{answer}");
    assert!(Command::new("kill").arg(worker.id().to_string()).status().unwrap().success());
    assert!(worker.wait().unwrap().success(), "SIGTERM is a good end");
}
