//! Spans and whole traces in any order.

use super::super::tests::{Bench, bench};
use super::*;
use crate::tracking::{NewExperiment, TrackingError, Tree};

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
    assert!(matches!(ask(true).await, Err(TrackingError::Invalid(_))), "its spans are kept elsewhere");
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

#[tokio::test]
async fn a_trace_stays_in_its_experiment() {
    let bench = bench().await;
    let new = NewExperiment { name: "other".to_owned(), ..NewExperiment::default() };
    let other = bench.tracking.create_experiment(&bench.actor, new).await.unwrap().to_string();
    let group = || vec![SpanGroup { resource: vec![], spans: vec![span("1", None, 1, &[])] }];
    bench.tracking.log_spans(&bench.actor, &other, None, group()).await.unwrap();
    let refused = |result: Result<(), TrackingError>| {
        let error = result.unwrap_err().to_string();
        assert_eq!(error, format!("Trace with ID '{}' already exists in another experiment.", id()));
    };
    refused(bench.tracking.log_spans(&bench.actor, "0", None, group()).await);
    refused(bench.tracking.start_trace(&bench.actor, whole()).await.map(|_| ()));
    assert_eq!(read(&bench).await.experiment_id.to_string(), other);
}

#[tokio::test]
async fn tags_that_say_where_spans_lie_are_not_the_clients() {
    let bench = bench().await;
    let mut new = whole();
    new.tags.extend(change::FIXED_TAGS.map(|key| pair(key, "elsewhere")));
    bench.tracking.start_trace(&bench.actor, new).await.unwrap();
    let fixed =
        change::FIXED_TAGS.map(|key| (format!("mlflow.traceTag.{key}"), Tree::Text("elsewhere".to_owned())));
    let root = NewSpan { attributes: fixed.to_vec(), ..span("1", None, 1, &[]) };
    for _ in 0..2 {
        assert!(read(&bench).await.tags.iter().all(|tag| tag.value != "elsewhere"));
        log(&bench, vec![root.clone()]).await.unwrap();
    }
    assert_eq!(read(&bench).await.tag("mlflow.trace.spansLocation"), Some("TRACKING_STORE"));
    for key in change::FIXED_TAGS {
        assert!(bench.tracking.set_trace_tag(&bench.actor, &id(), pair(key, "x")).await.is_err(), "{key}");
        let refused = bench.tracking.delete_trace_tag(&bench.actor, &id(), key).await;
        let missing = matches!(refused, Err(TrackingError::Missing(_)));
        assert_eq!(missing, key == "mlflow.trace.archivalFailure", "{key} may be deleted, and is not there");
    }
}

#[tokio::test]
async fn spans_of_other_conventions_fill_previews_types_and_sums() {
    let bench = bench().await;
    let root = [
        ("openinference.span.kind", "AGENT"),
        ("input.value", r#"{"messages": [{"role": "user", "content": "Hello"}]}"#),
        ("output.value", "Hi"),
    ];
    let model = [("gen_ai.usage.input_tokens", "3"), ("gen_ai.usage.output_tokens", "4")];
    log(&bench, vec![span("2", Some("1"), 1, &model), span("1", None, 1, &root)]).await.unwrap();
    let new = NewTrace { response_preview: None, ..whole() };
    bench.tracking.start_trace(&bench.actor, new).await.unwrap();
    let (trace, spans) = bench.tracking.whole_trace(&bench.actor, &id(), false).await.unwrap();
    assert_eq!(trace.request_preview.as_deref(), Some("Hello"));
    assert_eq!(trace.response_preview.as_deref(), Some("\"Hi\""));
    let sums = r#"{"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}"#;
    assert_eq!(trace.metadata("mlflow.trace.tokenUsage"), Some(sums));
    assert_eq!(spans[0].kind.as_deref(), Some("AGENT"));
    assert!(spans[0].content.contains("\"output.value\": \"\\\"Hi\\\"\""), "{}", spans[0].content);
}

#[tokio::test]
async fn many_traces_are_deleted_some_at_a_time() {
    let bench = bench().await;
    let count = 1_203;
    let spans =
        (0..count).map(|i| NewSpan { trace: format!("{i:032x}"), ..span("1", None, i, &[]) }).collect();
    log(&bench, spans).await.unwrap();
    let delete = async |until, most, ids| {
        bench.tracking.delete_traces(&bench.actor, "0", until, most, ids).await.unwrap()
    };
    assert_eq!(delete(Some(99), None, vec![]).await, 100);
    assert_eq!(delete(Some(i64::MAX), Some(501), vec![]).await, 501);
    let rest: Vec<String> = (0..count).map(|i| format!("tr-{i:032x}")).collect();
    let oldest = bench.tracking.traces(&bench.actor, rest.clone(), None).await.unwrap();
    assert_eq!((oldest.len(), oldest[0].started), (602, 601), "the oldest went first");
    assert_eq!(delete(None, None, rest).await, 602);
    assert_eq!(delete(Some(i64::MAX), None, vec![]).await, 0);
}
