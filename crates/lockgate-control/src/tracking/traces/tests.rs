//! Spans and whole traces in any order.

use super::super::tests::{Bench, bench};
use super::*;
use crate::tracking::{TrackingError, Tree};

const HEX: &str = "0123456789abcdef0123456789abcdef";

fn id() -> String {
    format!("tr-{HEX}")
}

fn span(id: &str, parent: Option<&str>, start_ms: i64, attributes: &[(&str, &str)]) -> NewSpan {
    NewSpan {
        trace: HEX.to_owned(),
        span_id: format!("{id:0>16}"),
        parent_id: parent.map(|id| format!("{id:0>16}")),
        name: id.to_owned(),
        start_ns: start_ms * 1_000_000,
        end_ns: (start_ms + 10) * 1_000_000,
        status: SpanStatus::Ok,
        message: String::new(),
        attributes: attributes
            .iter()
            .map(|(key, text)| ((*key).to_owned(), Tree::Text((*text).to_owned())))
            .collect(),
        events: vec![],
        links: vec![],
    }
}

fn whole() -> NewTrace {
    NewTrace {
        trace_id: id(),
        experiment_id: "0".to_owned(),
        state: TraceState::Ok,
        started: 7,
        duration: Some(3),
        client_request_id: None,
        request_preview: None,
        response_preview: Some("said".to_owned()),
        tags: vec![pair("k", "v")],
        metadata: vec![],
        assessments: vec![],
    }
}

async fn log(bench: &Bench, spans: Vec<NewSpan>) -> Result<(), TrackingError> {
    let group =
        SpanGroup { resource: vec![("service.name".to_owned(), Tree::Text("shop".to_owned()))], spans };
    bench.tracking.log_spans(&bench.actor, "0", None, vec![group]).await
}

async fn read(bench: &Bench) -> Trace {
    bench.tracking.trace(&bench.actor, &id()).await.unwrap()
}

const USED: &str = r#"{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}"#;

#[tokio::test]
async fn spans_alone_make_a_trace_that_grows() {
    let bench = bench().await;
    log(&bench, vec![span("2", Some("1"), 105, &[("mlflow.chat.tokenUsage", USED)])]).await.unwrap();
    let trace = read(&bench).await;
    assert_eq!((trace.state.as_str(), trace.started, trace.duration), ("IN_PROGRESS", 105, Some(10)));
    let root = [("mlflow.spanInputs", "{\"q\": 1}"), ("mlflow.traceTag.team", "ops"), ("session.id", "s")];
    log(&bench, vec![span("3", Some("1"), 150, &[("mlflow.chat.tokenUsage", USED)])]).await.unwrap();
    log(&bench, vec![span("1", None, 100, &root)]).await.unwrap();
    // What comes again is not counted again.
    log(&bench, vec![span("3", Some("1"), 150, &[("mlflow.chat.tokenUsage", USED)])]).await.unwrap();
    let trace = read(&bench).await;
    assert_eq!((trace.state.as_str(), trace.started, trace.duration), ("OK", 100, Some(60)));
    assert_eq!((trace.request_preview.as_deref(), trace.tag("team")), (Some("{\"q\": 1}"), Some("ops")));
    assert_eq!((trace.session_id.as_deref(), trace.tag("service.name")), (Some("s"), Some("shop")));
    let doubled = r#"{"input_tokens": 2, "output_tokens": 4, "total_tokens": 6}"#;
    assert_eq!(trace.metadata("mlflow.trace.tokenUsage"), Some(doubled));
    assert_eq!(
        trace.tag("mlflow.artifactLocation").unwrap(),
        format!("mlflow-artifacts:/0/traces/{}/artifacts", id())
    );
}

