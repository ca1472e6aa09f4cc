//! The server as its clients see it, over a real socket.

use super::*;
use lockgate_core::actor::{ActorKind, Via};
use lockgate_core::digest::Digest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const PROJECT: &str =
    "project = \"p\"\n[model.m]\ntask = \"other\"\n[env.dev]\n[env.production]\nafter = \"dev\"\n";

/// A server on a free port, which ends with the test.
struct Serving {
    base: String,
    control: Control,
    _home: tempfile::TempDir,
}

impl Serving {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (clock, entropy) = world::system();
        let database = home.path().join("lockgate.db").to_string_lossy().into_owned();
        let store = Store::open(&database, StoreOptions::new(clock.clone())).await.unwrap();
        let blobs = BlobStore::open(home.path().join("blobs")).await.unwrap();
        let control = Control::new(store, blobs, clock, entropy);
        let hash = |token: &str| Digest::of(token.as_bytes()).hex();
        let accounts = format!(
            "agent dev {}\nservice runner {}\nuser alice {}\n",
            hash("of-dev"),
            hash("of-runner"),
            hash("of-alice")
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let accounts = Arc::new(Accounts::parse(&accounts).unwrap());
        let routes = routes(&control, Identity { accounts, trust_loopback: true, listen });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { base: format!("http://{listen}"), control, _home: home }
    }

    /// Asks as the holder of a token, or as whom a loopback client claims to be.
    async fn ask(&self, who: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, String) {
        crate::world::tls();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.request(method, format!("{}{path}", self.base));
        request = match who.strip_prefix("token ") {
            Some(token) => request.bearer_auth(token),
            None => request.header("x-lockgate-user", who),
        };
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn apply(&self, toml: &str) -> (StatusCode, Value) {
        let body = json!({ "toml": toml });
        let (status, text) = self.ask("carol", Method::PUT, "/api/v1/configuration", Some(body)).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_ours() {
    let server = Serving::new().await;
    for (method, path, status) in [
        (Method::GET, "/api/v1/nothing", 404),
        (Method::DELETE, "/api/v1/status", 405),
        (Method::GET, "/api/v1/promotions/not-an-id", 400),
        (Method::GET, "/api/v1/audit?limit=many", 400),
    ] {
        let (got, text) = server.ask("carol", method, path, None).await;
        assert_eq!(got, status, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{text}");
    }
    // MLflow's client does without a route that is missing, as long as the answer is no JSON.
    assert_eq!(
        server.ask("carol", Method::GET, "/nothing", None).await,
        (StatusCode::NOT_FOUND, String::new())
    );
    let (status, text) = server.ask("token of-nobody", Method::GET, "/nothing", None).await;
    assert_eq!(status, 401, "{text}");
}

#[tokio::test]
async fn one_name_is_one_principal_whatever_its_case_and_kind() {
    let server = Serving::new().await;
    let id = async |kind, name| server.control.actor(kind, name, Via::Internal).await.unwrap().id;
    let first = id(ActorKind::User, "Alice@Example.com").await;
    assert_eq!(id(ActorKind::User, "alice@example.com").await, first);
    assert_eq!(id(ActorKind::User, " ALICE@EXAMPLE.COM ").await, first);
    assert_ne!(id(ActorKind::User, "bob@example.com").await, first);
    // A run's user may be called as a service account is, whoever comes first.
    let run = id(ActorKind::User, "runner").await;
    let (status, text) = server.ask("token of-runner", Method::GET, "/api/v1/configuration", None).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(id(ActorKind::Service, "runner").await, run);
}

#[tokio::test]
async fn a_service_account_that_is_to_approve_is_refused_with_its_line() {
    let server = Serving::new().await;
    assert_eq!(server.ask("token of-runner", Method::GET, "/api/v1/configuration", None).await.0, 200);
    let (status, answer) =
        server.apply(&format!("{PROJECT}[groups]\nmanagers = [\"bob\", \"Runner\"]\n")).await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("lockgate.toml:8") && message.contains("`Runner`"), "{message}");
    let (status, answer) = server.apply(&format!("{PROJECT}[groups]\nmanagers = [\"bob\"]\n")).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn an_agent_reads_its_own_part_and_nothing_else() {
    let server = Serving::new().await;
    assert_eq!(server.apply(PROJECT).await.0, 200);
    let bytes = b"another environment's model";
    let digest = Digest::of(bytes);
    server.control.put_blob(lockgate_blob::blocks(&bytes[..]), &digest).await.unwrap();
    let search = Some(json!({"max_results": 1}));
    for (method, path, body, status) in [
        (Method::GET, "/agent/v1/environments/dev/desired".to_owned(), None, 200),
        (Method::GET, "/agent/v1/environments/production/desired".to_owned(), None, 403),
        (Method::GET, "/api/v1/releases".to_owned(), None, 403),
        (Method::GET, "/api/v1/status".to_owned(), None, 403),
        (Method::GET, "/api/v1/configuration".to_owned(), None, 403),
        (Method::GET, "/api/v1/audit".to_owned(), None, 403),
        (Method::GET, format!("/api/v1/blobs/{digest}"), None, 403),
        (Method::GET, format!("/agent/v1/blobs/{digest}"), None, 403),
        (Method::GET, format!("/agent/v1/releases/{digest}"), None, 403),
        (Method::POST, "/api/2.0/mlflow/experiments/search".to_owned(), search, 403),
    ] {
        let (got, text) = server.ask("token of-dev", method, &path, body).await;
        assert_eq!(got, status, "{path}: {text}");
    }
    let (status, text) =
        server.ask("token of-alice", Method::GET, &format!("/api/v1/blobs/{digest}"), None).await;
    assert_eq!((status, text.as_bytes()), (StatusCode::OK, &bytes[..]));
}

#[tokio::test]
async fn the_audit_log_begins_with_the_newest_unless_told_otherwise() {
    let server = Serving::new().await;
    for note in ["", "# one\n", "# two\n"] {
        assert_eq!(server.apply(&format!("{PROJECT}{note}")).await.0, 200);
    }
    let numbers = async |query: &str| -> Vec<u64> {
        let (status, text) = server.ask("carol", Method::GET, &format!("/api/v1/audit{query}"), None).await;
        assert_eq!(status, 200, "{text}");
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["seq"].as_u64().unwrap()).collect()
    };
    let all = numbers("").await;
    assert_eq!(all.len(), 3);
    assert_eq!(numbers("?limit=2").await, all[1..]);
    assert_eq!(numbers("?from=0&limit=2").await, all[..2]);
}
