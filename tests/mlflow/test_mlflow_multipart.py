"""Large artifacts: the stock client's uploads and downloads in parts, signed URLs, and pieces of files."""

import hashlib
import hmac
import json
import os
import sqlite3
import struct
import time
from urllib.parse import parse_qs, quote, urlsplit

import engines
import mlflow
import pytest
import requests
from conftest import http
from engines import Server
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

API = "/api/2.0/mlflow-artifacts"
JSON = {"Content-Type": "application/json"}
MB = 1 << 20


@pytest.fixture(autouse=True)
def elsewhere():
    """These tests point the client at servers of their own; the others' server is the client's again afterwards."""
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "home", *(options := engines.database())).start()
    server.database = options[1] if options else None
    yield server
    server.stop()


@pytest.fixture
def small(monkeypatch):
    """A client that insists on parts, with lowered limits: files from 1 MB on go in parts of 5 MB and come in pieces of 1 MB."""
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(MB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MB))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(MB))


class Run:
    """A run whose artifacts are asked for without the client."""

    def __init__(self, server):
        self.server = server
        self.client = mlflow.MlflowClient(server.address)
        self.info = self.client.create_run("0").info
        self.root = self.info.artifact_uri.removeprefix("mlflow-artifacts:/")

    def post(self, verb, **body):
        url = f"{self.server.address}{API}/mpu/{verb}/{self.root}"
        return requests.post(url, json={"path": "/home/u/big.bin", **body}, timeout=60)

    def begin(self, parts):
        answer = self.post("create", num_parts=parts).json()
        return answer["upload_id"], [credential["url"] for credential in answer["credentials"]]

    def complete(self, upload, etags):
        parts = [{"part_number": number, "etag": etag, "url": ""} for number, etag in enumerate(etags, 1)]
        return self.post("complete", upload_id=upload, parts=parts)

    def get(self, path, **headers):
        return requests.get(f"{self.server.address}{API}/artifacts/{self.root}/{path}", headers=headers, timeout=60)

    def put(self, path, data):
        assert requests.put(f"{self.server.address}{API}/artifacts/{self.root}/{path}", data=data, timeout=60).status_code == 200

    def presigned(self, path):
        return requests.get(f"{self.server.address}{API}/presigned/{self.root}/{path}", timeout=60)


@pytest.fixture
def run(server):
    return Run(server)


