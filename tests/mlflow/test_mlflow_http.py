"""Headers, paths and addresses as MLflow's own server has them, and what its pages ask for."""

import json
import uuid
from urllib.parse import quote, urlencode

import mlflow
import pytest
from conftest import http
from test_mlflow_wire import FILES, JSON, call

AJAX = "/ajax-api/2.0/mlflow"


@pytest.fixture
def run(server):
    return call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]


@pytest.fixture
def root(server, run):
    return f"{server}{FILES}/0/{run['run_id']}/artifacts"


def get(address, **query):
    return http("GET", f"{address}?{urlencode(query, doseq=True)}")


def error(answer):
    return answer[0], json.loads(answer[2])["error_code"], json.loads(answer[2])["message"]


INVALID = "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "name, kind, disposition",
    [
        ("dog+step+20.png", "image/png", "attachment; filename=dog+step+20.png"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("sp ace.txt", "text/plain", 'attachment; filename="sp ace.txt"'),
        ("ü.json", "text/plain", "attachment; filename=u.json; filename*=UTF-8''%C3%BC.json"),
        ('q"q.html', "text/html", 'attachment; filename="q\\"q.html"'),
        ("x.bin", "application/octet-stream", "attachment; filename=x.bin"),
    ],
)
def test_a_download_says_what_it_is_and_is_kept(server, run, root, name, kind, disposition):
    assert http("PUT", f"{root}/{quote(name)}", b"x")[0] == 200
    for answer in (http("GET", f"{root}/{quote(name)}"), get(f"{server}/get-artifact", run_id=run["run_id"], path=name)):
        headers = answer[1]
        assert (answer[0], headers["content-type"], headers["content-disposition"]) == (200, kind, disposition)
        assert headers["x-content-type-options"] == "nosniff"


def test_parts_of_a_path_that_mean_nothing_are_left_out(server, run, root):
    for path in ("a.txt", "d/f.txt", "x//y.txt"):
        assert http("PUT", f"{root}/{path}", b"1")[0] == 200, path
    id, listing = run["run_id"], f"{server}/api/2.0/mlflow/artifacts/list"
    for path, found in {
        ".": ["./a.txt", "./d", "./x"],
        "./": ["./a.txt", "./d", "./x"],
        "d/.": ["d/./f.txt"],
        "./d": ["./d/f.txt"],
        "x": ["x/y.txt"],
    }.items():
        listed = json.loads(get(listing, run_id=id, path=path)[2])
        assert [one["path"] for one in listed["files"]] == found, path
        listed = json.loads(get(f"{server}{FILES}", path=f"0/{id}/artifacts/{path}")[2])
        assert [one["path"] for one in listed["files"]] == [one.rsplit("/", 1)[1] for one in found], path
    for path in ("./a.txt", "d//f.txt", "d/./f.txt"):
        assert http("GET", f"{root}/{path}")[::2] == (200, b"1")
    for path in ("d", "d/.", ""):
        status, code, message = error(get(f"{server}/get-artifact", run_id=id, path=path))
        assert (status, code) == (400, INVALID) and message.startswith("Artifact path refers to a directory, not a file: '"), path
    for path in ("/", "..", "./..", "d/./../..", "./%2e%2e", "/etc", "file:///etc/passwd", "./file:/etc/passwd"):
        for answer in (get(listing, run_id=id, path=path), get(f"{server}/get-artifact", run_id=id, path=path)):
            assert error(answer) == (400, INVALID, "Invalid path"), path
    for path in ("a.txt/", "./b.txt", "d/./g.txt"):
        assert error(http("PUT", f"{root}/{path}", b"1"))[:2] == (400, INVALID), path
    for step in ("create", "complete", "abort"):
        answer = http("POST", f"{server}/api/2.0/mlflow-artifacts/mpu/{step}/%2e%2e/x", b"no JSON")
        assert error(answer) == (400, INVALID, "Invalid path")
    assert error(http("GET", f"{server}/api/2.0/mlflow-artifacts/presigned/%2e%2e/x")) == (400, INVALID, "Invalid path")


