"""Traces and assessments with the stock client, and the same raw requests to stock's own server where `MLFLOW_STOCK` names one."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
import zlib

import mlflow
import pytest
from conftest import ROOT, http
from mlflow.entities import AssessmentSource, Feedback, SpanType
from mlflow.exceptions import MlflowException
from test_mlflow_differential import stock  # noqa: F401


@pytest.fixture(autouse=True)
def synchronous(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")


@mlflow.trace
def inner(x):
    with mlflow.start_span("leaf", span_type=SpanType.LLM) as span:
        span.set_inputs({"messages": [{"role": "user", "content": f"hä {x}"}], "model": "some-model"})
        span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "ok"}}]})
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.set_attribute("odd", [1, 2.5, None, True, {"z": 1, "a": "\u0001"}])
    return x + 1


@mlflow.trace(attributes={"a": 1})
def outer(x, tags=None, metadata=None, request=None):
    mlflow.update_current_trace(tags=tags, metadata=metadata, client_request_id=request)
    return inner(x) * 2


@mlflow.trace(name="broken")
def broken():
    raise ValueError("no such thing")


def traced(function, *args, **kwargs):
    """The id of the trace that a call makes."""
    try:
        function(*args, **kwargs)
    except ValueError:
        pass
    return mlflow.get_last_active_trace_id()


def search(experiment, filter_string=None, **kwargs):
    found = mlflow.search_traces(
        locations=[experiment.experiment_id], filter_string=filter_string, return_type="list", **kwargs
    )
    return [trace.info.trace_id for trace in found]


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_a_trace_is_read_as_it_was_made(experiment, monkeypatch, asynchronous):
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", asynchronous)
    mlflow.tracing.reset()
    trace_id = traced(outer, 3, {"team": "ops"}, {"mlflow.trace.session": "s1", "mlflow.trace.user": "u1", "m": "1"}, "req-1")
    mlflow.flush_trace_async_logging()
    mlflow.tracing.reset()
    trace = mlflow.get_trace(trace_id)
    info = trace.info
    assert (info.state, info.experiment_id, info.client_request_id) == ("OK", experiment.experiment_id, "req-1")
    assert info.tags["team"] == "ops" and info.tags["mlflow.traceName"] == "outer"
    assert info.tags["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert (info.trace_metadata["mlflow.trace.session"], info.trace_metadata["m"]) == ("s1", "1")
    assert json.loads(info.request_preview)["x"] == 3 and info.response_preview == "8"
    assert json.loads(info.trace_metadata["mlflow.trace.sizeStats"])["num_spans"] == 3
    assert info.execution_duration >= 0 and abs(info.request_time - time.time() * 1000) < 600_000
    spans = {span.name: span for span in trace.data.spans}
    assert [span.name for span in trace.data.spans] == ["outer", "inner", "leaf"]
    assert spans["leaf"].parent_id == spans["inner"].span_id and spans["inner"].parent_id == spans["outer"].span_id
    assert spans["outer"].parent_id is None and spans["outer"].get_attribute("a") == 1
    assert spans["leaf"].span_type == "LLM" and spans["leaf"].status.status_code == "OK"
    assert spans["leaf"].inputs["messages"][0]["content"] == "hä 3"
    assert spans["leaf"].get_attribute("odd") == [1, 2.5, None, True, {"z": 1, "a": "\u0001"}]
    assert list(spans["leaf"].get_attribute("odd")[-1]) == ["z", "a"], "keys keep their order"
    assert spans["leaf"].get_attribute("mlflow.llm.model") == "some-model"
    assert spans["outer"].end_time_ns >= spans["leaf"].end_time_ns > spans["leaf"].start_time_ns


def test_an_error_is_kept_with_its_event(experiment):
    trace = mlflow.get_trace(traced(broken))
    assert trace.info.state == "ERROR"
    (span,) = trace.data.spans
    assert span.status.status_code == "ERROR" and "no such thing" in span.status.description
    (event,) = span.events
    assert event.name == "exception" and event.attributes["exception.type"] == "ValueError"


def test_links_of_spans_and_a_trace_in_progress(client, experiment):
    first = traced(outer, 1)
    span = client.start_trace("open", inputs={"q": 1})
    child = client.start_span("child", span.trace_id, span.span_id)
    child.add_link(mlflow.entities.Link(first, "00f067aa0ba902b7", {"why": "retry"}))
    client.end_span(span.trace_id, child.span_id)
    info = client._tracing_client.get_trace_info(span.trace_id)
    assert info.state == "IN_PROGRESS"
    client.end_trace(span.trace_id, outputs="done")
    trace = mlflow.get_trace(span.trace_id)
    assert trace.info.state == "OK" and trace.info.response_preview.strip('"') == "done"
    (link,) = next(one for one in trace.data.spans if one.name == "child").links
    assert (link.trace_id, link.span_id, link.attributes) == (first, "00f067aa0ba902b7", {"why": "retry"})


@pytest.fixture
def several(client, experiment):
    """Four traces, the oldest first."""
    with mlflow.start_run() as run:
        a = traced(outer, 1, {"team": "ops", "n": "1"}, {"mlflow.trace.session": "s1", "k": "v%"}, "req-a")
    b = traced(outer, 2, {"team": "Web"}, {"mlflow.trace.session": "s2"}, "req-b")
    c = traced(broken)
    d = traced(outer, 4, {"team": "ops"}, {"mlflow.trace.session": "s1"})
    mlflow.log_feedback(trace_id=a, name="good", value=True)
    mlflow.log_feedback(trace_id=b, name="good", value=False)
    mlflow.log_feedback(trace_id=a, name="score", value=0.9)
    mlflow.log_feedback(trace_id=b, name="score", value=3)
    mlflow.log_feedback(trace_id=c, name="verdict", value="yes")
    mlflow.log_feedback(trace_id=a, name="calm", value="yes", metadata={"mlflow.trace.session": "s1"})
    mlflow.log_expectation(trace_id=d, name="answer", value="10")
    client.link_traces_to_run([c], run.info.run_id)
    return experiment, run.info.run_id, {"a": a, "b": b, "c": c, "d": d}


FILTERS = {
    None: "dcba",
    "trace.status = 'OK'": "dba",
    "status != 'OK'": "c",
    "status IN ('ERROR', 'IN_PROGRESS')": "c",
    "status ILIKE 'err%'": "c",
    "name = 'outer'": "dba",
    "trace.name LIKE 'bro%'": "c",
    "tags.team = 'ops'": "da",
    "tag.team != 'ops'": "b",
    "tags.team ILIKE 'web'": "b",
    "tags.team LIKE 'web'": "",
    "tags.team IS NULL": "c",
    "tags.n IS NOT NULL": "a",
    "metadata.`mlflow.trace.session` = 's1'": "da",
    "request_metadata.k = 'v%'": "a",
    "metadata.k IS NULL": "dcb",
    "client_request_id = 'req-b'": "b",
    "client_request_id LIKE 'req-%' AND tags.team = 'ops'": "a",
    "execution_time_ms >= 0": "dcba",
    "trace.execution_time > 100000000": "",
    "timestamp_ms > 1000 AND timestamp < 99999999999999": "dcba",
    "end_time_ms < 5": "",
    "feedback.good = 'true'": "a",
    "feedback.good != 'true'": "b",
    "feedback.score > 0.5": "ba",
    "feedback.score > 1": "b",
    "feedback.score <= 0.9": "a",
    "feedback.verdict = 'yes'": "c",
    "feedback.verdict LIKE '%ye%'": "c",
    "feedback.verdict IS NULL": "dba",
    "feedback.good IS NOT NULL": "ba",
    "feedback.calm = 'yes'": "da",
    "feedback.calm IS NULL": "cb",
    "expectation.answer = '10'": "d",
    "expectation.good = 'true'": "",
    "span.name = 'leaf'": "dba",
    "span.type = 'LLM' AND span.name = 'leaf'": "dba",
    "span.type = 'LLM' AND span.name = 'outer'": "",
    "span.status = 'ERROR'": "c",
    "span.type IN ('LLM', 'TOOL')": "dba",
    "trace.text LIKE '%hä 2%'": "b",
    "text ILIKE '%HELLO%'": "",
    "span.attributes.mlflow.spanInputs LIKE '%\"x\": 4%'": "",
    "span.attributes.odd ILIKE '%2.5%'": "dba",
}


def test_filters_find_what_they_should(several):
    experiment, run_id, ids = several
    names = {trace_id: name for name, trace_id in ids.items()}
    wrong = {}
    for text, expected in {**FILTERS, f"run_id = '{run_id}'": "ca", f"request_id IN ('{ids['a']}', '{ids['d']}')": "da"}.items():
        found = "".join(names[trace_id] for trace_id in search(experiment, text))
        if found != expected:
            wrong[text] = (found, expected)
    assert not wrong
    for bad in ("tags.a", "nothing = 'x'", "status > 'OK'", "feedback.score > 'a'", "metrics.m > 1"):
        with pytest.raises(MlflowException, match="INVALID_PARAMETER_VALUE"):
            search(experiment, bad)


def test_orders_and_pages(client, several):
    experiment, _, ids = several
    names = {trace_id: name for name, trace_id in ids.items()}

    def order(*by):
        return "".join(names[trace_id] for trace_id in search(experiment, order_by=list(by)))

    assert order("timestamp_ms ASC") == "abcd" and order("timestamp_ms DESC") == "dcba"
    assert order("tags.team ASC", "timestamp_ms ASC") == "badc"
    assert order("name DESC") == "dbac" and order("metadata.k ASC") == "adcb"
    pages, token = [], None
    while True:
        page = client.search_traces(locations=[experiment.experiment_id], max_results=3, page_token=token, include_spans=False)
        pages.append("".join(names[trace.info.trace_id] for trace in page))
        token = page.token
        if not token:
            break
    assert pages == ["dcb", "a"]
    with pytest.raises(MlflowException, match="max_results"):
        client.search_traces(locations=[experiment.experiment_id], max_results=501, include_spans=False)


def test_tags(client, experiment):
    trace_id = traced(outer, 1)
    client.set_trace_tag(trace_id, "k", "v")
    client.set_trace_tag(trace_id, "k", "w")
    client.set_trace_tag(trace_id, "mlflow.traceName", "renamed")
    tags = mlflow.get_trace(trace_id).info.tags
    assert (tags["k"], tags["mlflow.traceName"]) == ("w", "renamed")
    assert search(experiment, "name = 'renamed'") == [trace_id]
    client.delete_trace_tag(trace_id, "k")
    assert "k" not in mlflow.get_trace(trace_id).info.tags
    with pytest.raises(MlflowException, match="No trace tag with key 'k'"):
        client.delete_trace_tag(trace_id, "k")


def test_feedback_lives_is_overridden_and_dies(experiment):
    trace_id = traced(outer, 1)
    judge = AssessmentSource("LLM_JUDGE", "gpt")
    first = mlflow.log_feedback(trace_id=trace_id, name="ok", value=True, rationale="r", metadata={"m": "1"}, source=judge)
    read = mlflow.get_assessment(trace_id, first.assessment_id)
    assert (read.value, read.rationale, read.metadata, read.source.source_type, read.valid) == (True, "r", {"m": "1"}, "LLM_JUDGE", True)
    changed = mlflow.update_assessment(trace_id, first.assessment_id, Feedback(name="fine", value={"a": [1, "x"]}, metadata={"n": "2"}))
    assert (changed.name, changed.value, changed.metadata) == ("fine", {"a": [1, "x"]}, {"m": "1", "n": "2"})
    assert changed.rationale == "r" and changed.last_update_time_ms >= read.last_update_time_ms
    second = mlflow.override_feedback(trace_id=trace_id, assessment_id=first.assessment_id, value="no")
    said = {one.assessment_id: one for one in mlflow.get_trace(trace_id).info.assessments}
    assert said[first.assessment_id].valid is False and said[second.assessment_id].overrides == first.assessment_id
    assert search(experiment, "feedback.fine LIKE '%x%'") == []
    mlflow.delete_assessment(trace_id, second.assessment_id)
    assert mlflow.get_assessment(trace_id, first.assessment_id).valid is True
    mlflow.delete_assessment(trace_id, first.assessment_id)
    with pytest.raises(MlflowException, match="not found"):
        mlflow.get_assessment(trace_id, first.assessment_id)
    with pytest.raises(MlflowException, match="not found"):
        mlflow.log_feedback(trace_id="tr-none", name="x", value=1)


def test_expectations_and_errors(experiment):
    trace_id = traced(outer, 1)
    for value in ("text", 3, 2.5, True, [1, "a"], {"a": {"b": 1}}):
        made = mlflow.log_expectation(trace_id=trace_id, name="e", value=value)
        assert mlflow.get_assessment(trace_id, made.assessment_id).value == value
    failed = mlflow.log_feedback(trace_id=trace_id, name="f", error=ValueError("judge is away"))
    read = mlflow.get_assessment(trace_id, failed.assessment_id)
    assert read.value is None and read.error.error_message == "judge is away" and read.error.error_code == "ValueError"
    with pytest.raises(MlflowException, match="Cannot update"):
        mlflow.update_assessment(trace_id, made.assessment_id, Feedback(name="x", value=1))
    assert len(mlflow.get_trace(trace_id).info.assessments) == 7


def test_deleting_takes_all_that_belongs_to_a_trace(client, experiment):
    ids = [traced(outer, i) for i in range(3)]
    mlflow.log_feedback(trace_id=ids[0], name="x", value=1)
    assert client.delete_traces(experiment.experiment_id, trace_ids=[ids[0], "tr-none"]) == 1
    assert search(experiment) == [ids[2], ids[1]] and search(experiment, "feedback.x > 0") == []
    with pytest.raises(MlflowException, match="not found"):
        mlflow.MlflowClient().get_trace(ids[0])
    assert client.delete_traces("0", trace_ids=[ids[1]]) == 0, "another experiment's trace"
    assert client.delete_traces(experiment.experiment_id, max_timestamp_millis=10**14, max_traces=1) == 1
    assert search(experiment) == [ids[2]]
    with pytest.raises(MlflowException, match="must be specified|Either"):
        client._tracing_client.store.delete_traces(experiment.experiment_id)


def test_spans_go_to_files_where_a_client_can_not_send_them(client, server, experiment, monkeypatch):
    from mlflow.store.tracking.rest_store import RestStore

    def refuse(*_args, **_kwargs):
        raise NotImplementedError

    monkeypatch.setattr(RestStore, "log_spans", refuse)
    mlflow.tracing.reset()
    trace_id = traced(outer, 5)
    monkeypatch.undo()
    mlflow.tracing.reset()
    trace = mlflow.get_trace(trace_id)
    assert [span.name for span in trace.data.spans] == ["outer", "inner", "leaf"]
    assert "mlflow.trace.spansLocation" not in trace.info.tags or trace.info.tags["mlflow.trace.spansLocation"] != "TRACKING_STORE"
    path = f"{server}/api/2.0/mlflow-artifacts/artifacts/{experiment.experiment_id}/traces/{trace_id}/artifacts/traces.json"
    assert http("GET", path)[0] == 200
    assert search(experiment) == [trace_id]
    client.delete_traces(experiment.experiment_id, trace_ids=[trace_id])
    assert http("GET", path)[0] == 404


def test_another_process_and_a_late_client_agree(server, experiment):
    program = "import mlflow,sys; mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_experiment(experiment_id=sys.argv[2])\n"
    program += "with mlflow.start_span('elsewhere') as span: span.set_inputs({'q': 'x'})\nmlflow.flush_trace_async_logging()"
    environment = {**os.environ, "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "true"}
    subprocess.run([sys.executable, "-c", program, server, experiment.experiment_id], check=True, timeout=120, env=environment, cwd=ROOT)
    (found,) = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list")
    assert found.info.tags["mlflow.traceName"] == "elsewhere" and found.data.spans[0].inputs == {"q": "x"}


# The same requests to both servers.

TRACE, OTHER = "tr-" + "0a" * 16, "tr-" + "0b" * 16
V2, V3 = "/api/2.0/mlflow/traces", "/api/3.0/mlflow/traces"


def otlp(spans, resource=None):
    """A request in JSON."""
    attributes = [{"key": k, "value": v} for k, v in (resource or {}).items()]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]}]}


def span(number, parent=None, trace="0a" * 16, start=1_700_000_000_000, length=50, **attributes):
    text = {"key": "plain", "value": {"stringValue": "hä"}}
    found = {
        "traceId": trace, "spanId": f"{number:016x}", "name": f"span {number}", "startTimeUnixNano": str(start * 1_000_000),
        "endTimeUnixNano": str((start + length) * 1_000_000), "status": {"code": 1},
        "attributes": [text, *({"key": k.replace("__", "."), "value": v} for k, v in attributes.items())],
    }  # fmt: skip
    return found if parent is None else {**found, "parentSpanId": f"{parent:016x}"}


def text(value):
    return {"stringValue": value}


def usage(tokens):
    return text(json.dumps({"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}))


def info(trace_id, experiment="0", **fields):
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    return {"trace": {"trace_info": {"trace_id": trace_id, "trace_location": place, "request_time": "2023-11-14T22:13:20Z", "state": "OK", **fields}}}


def feedback(name, value, **fields):
    return {"assessment": {"assessment_name": name, "source": {"source_type": "HUMAN", "source_id": "ana"}, "feedback": {"value": value},
                           "create_time": "2023-11-14T22:13:20Z", "last_update_time": "2023-11-14T22:13:21.5Z", **fields}}  # fmt: skip


def where(experiments=("0",), **fields):
    return {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": e}} for e in experiments], "max_results": 50, **fields}


SPANS = otlp(
    [
        span(2, 1, mlflow__chat__tokenUsage=usage(3), mlflow__spanType=text("LLM"), user__id=text("ana")),
        span(3, 2, mlflow__chat__tokenUsage=usage(100), start=1_700_000_000_010),
        span(
            1, session__id=text("s1"), mlflow__spanInputs=text('{"b": 1, "a": [1, 2.0]}'), mlflow__spanOutputs=text("out"), length=90,
            mlflow__traceTag__team=text("ops"), mlflow__traceTag__mlflow__traceName=text("named"),
            numbers={"arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 0.5}, {"boolValue": False}]}},
        ),
    ],
    {"service.name": text("shop"), "telemetry.sdk.name": text("x"), "mlflow.no": text("x"), "cpus": {"intValue": "4"}},
)  # fmt: skip



def attributes(**values):
    written = {str: "stringValue", int: "intValue", bool: "boolValue"}
    return {"attributes": [{"key": k.replace("__", "."), "value": {written[type(v)]: v}} for k, v in values.items()]}


def event(name, **values):
    return {"name": name, "timeUnixNano": "1700000000000000000", **attributes(**values)}


# Without a model beside tokens: stock has a list of prices, and adds what that would have cost.
FOREIGN = [
    attributes(openinference__span__kind="LLM", input__value='{"messages": [{"role": "user", "content": "Hello"}], "model": "m"}', output__value="Hi"),
    attributes(openinference__span__kind="NEW", llm__token_count__prompt=3, llm__token_count__completion=4, llm__provider="p", input__value=""),
    attributes(gen_ai__operation__name="chat", gen_ai__input__messages='[{"role": "user", "parts": [{"type": "text", "content": "q"}]}]',
               gen_ai__output__messages="[]", gen_ai__usage__input_tokens=1, gen_ai__usage__cache_read__input_tokens="2", gen_ai__provider__name="openai"),
    attributes(gen_ai__operation__name="execute_tool", gen_ai__tool__call__arguments='{"x": 1}', gen_ai__tool__call__result="7", gen_ai__tool__definitions='[{"a": 1}]'),
    attributes(gen_ai__request__model="a", gen_ai__response__model="b"),
    attributes(traceloop__span__kind="task", gen_ai__prompt__0__role="user", gen_ai__prompt__0__content="q", gen_ai__completion__0__content="a",
               gen_ai__system="openai", llm__usage__total_tokens=9),
    attributes(ai__operationId="ai.toolCall", ai__toolCall__args='{"a": 1}', ai__toolCall__result="r"),
    attributes(span__type="llm", entity__type="agent", input="in", output="out", usage__prompt_tokens=0, usage__completion_tokens=5),
    attributes(langfuse__observation__type="generation", langfuse__observation__input="i", mlflow__spanOutputs="kept", mlflow__spanType="TOOL"),
    {"events": [event("gen_ai.user.message", content="q"), event("gen_ai.choice", content="a", role="bot")]},
]  # fmt: skip

REQUESTS = [
    ("OTLP", SPANS),
    ("GET", f"{V3}/{TRACE}"),
    ("GET", f"{V3}/get?trace_id={TRACE}"),
    ("OTLP", otlp([span(4, 1, mlflow__chat__tokenUsage=usage(10), start=1_699_999_999_000)])),
    ("GET", f"{V3}/get?trace_id={TRACE}&allow_partial=true"),
    ("POST", V3, info(TRACE, tags={"mlflow.traceName": "whole", "team": "web"}, trace_metadata={"k": "v", "mlflow.trace.session": "s9"},
                      execution_duration="1.25s", client_request_id="c", response_preview="rp")),
    ("GET", f"{V3}/{TRACE}"),
    # A new tag here would be kept by both, but be missing from stock's answer.
    ("POST", V3, info(TRACE, tags={"team": "web"}, state="ERROR")),
    ("PATCH", f"{V2}/{TRACE}/tags", {"key": "x", "value": "y"}),
    ("POST", V3, info(OTHER, trace_metadata={"mlflow.trace.tokenUsage": '{"output_tokens": 5, "other": 1, "input_tokens": 2}', "mlflow.sourceRun": "r1"},
                      assessments=[{"assessment_name": "early", "assessment_id": "a-early", "source": {"source_type": "CODE"}, "feedback": {"value": 1},
                                    "create_time": "2023-11-14T22:13:20Z", "last_update_time": "2023-11-14T22:13:20Z"}])),
    ("POST", V3, {}),
    ("POST", V3, info(TRACE, experiment="77")),
    ("GET", f"{V3}/tr-none"),
    ("GET", f"{V3}/get?trace_id=tr-none"),
    ("GET", f"{V3}/get"),
    ("GET", f"{V3}/batchGet?trace_ids={TRACE}&trace_ids=tr-none"),
    ("GET", f"{V3}/batchGet"),
    ("POST", f"{V3}/batchGetInfos", {"trace_ids": [OTHER, TRACE]}),
    ("POST", f"{V3}/batchGetInfos", {"trace_ids": [OTHER, TRACE], "experiment_ids": ["1"]}),
    ("POST", f"{V3}/{TRACE}/assessments", feedback("f", True, assessment_id="a-1", rationale="r", metadata={"k": "v"})),
    ("POST", f"{V3}/{TRACE}/assessments", feedback("f", {"a": [1, None, "x"]}, assessment_id="a-2", overrides="a-1")),
    ("POST", f"{V3}/{TRACE}/assessments", feedback("f", 1, assessment_id="a-3", overrides="a-none")),
    ("POST", f"{V3}/tr-none/assessments", feedback("f", 1)),
    ("POST", f"{V3}/{TRACE}/assessments", {"assessment": {"assessment_name": "e", "assessment_id": "a-4", "source": {"source_type": "HUMAN"},
        "expectation": {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": '{"a": 1}'}}, "create_time": "2023-11-14T22:13:20Z",
        "last_update_time": "2023-11-14T22:13:20Z"}}),
    ("POST", f"{V3}/{TRACE}/assessments", {"assessment": {"assessment_name": "n", "source": {"source_type": "HUMAN"}}}),
    ("POST", f"{V3}/{TRACE}/assessments", {}),
    ("GET", f"{V3}/{TRACE}/assessments/a-1"),
    ("GET", f"{V3}/{TRACE}/assessments/a-none"),
    ("GET", f"{V3}/tr-none/assessments/a-1"),
    ("PATCH", f"{V3}/{TRACE}/assessments/a-4", {"assessment": {"feedback": {"value": 1}}, "update_mask": "feedback"}),
    ("PATCH", f"{V3}/{TRACE}/assessments/a-4", {"assessment": {"expectation": {"value": "w"}, "metadata": {"n": "m"}}, "update_mask": "expectation,metadata"}),
    ("GET", f"{V3}/{TRACE}"),
    ("DELETE", f"{V3}/{TRACE}/assessments/a-2", {}),
    ("DELETE", f"{V3}/{TRACE}/assessments/a-2", {}),
    ("GET", f"{V3}/{TRACE}/assessments/a-1"),
    ("PATCH", f"{V2}/{TRACE}/tags", {"key": "k", "value": "v"}),
    ("PATCH", f"{V3}/{TRACE}/tags", {"key": "k3", "value": "w" * 9000}),
    ("PATCH", f"{V2}/{TRACE}/tags", {"key": "../k", "value": "v"}),
    ("PATCH", f"{V2}/{TRACE}/tags", {"key": "mlflow.trace.spansLocation", "value": "v"}),
    ("PATCH", f"{V2}/{TRACE}/tags", {"value": "v"}),
    ("DELETE", f"{V2}/{TRACE}/tags", {"key": "k"}),
    ("DELETE", f"{V2}/{TRACE}/tags", {"key": "k"}),
    ("POST", f"{V2}/link-to-run", {"trace_ids": [TRACE], "run_id": "r1"}),
    ("POST", f"{V2}/link-to-run", {"trace_ids": [f"t{i}" for i in range(101)], "run_id": "r1"}),
    ("POST", f"{V2}/link-to-run", {"trace_ids": [TRACE]}),
    ("POST", f"{V2}/link-prompts", {"trace_id": TRACE, "prompt_versions": [{"name": "p", "version": "1"}]}),
    ("POST", f"{V2}/link-prompts", {"trace_id": "tr-none", "prompt_versions": [{"name": "p", "version": "1"}]}),
    *(("POST", f"{V3}/search", where(filter=f)) for f in (
        "", "status = 'ERROR'", "run_id = 'r1'", "prompt = 'p/1'", "prompt != 'p/1'", "prompt = 'p'", "metadata.k = 'v'", "feedback.f = 'true'",
        "feedback.early >= 1", "feedback.early = '1.0'", "expectation.e = 'w'", "expectation.e IS NOT NULL", "span.name = 'span 2' AND span.type = 'LLM'",
        "span.name = 'span 2' AND span.type = 'x'", "trace.text LIKE '%hä%'", "trace.text LIKE '%\"b\\\\\": 1%'", "span.attributes.plain LIKE '%hä%'",
        "name = 'whole'", "name IN ('whole')", "status > 'OK'", "nothing = 'x'", "metrics.m > 1", "tags.x = 'y' AND tags.team = 'web'", "execution_time_ms > 5",
        "end_time_ms >= 1700000000000", "client_request_id = 'c'", "feedback.f > 'x'", "issue.id = 'i'", "issue.x = 'i'", "timestamp_ms < 1700000000001",
        "metadata.`mlflow.trace.session` = 's9'", "tags.team IS NULL", "tags.", "span.nothing = 'x'", "text = 'x'", "feedback.f IS NULL",
    )),
    *(("POST", f"{V3}/search", where(order_by=[o])) for o in ("timestamp_ms ASC", "name DESC", "tags.team", "execution_time_ms DESC", "nothing", "metadata.k", "request_id DESC")),
    ("POST", f"{V3}/search", where(max_results=501)),
    ("POST", f"{V3}/search", where(max_results=0)),
    ("POST", f"{V3}/search", {"max_results": 5}),
    ("POST", f"{V3}/search", where(experiments=("77",))),
    ("POST", f"{V3}/search", where(page_token="?")),
    ("POST", f"{V2}/delete-traces", {"experiment_id": "0"}),
    ("POST", f"{V2}/delete-traces", {"experiment_id": "0", "max_traces": 1, "request_ids": ["x"]}),
    ("POST", f"{V2}/delete-traces", {"experiment_id": "0", "max_timestamp_millis": 1, "request_ids": ["x"]}),
    ("POST", f"{V2}/delete-traces", {"experiment_id": "0", "max_timestamp_millis": 1, "max_traces": 0}),
    ("POST", f"{V2}/delete-traces", {"request_ids": ["x"]}),
    ("POST", f"{V3}/delete-traces", {"experiment_id": "0", "request_ids": [TRACE]}),
    ("POST", f"{V3}/search", where()),
    ("POST", f"{V2}/delete-traces", {"experiment_id": "0", "max_timestamp_millis": 1800000000000}),
    ("POST", f"{V3}/search", where()),
    # Spans of other conventions, in an own trace each.
    *(("OTLP", otlp([{**span(1, trace=f"{n:032x}"), **fields}])) for n, fields in enumerate(FOREIGN, 1)),
    *(("GET", f"{V3}/get?trace_id=tr-{n:032x}") for n, _ in enumerate(FOREIGN, 1)),
    *(("POST", f"{V3}/search", where(filter=f)) for f in (
        "span.name RLIKE '^span [1-3]$'", "span.attributes.plain RLIKE '^h.$'", "span.attributes.plain RLIKE 'hä$'",
        "span.attributes.plain RLIKE '^x'", "span.attributes.none RLIKE ''", "tags.none RLIKE '.'", "status RLIKE 'O'", "span.content RLIKE 'x'", "timestamp_ms RLIKE '1'",
    )),
    ("POST", f"{V2}/link-to-run", {"trace_ids": [], "run_id": "r1"}),
    ("POST", f"{V2}/link-to-run", {"run_id": "r1"}),
    ("POST", f"{V2}/link-prompts", {"trace_id": f"tr-{1:032x}", "prompt_versions": []}),
    ("POST", f"{V2}/link-prompts", {"trace_id": f"tr-{1:032x}"}),
    ("POST", f"{V3}/search", {"locations": []}),
    ("POST", f"{V3}/tr-{1:032x}/assessments", feedback("f", 1, assessment_id="a-5")),
    ("PATCH", f"{V3}/tr-{1:032x}/assessments/a-5", {"assessment": {"metadata": {"a": "c"}}, "update_mask": ""}),
    ("OTLP", {}),
    ("OTLP", otlp([{"name": "n"}])),
    ("OTLP", otlp([{"traceId": "zz", "spanId": "01"}])),
]  # fmt: skip


def neutral(value, key=None):
    """An answer without what a server chooses itself: its clock and the order of lists that promise none."""
    if isinstance(value, dict):
        return {k: neutral(v, k) for k, v in sorted(value.items()) if k not in ("sqlstate", "error_class", "last_update_time", "next_page_token")}
    if isinstance(value, list):
        items = [neutral(item) for item in value]
        return sorted(items, key=lambda i: json.dumps(i, sort_keys=True)) if key in ("assessments", "attributes") else items
    return value


def asked(server, request):
    method, path, *body = request if request[0] != "OTLP" else ("POST", "/v1/traces", request[1])
    headers = {"Content-Type": "application/json"}
    if request[0] == "OTLP":
        headers["x-mlflow-experiment-id"] = "0"
    status, _, answer = http(method, server + path, json.dumps(body[0]).encode() if body else None, headers)
    try:
        answer = neutral(json.loads(answer))
    except ValueError:
        answer = answer.decode(errors="replace")
    if request[0] == "OTLP" and status == 200:
        # MLflow 3.17 answers JSON with an empty protobuf message, 3.18 and we with JSON.
        answer = None
    if status >= 400 and isinstance(answer, dict):
        # What is wrong is said in other words where stock shows Python's sets.
        answer = {"code": answer.get("error_code"), "detail": "detail" in answer}
    return status, answer


@pytest.mark.skipif(not os.environ.get("MLFLOW_STOCK"), reason="MLFLOW_STOCK names no stock server")
def test_raw_requests_are_answered_as_by_stock(fresh, stock):  # noqa: F811
    differences = []
    for number, request in enumerate(REQUESTS):
        ours, theirs = asked(fresh, request), asked(stock, request)
        if ours != theirs:
            differences.append(f"#{number} {request[0]} {json.dumps(request[1:])[:400]}\n  ours  {ours}\n  stock {theirs}")
    assert not differences, f"{len(differences)} of {len(REQUESTS)} answers differ:\n" + "\n".join(differences)


def test_compressed_spans_and_what_is_refused(server):
    def send(body, **headers):
        named = {"Content-Type": "application/json", "x-mlflow-experiment-id": "0"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return http("POST", f"{server}/v1/traces", body, {k: v for k, v in named.items() if v})[0]

    trace = "0c" * 16
    body = json.dumps(otlp([span(1, trace=trace)])).encode()
    assert send(gzip.compress(body), Content_Encoding="gzip") == 200
    assert send(zlib.compress(body), Content_Encoding="deflate") == 200
    assert send(body, Content_Encoding="br") == 400 and send(b"no gzip", Content_Encoding="gzip") == 400
    assert send(body, Content_Type="text/plain") == 400
    assert send(body, x_mlflow_experiment_id="4711") == 400, "the trace has an experiment already"
    assert send(json.dumps(otlp([span(1, trace="0d" * 16)])).encode(), x_mlflow_experiment_id="4711") == 404
    assert send(body, x_mlflow_experiment_id=None) == 422
    # Names that are no trace's id have no JSON, so that clients fall back to an older interface.
    status, headers, _ = http("POST", f"{server}{V3}/metrics", b"{}", {"Content-Type": "application/json"})
    assert status == 404 and "json" not in headers.get("content-type", "")
    status, _, answer = http("GET", f"{server}{V2}/{TRACE}/info")
    assert status == 404 and not re.search(rb"error_code", answer)


def test_what_applications_meet_is_kept(experiment):
    with mlflow.start_span("s\0pan") as span:
        span.set_inputs({"messages": [{"role": "user", "content": "x\0y"}]})
        span.set_outputs({"loss": float("nan"), "bounds": [float("inf"), -float("inf")]})
    found = mlflow.get_trace(span.trace_id)
    assert found.info.request_preview == "x\N{REPLACEMENT CHARACTER}y"
    (kept,) = found.data.spans
    assert kept.inputs == {"messages": [{"role": "user", "content": "x\0y"}]}
    assert str(kept.outputs) == "{'loss': nan, 'bounds': [inf, -inf]}"


def test_odd_senders_are_understood(server):
    headers = {"Content-Type": "application/json", "x-mlflow-experiment-id": "0"}
    # So many that going through them for each of them would take longer than a request may.
    many = [{"key": f"k{i}", "value": {"intValue": "1"}} for i in range(200_000)]
    odd = {**span(1, trace="0d" * 16), "parentSpanId": "0" * 16, "startTimeUnixNano": 1.7e18, "endTimeUnixNano": 1.700000001e18,
           "attributes": [{"key": "none", "value": None}, {"key": "whole", "value": {"intValue": 1.0}}, *many]}  # fmt: skip
    halves = [gzip.compress(part) for part in (json.dumps(otlp([odd])).encode()[:100], json.dumps(otlp([odd])).encode()[100:])]
    assert http("POST", server + "/v1/traces", b"".join(halves), {**headers, "Content-Encoding": "gzip"})[0] == 200
    status, _, body = http("GET", f"{server}/api/3.0/mlflow/traces/tr-{'0d' * 16}")
    assert status == 200 and json.loads(body)["trace"]["trace_info"]["state"] == "OK"


def test_a_regular_expression_finds_what_belongs_to_a_trace(experiment):
    first = traced(outer, 1, {"place": "us-east-1"}, {"version": "v2.1"}, "req-prod-7")
    second = traced(broken)
    mlflow.log_feedback(trace_id=first, name="comment", value="Great, very helpful")
    for filter_string, found in [
        ("name RLIKE '^out'", [first]), ("trace.name RLIKE '(er|en)$'", [second, first]), ("tags.place RLIKE 'us-(east|west)-[0-9]'", [first]),
        ("metadata.version RLIKE '^v2\\.[0-9]$'", [first]), ("client_request_id RLIKE 'prod-\\d+$'", [first]), ("span.name RLIKE '^(leaf|inner)$'", [first]),
        ("span.type RLIKE '^LLM$'", [first]), ("feedback.comment RLIKE 'Great.*helpful'", [first]), ("status RLIKE '^ERR'", [second]),
        ("span.attributes.a = '1'", [first]), ("span.attributes.a != '1'", []), ("span.attributes.a IN ('0', '1')", [first]), ("span.attributes.a NOT IN ('0')", [first]),
        ("span.attributes.`mlflow.llm.model` = 'some-model'", [first]), ("span.attributes.`mlflow.llm.model` RLIKE '^some.*l$'", [first]),
    ]:  # fmt: skip
        assert search(experiment, filter_string) == found, filter_string
    for bad, why in [("(", "unclosed group"), ("(a)\\1", "backreferences"), ("a{300}", "repeats"), ("(?=a)", "look-around")]:
        with pytest.raises(MlflowException, match=why) as refused:
            search(experiment, f"name RLIKE '{bad}'")
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_trace_is_not_led_astray(server, experiment):
    def ask(method, path, body):
        status, _, answer = http(method, server + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return status, json.loads(answer)

    trace = "tr-" + "0e" * 16
    fixed = {"mlflow.artifactLocation": "s3://evil", "mlflow.trace.spansLocation": "TRACKING_STORE", "mlflow.trace.archiveLocation": "s3://evil"}
    status, made = ask("POST", V3, info(trace, tags=fixed))
    assert status == 200 and list(made["trace"]["trace_info"]["tags"].values()) == [f"mlflow-artifacts:/0/traces/{trace}/artifacts"]
    for key in fixed:
        for method, done in [("PATCH", "set"), ("DELETE", "deleted")]:
            status, error = ask(method, f"{V2}/{trace}/tags", {"key": key, "value": "v"})
            assert (status, error["message"]) == (400, f"Tag '{key}' is immutable and cannot be {done} on a trace.")
    status, error = ask("POST", V3, info(trace, experiment=experiment.experiment_id))
    assert (status, error["message"]) == (400, f"Trace with ID '{trace}' already exists in another experiment.")
    # Its spans are elsewhere, which is no failure of the server that a client would wait for.
    for path in (f"get?trace_id={trace}", f"batchGet?trace_ids={trace}"):
        status, _, answer = http("GET", f"{server}{V3}/{path}")
        assert status == 400 and "not stored in tracking store" in json.loads(answer)["message"]
    ask("POST", f"{V3}/{trace}/assessments", feedback("f", 1, assessment_id="a-6"))
    status, changed = ask("PATCH", f"{V3}/{trace}/assessments/a-6", {"assessment": {"metadata": {"a": "b"}}, "update_mask": {"paths": ["metadata"]}})
    assert (status, changed["assessment"]["metadata"]) == (200, {"a": "b"})