def put(url, data):
    answer = requests.put(url, data=data, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.headers["ETag"]


def left(server):
    """Files of uploads that are on the server's disk."""
    return [path for path in (server.home / "blobs").glob("uploads/**/*") if path.is_file()] + list((server.home / "blobs/incoming").iterdir())


def noise(size):
    return os.urandom(MB) * (size // MB) + os.urandom(size % MB)


def test_the_stock_client_uploads_and_downloads_in_parts_by_itself(server, small, tmp_path, monkeypatch):
    sent = []
    upload = MlflowArtifactsRepository._upload_part
    monkeypatch.setattr(MlflowArtifactsRepository, "_upload_part", staticmethod(lambda *a, **k: sent.append(k["credential"]) or upload(*a, **k)))
    name = "a model ü (1).bin"
    data = noise(12 * MB + 345)
    (tmp_path / name).write_bytes(data)
    (tmp_path / "small.txt").write_text("small")
    (tmp_path / "empty").write_bytes(b"")
    mlflow.set_tracking_uri(server.address)
    with mlflow.start_run(experiment_id="0") as run:
        for file in (name, "small.txt", "empty"):
            mlflow.log_artifact(str(tmp_path / file), "model")
    assert [credential.part_number for credential in sent] == [1, 2, 3]
    assert all("signature=" in credential.url for credential in sent)
    for file, content in ((name, data), ("small.txt", b"small"), ("empty", b"")):
        fetched = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model/{file}", dst_path=tmp_path / f"got {file}")
        with open(fetched, "rb") as got:
            assert got.read() == content
    listed = mlflow.MlflowClient().list_artifacts(run.info.run_id, "model")
    assert {file.path: file.file_size for file in listed}[f"model/{name}"] == len(data)


def test_parts_are_sent_without_signing_in_where_everything_else_needs_it(small, tmp_path, monkeypatch):
    accounts = tmp_path / "accounts"
    accounts.write_text(f"user alice {hashlib.sha256(b'of-alice').hexdigest()}\n")
    server = Server(tmp_path / "home", *engines.database(), identity=["--tokens", str(accounts)]).start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-alice")
        mlflow.set_tracking_uri(server.address)
        data = noise(6 * MB)
        (tmp_path / "big.bin").write_bytes(data)
        with mlflow.start_run(experiment_id="0") as run:
            mlflow.log_artifact(str(tmp_path / "big.bin"))
        with open(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/big.bin"), "rb") as got:
            assert got.read() == data
        root = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
        for method, path in (("POST", f"mpu/create/{root}"), ("POST", f"mpu/complete/{root}"), ("POST", f"mpu/abort/{root}"), ("GET", f"presigned/{root}/big.bin"), ("GET", f"artifacts/{root}/big.bin")):
            assert http(method, f"{server.address}{API}/{path}", b"{}" if method == "POST" else None, JSON)[0] == 401, path
        assert http("PUT", f"{server.address}{API}/signed/part/{root}/x?upload=1&part=1&expires=9999999999999&signature=00", b"x")[0] == 403
        assert http("GET", f"{server.address}{API}/signed/file/{root}/big.bin?digest=x&expires=9999999999999&signature=")[0] == 403
        assert http("GET", f"{server.address}{API}/signed/../artifacts/{root}/big.bin")[0] in (401, 404)
    finally:
        server.stop()


@pytest.mark.parametrize("forced", ["true", "false"])
def test_the_client_may_be_told_to_use_parts_or_not(server, small, tmp_path, monkeypatch, forced):
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", forced)
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", forced)
    data = noise(2 * MB)
    (tmp_path / "big.bin").write_bytes(data)
    mlflow.set_tracking_uri(server.address)
    with mlflow.start_run(experiment_id="0") as run:
        mlflow.log_artifact(str(tmp_path / "big.bin"))
    with open(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/big.bin"), "rb") as got:
        assert got.read() == data
    in_parts = any((server.home / "blobs").glob("uploads/*"))
    assert in_parts == (forced == "true")


def test_an_upload_that_fails_at_the_client_leaves_nothing(server, small, tmp_path, monkeypatch):
    upload = MlflowArtifactsRepository._upload_part

    def failing(*arguments, credential, **more):
        if credential.part_number == 2:
            raise requests.ConnectionError("the cable")
        return upload(*arguments, credential=credential, **more)

    monkeypatch.setattr(MlflowArtifactsRepository, "_upload_part", staticmethod(failing))
    (tmp_path / "big.bin").write_bytes(noise(12 * MB))
    mlflow.set_tracking_uri(server.address)
    with mlflow.start_run(experiment_id="0") as run, pytest.raises(Exception, match="the cable"):
        mlflow.log_artifact(str(tmp_path / "big.bin"))
    assert left(server) == []
    assert mlflow.MlflowClient().list_artifacts(run.info.run_id) == []


def test_a_part_that_is_sent_again_takes_the_place_of_the_first(run):
    upload, urls = run.begin(2)
    wrong = put(urls[0], b"wrong ")
    second = put(urls[1], b"bytes")
    first = put(urls[0], b"right ")
    assert wrong != first and first == f'"{hashlib.sha256(b"right ").hexdigest()}"'
    refused = run.complete(upload, [wrong, second])
    assert refused.status_code == 400 and "part 1" in refused.json()["message"]
    assert run.get("big.bin").status_code == 404
    for _ in range(2):
        assert run.complete(upload, [first, second]).status_code == 200, "a client that got no answer asks again"
    assert run.get("big.bin").content == b"right bytes"
    assert requests.put(urls[0], data=b"late", timeout=60).status_code == 404
    assert all(path.name in ("joined", "lock", "used") for path in left(run.server))


def test_an_upload_is_completed_whole_or_not_at_all(run):
    upload, urls = run.begin(3)
    etags = [put(url, b"part") for url in urls[:2]]
    for named in (etags, [*etags, etags[0]], [*etags, '"x"'], []):
        assert run.complete(upload, named).status_code == 400
    assert run.get("big.bin").status_code == 404
    for body in ({"num_parts": 0}, {"num_parts": 10_001}, {"num_parts": -1}, {"num_parts": 1, "path": "/home/u/"}, {"num_parts": 1, "path": "%2e%2e"}):
        answer = run.post("create", **body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), body


def test_what_arrived_before_a_kill_needs_not_be_sent_again(run):
    upload, urls = run.begin(3)
    etags = [put(url, noise(MB)) for url in urls[:2]]
    run.server.kill()
    run.server.start()
    etags.append(put(urls[2], b"the end"))
    assert run.complete(upload, etags).status_code == 200
    assert len(run.get("big.bin").content) == 2 * MB + 7


def test_abort_leaves_nothing_and_ends_the_upload(run):
    upload, urls = run.begin(2)
    etags = [put(url, b"part") for url in urls]
    assert len(left(run.server)) == 3, "two parts and a lock"
    for _ in range(2):
        assert run.post("abort", upload_id=upload).status_code == 200
    assert left(run.server) == []
    assert requests.put(urls[0], data=b"x", timeout=60).status_code == 404
    assert run.complete(upload, etags).status_code == 404


def test_what_is_left_of_old_uploads_is_deleted_when_a_server_starts(run):
    upload, urls = run.begin(1)
    etag = put(urls[0], b"part")
    run.server.stop()
    old = run.server.home / "blobs/uploads" / f"{int(time.time() * 1000) - 86_500_000}-1-{'ab' * 16}"
    old.mkdir()
    (old / "1-0").write_text("part")
    run.server.start()
    end = time.monotonic() + 10
    while old.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert run.complete(upload, [etag]).status_code == 200, "a new one stays"


def test_an_upload_that_was_completed_writes_over_nothing_newer(run):
    upload, urls = run.begin(1)
    etag = put(urls[0], b"old")
    assert run.complete(upload, [etag]).status_code == 200
    assert run.get("big.bin").content == b"old"
    run.put("big.bin", b"newer")
    assert run.complete(upload, [etag]).status_code == 200, "an answer that was lost is asked for again"
    assert run.get("big.bin").content == b"newer"


def test_a_presigned_url_ends_with_its_file(run):
    run.put("a.bin", b"0123456789")
    url = run.presigned("a.bin").json()["url"]
    assert requests.get(url, timeout=60).content == b"0123456789"
    assert requests.delete(f"{run.server.address}{API}/artifacts/{run.root}/a.bin", timeout=60).status_code == 200
    assert requests.get(url, timeout=60).status_code == 404


def test_an_upload_completes_only_where_it_was_begun(run):
    upload, urls = run.begin(1)
    etag = put(urls[0], b"part")
    other = Run(run.server)
    assert other.complete(upload, [etag]).status_code == 404
    assert other.post("abort", upload_id=upload).status_code == 404
    body = {"path": "other.bin", "upload_id": upload, "parts": [{"part_number": 1, "etag": etag}]}
    assert run.post("complete", **body).status_code == 404
    for wrong in ("", "x", upload[:-1], upload.replace("-", "_"), "../" + upload):
        assert run.complete(wrong, [etag]).status_code in (400, 404)
    assert run.complete(upload, [etag]).status_code == 200


def test_a_parts_url_is_for_that_part_of_that_upload_alone(run):
    _, urls = run.begin(2)
    _, others = run.begin(2)
    first, other = urlsplit(urls[0]), urlsplit(others[0])
    query, second = parse_qs(first.query), parse_qs(other.query)
    base = f"{run.server.address}{first.path}"

    def refused(path=first.path, **changed):
        pairs = {name: values[0] for name, values in query.items()} | changed
        answer = requests.put(f"{run.server.address}{path}?" + "&".join(f"{name}={quote(value)}" for name, value in pairs.items()), data=b"x", timeout=60)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), changed
        return answer

    refused(part="2")
    refused(upload=second["upload"][0])
    refused(expires=str(int(query["expires"][0]) + 1))
    refused(signature=second["signature"][0])
    refused(signature="00" * 32)
    refused(path=first.path + "x")
    assert requests.put(base, data=b"x", timeout=60).status_code == 400
    assert requests.get(urls[0], timeout=60).status_code == 405
    put(urls[0], b"x")


def key(server):
    """The key of the server's signatures, which only its database knows."""
    statement = "SELECT value FROM settings WHERE key = 'artifact-url-key'"
    if server.database:
        return bytes.fromhex(engines.postgres().run("psql", "-At", "-c", statement, server.database.rsplit("/", 1)[1]).stdout.strip())
    with sqlite3.connect(server.home / "lockgate.db") as connection:
        return bytes.fromhex(connection.execute(statement).fetchone()[0])


def signature(server, what, expires):
    text = b"".join(struct.pack(">Q", len(part.encode())) + part.encode() for part in what) + struct.pack(">q", expires)
    return hmac.new(key(server), text, hashlib.sha256).hexdigest()


def test_expired_urls_are_refused(run):
    run.put("a.bin", b"0123456789")
    url = urlsplit(run.presigned("a.bin").json()["url"])
    digest = parse_qs(url.query)["digest"][0]
    path = url.path.removeprefix(f"{API}/signed/file/")
    now = int(time.time() * 1000)
    for expires, status in ((now + 60_000, 200), (now + 25 * 3_600_000, 403), (now - 1, 403)):
        signed = signature(run.server, ["file", path, digest], expires)
        answer = requests.get(f"{run.server.address}{url.path}?digest={digest}&expires={expires}&signature={signed}", timeout=60)
        assert answer.status_code == status, answer.text
    assert "expired" in answer.json()["message"]
    upload, urls = run.begin(1)
    part = urlsplit(urls[0])
    name, path = parse_qs(part.query)["upload"][0], part.path.removeprefix(f"{API}/signed/part/")
    for expires, status in ((now + 60_000, 200), (now - 1, 403)):
        signed = signature(run.server, ["part", name, "1", path], expires)
        answer = requests.put(f"{run.server.address}{part.path}?upload={name}&part=1&expires={expires}&signature={signed}", data=b"x", timeout=60)
        assert answer.status_code == status, answer.text


def test_a_presigned_url_gives_the_file_that_it_was_made_for(run):
    run.put("a.bin", b"0123456789")
    run.put("b.bin", b"other")
    found = run.presigned("a.bin").json()
    assert (found["file_size"], found["headers"]) == (10, {}) and found["url"].startswith(run.server.address)
    run.put("a.bin", b"overwritten")
    run.server.kill()
    run.server.start()
    assert requests.get(found["url"], timeout=60).content == b"0123456789", "pieces of one file are pieces of one file"
    piece = requests.get(found["url"], headers={"Range": "bytes=2-4"}, timeout=60)
    assert (piece.status_code, piece.content) == (206, b"234")
    wrong = found["url"].replace("a.bin", "b.bin")
    assert requests.get(wrong, timeout=60).status_code == 403
    digest = hashlib.sha256(b"other").hexdigest()
    assert requests.get(found["url"].replace(hashlib.sha256(b"0123456789").hexdigest(), digest), timeout=60).status_code == 403
    assert run.presigned("none.bin").status_code == 404
    assert run.presigned("%2e%2e/x").status_code == 400


def test_pieces_of_an_artifact(run):
    run.put("a.bin", b"0123456789")
    whole = run.get("a.bin")
    assert (whole.status_code, whole.headers["Accept-Ranges"], whole.headers["Content-Length"]) == (200, "bytes", "10")
    for asked, content, told in (("0-0", b"0", "0-0"), ("3-5", b"345", "3-5"), ("7-", b"789", "7-9"), ("-2", b"89", "8-9"), ("8-100", b"89", "8-9")):
        piece = run.get("a.bin", Range=f"bytes={asked}")
        assert (piece.status_code, piece.content, piece.headers["Content-Range"]) == (206, content, f"bytes {told}/10")
        assert piece.headers["Content-Length"] == str(len(content))
    for asked in ("10-", "100-200", "-0"):
        nothing = run.get("a.bin", Range=f"bytes={asked}")
        assert (nothing.status_code, nothing.headers["Content-Range"], nothing.content) == (416, "bytes */10", b"")
    for asked in ("5-2", "0-1,3-4", "x"):
        assert (run.get("a.bin", Range=f"bytes={asked}").status_code, run.get("a.bin").content) == (200, b"0123456789")
    etag = whole.headers["ETag"]
    assert run.get("a.bin", Range="bytes=1-2", **{"If-Range": etag}).status_code == 206
    assert run.get("a.bin", Range="bytes=1-2", **{"If-Range": '"other"'}).content == b"0123456789"
    head = requests.head(f"{run.server.address}{API}/artifacts/{run.root}/a.bin", timeout=60)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "10", b"")


def test_parts_are_for_clients_that_insist(server):
    info = json.loads(http("GET", server.address + "/api/3.0/mlflow/server-info")[2])
    assert info["multipart_uploads_enabled"] is False and info["multipart_downloads_enabled"] is False


def test_parts_of_another_workspace_go_where_they_belong(server, small, tmp_path):
    made = http("POST", server.address + "/api/3.0/mlflow/workspaces", b'{"name": "parts"}', {"Content-Type": "application/json"})
    assert made[0] == 201, made
    data = noise(2 * MB)
    (tmp_path / "big.bin").write_bytes(data)
    mlflow.set_tracking_uri(server.address + "/env/parts")
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("parts")).info.run_id
    client.log_artifact(run, str(tmp_path / "big.bin"))
    with open(mlflow.artifacts.download_artifacts(f"runs:/{run}/big.bin", dst_path=str(tmp_path / "got")), "rb") as got:
        assert got.read() == data