def test_what_a_location_asks_for_stays_at_its_end(server):
    for location, head, tail in (
        ("s3://b/x?y=1", "s3://b/x", "?y=1"),
        ("mysql://user:password@host:port/dbname?driver=mydriver", "mysql://user:password@host:port/dbname", "?driver=mydriver"),
        ("/a/b?c=d", "/a/b?c=d", ""),
    ):
        made = call(server, "experiments/create", {"name": uuid.uuid4().hex, "artifact_location": location})
        id = made[1]["experiment_id"]
        assert json.loads(get(f"{server}/api/2.0/mlflow/experiments/get", experiment_id=id)[2])["experiment"]["artifact_location"] == location
        info = call(server, "runs/create", {"experiment_id": id})[1]["run"]["info"]
        assert info["artifact_uri"] == f"{head}/{info['run_id']}/artifacts{tail}"
        model = call(server, "logged-models", {"experiment_id": id})[1]["model"]["info"]
        assert model["artifact_uri"] == f"{head}/models/{model['model_id']}/artifacts{tail}"
    for location, said in (
        ("s3://b/x#f", "'artifact_location' URL can't include fragments or params."),
        ("http://host/;..%2F..%2Fetc", "'artifact_location' URL can't include fragments or params."),
        ("s3://b/x?%2e%2e/", "Invalid query string"),
        ("s3://b/" + "x" * 2048, "Invalid artifact path length"),
        ("ftp://h/x", "'artifact_location' cannot use the 'ftp' scheme: "),
    ):
        status, answer = call(server, "experiments/create", {"name": uuid.uuid4().hex, "artifact_location": location})
        assert (status, answer["error_code"]) == (400, INVALID) and said in answer["message"], location


def test_histories_of_several_runs_at_once(server, run):
    ids = sorted([run["run_id"], call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]])
    points = [{"key": "m", "value": value, "timestamp": at, "step": step} for at, step, value in ((2, 0, 4.0), (1, 3, 2.0), (1, 3, 1.0))]
    for id in ids:
        assert call(server, "runs/log-batch", {"run_id": id, "metrics": points})[0] == 200
    ordered = [{**point, "run_id": id} for id in ids for point in reversed(points)]
    bulk = f"{server}{AJAX}/metrics/get-history-bulk"
    assert json.loads(get(bulk, run_id=ids[::-1] + ["none", ids[0]], metric_key="m")[2]) == {"metrics": ordered}
    assert json.loads(get(bulk, run_id=ids, metric_key="m", max_results=4)[2]) == {"metrics": ordered[:4]}
    assert json.loads(get(bulk, run_id=ids, metric_key="none")[2]) == {"metrics": []}
    for query, said in (
        ({"metric_key": "m"}, "GetMetricHistoryBulk request must specify at least one run_id."),
        ({"run_id": ids}, "GetMetricHistoryBulk request must specify a metric_key."),
        ({"run_id": ["x"] * 101, "metric_key": "m"}, "GetMetricHistoryBulk request cannot specify more than 100 run_ids"),
    ):
        status, code, message = error(get(bulk, **query))
        assert (status, code) == (400, INVALID) and said in message


def test_a_page_sends_a_small_file(server, run):
    id, address = run["run_id"], f"{server}{AJAX}/upload-artifact"

    def send(data=b"", **query):
        return http("POST", f"{address}?{urlencode(query)}", data)

    assert send(b"hello", run_uuid=id, path="d/up.txt")[0] == 200
    assert send(b"again", run_id=id, path="d/up.txt")[0] == 200
    assert get(f"{server}/get-artifact", run_id=id, path="d/up.txt")[2] == b"again"
    for data, query, said in (
        (b"x", {"path": "a"}, "Request must specify run_uuid."),
        (b"x", {"path": "a"}, "Request must specify run_id or run_uuid."),
        (b"x", {"run_uuid": id}, "Request must specify path."),
        (b"", {"run_uuid": id, "path": "a"}, "Request must specify data."),
        (b"x", {"run_uuid": id, "path": "../a"}, "Invalid path"),
        (b"x" * ((10 << 20) + 1), {"run_uuid": id, "path": "a"}, "Max size is 10MB"),
    ):
        status, code, message = error(send(data, **query))
        assert (status, code) == (400, INVALID) and said in message, said
    assert error(send(b"x", run_uuid="none", path="a"))[0] == 404