#[tokio::test]
async fn what_is_said_about_the_whole_wins_whatever_comes_first() {
    for spans_first in [true, false] {
        let bench = bench().await;
        let spans =
            || vec![span("1", None, 100, &[("mlflow.spanOutputs", "out"), ("mlflow.chat.tokenUsage", USED)])];
        let mut new = whole();
        new.metadata =
            vec![pair("mlflow.trace.tokenUsage", r#"{"total_tokens": 9, "x": 1}"#), pair("m", "1")];
        if spans_first {
            log(&bench, spans()).await.unwrap();
        }
        bench.tracking.start_trace(&bench.actor, new.clone()).await.unwrap();
        if !spans_first {
            log(&bench, spans()).await.unwrap();
        }
        let once = read(&bench).await;
        bench.tracking.start_trace(&bench.actor, new).await.unwrap();
        assert_eq!(read(&bench).await, once, "saying it again changes nothing");
        assert_eq!((once.started, once.duration, once.tag("k")), (7, Some(3), Some("v")));
        assert_eq!((once.response_preview.as_deref(), once.metadata("m")), (Some("said"), Some("1")));
        let tokens = Tree::parse(once.metadata("mlflow.trace.tokenUsage").unwrap()).unwrap();
        assert_eq!(tokens.get("total_tokens"), Some(&Tree::Int(9)));
        assert_eq!(tokens.get("x"), None);
    }
}

#[tokio::test]
async fn a_trace_is_whole_when_all_its_spans_are_there() {
    let bench = bench().await;
    let mut new = whole();
    new.metadata = vec![pair("mlflow.trace.sizeStats", r#"{"num_spans": 2}"#)];
    bench.tracking.start_trace(&bench.actor, new).await.unwrap();
    let ask = async |partly| bench.tracking.whole_trace(&bench.actor, &id(), partly).await;
    assert!(matches!(ask(true).await, Err(TrackingError::State(_))), "its spans are kept elsewhere");
    log(&bench, vec![span("1", None, 1, &[])]).await.unwrap();
    assert!(matches!(ask(false).await, Err(TrackingError::Missing(_))));
    assert_eq!(ask(true).await.unwrap().1.len(), 1);
    let several = async || bench.tracking.whole_traces(&bench.actor, vec![id()], None).await.unwrap().len();
    assert_eq!(several().await, 0);
    log(&bench, vec![span("2", Some("1"), 1, &[])]).await.unwrap();
    assert_eq!(ask(false).await.unwrap().1.len(), 2);
    assert_eq!(several().await, 1);
}

#[tokio::test]
async fn a_span_that_can_not_be_kept_leaves_none() {
    let bench = bench().await;
    let spans = vec![span("1", None, 1, &[]), span("2", Some("1"), 1, &[("session.id", &"s".repeat(251))])];
    assert!(matches!(log(&bench, spans).await, Err(TrackingError::Invalid(_))));
    assert!(matches!(bench.tracking.trace(&bench.actor, &id()).await, Err(TrackingError::Missing(_))));
}

#[tokio::test]
async fn a_traces_files_go_with_it() {
    let bench = bench().await;
    let trace = bench.tracking.start_trace(&bench.actor, whole()).await.unwrap();
    let path =
        bench.tracking.artifact_path(trace.tag("mlflow.artifactLocation").unwrap(), "traces.json").unwrap();
    bench.tracking.put_artifact(&bench.actor, &path, lockgate_blob::blocks(&b"{}"[..])).await.unwrap();
    let delete = async |experiment: &str| {
        bench.tracking.delete_traces(&bench.actor, experiment, None, None, vec![id()]).await.unwrap()
    };
    assert_eq!(delete("4711").await, 0);
    bench.tracking.open_artifact(&bench.actor, &path).await.unwrap();
    assert_eq!(delete("0").await, 1);
    assert!(matches!(
        bench.tracking.open_artifact(&bench.actor, &path).await,
        Err(TrackingError::Missing(_))
    ));
    assert!(
        bench.tracking.put_artifact(&bench.actor, &path, lockgate_blob::blocks(&b"{}"[..])).await.is_err()
    );
}

#[tokio::test]
async fn an_agent_has_no_business_with_traces() {
    let bench = bench().await;
    let agent =
        lockgate_core::actor::Actor::agent(&lockgate_core::id::EnvironmentName::new("production").unwrap());
    let refused =
        |result: Result<(), TrackingError>| assert!(matches!(result, Err(TrackingError::Refused(_))));
    refused(bench.tracking.start_trace(&agent, whole()).await.map(|_| ()));
    refused(bench.tracking.log_spans(&agent, "0", None, Vec::new()).await);
    refused(bench.tracking.trace(&agent, &id()).await.map(|_| ()));
    refused(bench.tracking.delete_traces(&agent, "0", Some(1), None, vec![]).await.map(|_| ()));
    refused(bench.tracking.delete_assessment(&agent, &id(), "a").await);
}
