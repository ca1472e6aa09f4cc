use super::*;
use lockgate_core::server::ServerProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn server(protocol: ServerProtocol) -> Server {
    Server { protocol, model: "m".to_owned(), version: None, health: None, stream_ms: 500 }
}

/// A server that gives each connection the next of these answers, and keeps silent with it open where there is nothing more to say.
async fn answering(answers: Vec<String>) -> WorkerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Only what says so is not cut off.
            if answer.contains("x-open") {
                open.push(stream);
            }
        }
        std::future::pending::<()>().await;
    });
    WorkerAddress::Tcp(address)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

async fn wrong(protocol: Option<ServerProtocol>, answer: String) -> Option<String> {
    let server = protocol.map(server);
    let mut caller = Caller::open(&answering(vec![answer]).await, server.as_ref()).await.unwrap();
    caller.post("/", Bytes::from_static(b"{}")).await.unwrap().wrong()
}

#[tokio::test]
async fn answers_of_brought_servers_are_as_bad_as_they_are_under_users_traffic() {
    let json = "content-type: application/json\r\n";
    let events = "content-type: text/event-stream\r\n";
    let cut = format!("HTTP/1.1 200 OK\r\n{events}transfer-encoding: chunked\r\n\r\na\r\ndata: {{}}\n\n\r\n");
    let slow = format!("HTTP/1.1 200 OK\r\nx-open: 1\r\n{events}transfer-encoding: chunked\r\n\r\n");
    let short = format!("HTTP/1.1 200 OK\r\n{json}content-length: 100\r\n\r\n{{");
    let claimed = format!("{json}x-lockgate-nonfinite: 3\r\n");
    for (protocol, answer, words) in [
        (ServerProtocol::Oip, answer("200 OK", json, "{\"outputs\":[{\"data\":[NaN]}]}"), "not finite"),
        (
            ServerProtocol::Mlflow,
            answer("200 OK", &format!("{json}content-encoding: br\r\n"), "{}"),
            "examined",
        ),
        (ServerProtocol::Openai, answer("200 OK", events, "data: {}\n\n"), "[DONE]"),
        (
            ServerProtocol::Openai,
            answer("200 OK", events, "data: {\"error\":{}}\n\ndata: [DONE]\n\n"),
            "failed",
        ),
        (ServerProtocol::Openai, cut, "broke off"),
        (ServerProtocol::Openai, slow, "not over within 0.5 s"),
        (ServerProtocol::Oip, short, "broke off"),
        (ServerProtocol::Openai, answer("500 X", json, "{\"error\":{\"message\":\"no\"}}"), "500 no"),
    ] {
        let told = wrong(Some(protocol), answer).await;
        assert!(told.as_ref().is_some_and(|told| told.contains(words)), "{told:?}, not {words}");
    }
    for (protocol, answer) in [
        (ServerProtocol::Oip, answer("200 OK", &claimed, "{\"outputs\":[]}")),
        (ServerProtocol::Openai, answer("200 OK", events, "data: {}\n\ndata: [DONE]\n\n")),
    ] {
        assert_eq!(wrong(Some(protocol), answer).await, None);
    }
    // A worker of ours says it itself, and nobody looks at its bytes.
    assert!(wrong(None, answer("200 OK", &claimed, "{}")).await.unwrap().contains("3 numbers"));
    assert_eq!(wrong(None, answer("200 OK", json, "[NaN]")).await, None);
}

#[tokio::test]
async fn a_connection_that_broke_is_made_anew_and_one_that_is_busy_may_be_asked_again() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned();
    let busy = || answer("503 X", "", "later");
    let answers = vec![cut, busy(), answer("200 OK", "", "{}"), busy(), busy(), answer("200 OK", "", "{}")];
    let mut caller = Caller::open(&answering(answers).await, None).await.unwrap();
    let mut ask = async || caller.post_unless_busy("/", Bytes::new()).await;
    assert!(ask().await.unwrap().wrong().is_some());
    assert!(matches!(ask().await, Err(AgentError::Busy(why)) if why.contains("503 later")));
    assert_eq!(ask().await.unwrap().wrong(), None);
    let mut patient = caller.patient();
    assert_eq!(patient.post_unless_busy("/", Bytes::new()).await.unwrap().wrong(), None);
}