def test_a_page_reads_files_of_a_trace_and_of_a_model(server, client, experiment):
    @mlflow.trace(name="root")
    def traced(x):
        return x + 1

    traced(1)
    mlflow.flush_trace_async_logging()
    id = mlflow.get_last_active_trace_id()
    for version in ("2.0", "3.0"):
        address = f"{server}/ajax-api/{version}/mlflow/get-trace-artifact"
        status, headers, body = get(address, request_id=id)
        assert (status, headers["content-disposition"], headers["content-type"]) == (200, "attachment; filename=traces.json", "text/plain")
        (span,) = mlflow.entities.TraceData.from_dict(json.loads(body)).spans
        assert (span.name, span.inputs, span.outputs) == ("root", {"x": 1}, 2)
        assert error(get(address))[:2] == (400, "BAD_REQUEST")
        assert error(get(address, request_id="none"))[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
        for path, expected in (("../x", "Invalid path"), ("x", "must be a valid UUID")):
            assert expected in error(get(address, request_id=id, path=path))[2]
        assert error(get(address, request_id=id, path=str(uuid.uuid4())))[0] == 404
    named = str(uuid.uuid4())
    folder = client.get_trace(id).info.tags["mlflow.artifactLocation"].removeprefix("mlflow-artifacts:/")
    assert http("PUT", f"{server}{FILES}/{folder}/attachments/{named}", b"seen")[0] == 200
    assert get(f"{server}{AJAX}/get-trace-artifact", request_id=id, path=named)[::2] == (200, b"seen")

    model = call(server, "logged-models", {"experiment_id": "0"})[1]["model"]["info"]["model_id"]
    http("PUT", f"{server}{FILES}/0/models/{model}/artifacts/MLmodel", b"m")
    address = f"{server}{AJAX}/logged-models/{model}/artifacts/files"
    assert get(address, artifact_file_path="MLmodel")[::2] == (200, b"m")
    assert error(get(address))[:2] == (400, "BAD_REQUEST")
    assert error(get(address, artifact_file_path="../x")) == (400, INVALID, "Invalid path")
    assert error(get(address, artifact_file_path="none"))[0] == 404
    # Under /api these are not there: clients don't ask for them.
    assert http("GET", f"{server}/api/2.0/mlflow/get-trace-artifact?request_id={id}")[::2] == (404, b"")


def test_pages_see_no_other_workspace(server, run):
    name = "w" + uuid.uuid4().hex[:8]
    assert http("POST", f"{server}/api/3.0/mlflow/workspaces", json.dumps({"name": name}).encode(), JSON)[0] == 201
    there = {"X-MLFLOW-WORKSPACE": name}
    call(server, "runs/log-metric", {"run_id": run["run_id"], "key": "m", "value": 1, "timestamp": 0})
    bulk = f"{server}{AJAX}/metrics/get-history-bulk?run_id={run['run_id']}&metric_key=m"
    assert len(json.loads(http("GET", bulk)[2])["metrics"]) == 1
    assert json.loads(http("GET", bulk, None, there)[2]) == {"metrics": []}
    address = f"{server}{AJAX}/upload-artifact?run_id={run['run_id']}&path=a"
    assert http("POST", address, b"x", there)[0] == 404 and http("POST", address, b"x")[0] == 200
    model = call(server, "logged-models", {"experiment_id": "0"})[1]["model"]["info"]["model_id"]
    assert http("GET", f"{server}{AJAX}/logged-models/{model}/artifacts/files?artifact_file_path=x", None, there)[0] == 404


def test_by_which_names_the_server_may_be_called(server):
    search, body = f"{server}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}'
    for host in ("localhost", "127.0.0.1", "[::1]", "localhost:9", "192.168.1.1", "10.0.0.1:8080", server.removeprefix("http://")):
        assert http("POST", search, body, {**JSON, "Host": host})[0] == 200, host
    for host in ("evil.example", "evil.example:80", "192.168.1.1.evil.example", "10.evil.example", "::1", "localhost.evil.example"):
        status, _, answer = http("POST", search, body, {**JSON, "Host": host})
        assert status == 403 and b"Invalid Host header" in answer, host
    assert http("GET", f"{server}/health", None, {"Host": "evil.example"})[0] == 200
    for origin, status in ((server, 200), ("http://evil.example", 403), ("http://localhost:1", 403), ("null", 403)):
        assert http("POST", search, body, {**JSON, "Origin": origin})[0] == status, origin
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    status, headers, _ = http("OPTIONS", search, None, {**ask, "Origin": server})
    assert (status, headers["access-control-allow-origin"], headers["access-control-allow-headers"]) == (204, server, "content-type")
    status, headers, _ = http("OPTIONS", search, None, {**ask, "Origin": "http://evil.example"})
    assert status == 400 and "access-control-allow-origin" not in headers
    for path in ("/health", "/nothing", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/api/2.0/mlflow/runs/get"):
        headers = http("GET", server + path)[1]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "SAMEORIGIN"), path


def test_an_address_may_end_with_a_slash(server, root):
    assert http("GET", f"{server}//api/2.0/mlflow/experiments/get?experiment_id=0")[0] == 200
    http("PUT", f"{root}/a%20b.txt", b"1")
    assert http("GET", f"{root}/a%20b.txt".replace("/api/", "//api/"))[::2] == (200, b"1")
    assert error(http("GET", f"{root}/%2e%2e/x".replace("/api/", "//api/"))) == (400, INVALID, "Invalid path")
    assert http("GET", f"{server}//nothing")[::2] == (404, b"")


def test_a_body_says_that_it_is_json(server):
    address = f"{server}/api/2.0/mlflow/experiments/search"
    for headers, said in (({"Content-Type": "text/plain"}, "Content-Type must be one of"), ({"Content-Type": ""}, "Content-Type")):
        status, code, message = error(http("POST", address, b'{"max_results": 1}', headers))
        assert (status, code) == (400, INVALID) and said in message
    assert http("POST", address, b'{"max_results": 1}', {"Content-Type": "application/json; charset=utf-8"})[0] == 200
