"""Artifacts in a bucket of a service that speaks S3, through the stock client."""

import hashlib
import os
import subprocess
from pathlib import Path

import engines
import mlflow
import pytest
import requests
from engines import PROGRAM, Server

SERVICE = Path(PROGRAM).with_name("s3-for-tests")
PLACE = "s3://models/lockgate"


class Service:
    """The service, over a folder with one bucket."""

    def __init__(self, root):
        self.root = root
        (root / "models").mkdir(parents=True)
        self.process = subprocess.Popen([SERVICE, root, "user", "secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0

    def objects(self):
        """The objects' bytes by their keys."""
        folder = self.root / "models/lockgate/blobs"
        return {"".join(path.relative_to(folder).parts): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def service(tmp_path, monkeypatch):
    service = Service(tmp_path / "s3")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", service.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield service
    if service.process.poll() is None:
        service.stop()


@pytest.fixture
def over_s3(service, tmp_path):
    server = Server(tmp_path / "home", "--blobs", PLACE, *engines.database()).start()
    mlflow.set_tracking_uri(server.address)
    yield server
    server.stop()


def test_artifacts_rest_in_the_bucket(service, over_s3, tmp_path):
    client = mlflow.MlflowClient()
    large = os.urandom(20 << 20)
    (tmp_path / "large.bin").write_bytes(large)
    with mlflow.start_run(experiment_id="0") as run:
        mlflow.log_text("hello", "notes/a.txt")
        mlflow.log_text("hello", "notes/b.txt")
        mlflow.log_artifact(str(tmp_path / "large.bin"))
    objects = service.objects()
    # The same bytes once, and each under its digest.
    assert sorted(objects.values(), key=len) == [b"hello", large]
    assert all(hashlib.sha256(bytes_).hexdigest() == name for name, bytes_ in objects.items())
    assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/b.txt") == "hello"
    (tmp_path / "got").mkdir()
    got = client.download_artifacts(run.info.run_id, "large.bin", str(tmp_path / "got"))
    assert Path(got).read_bytes() == large
    path = f"{over_s3.address}/api/2.0/mlflow-artifacts/artifacts/{run.info.experiment_id}/{run.info.run_id}/artifacts/large.bin"
    part = requests.get(path, headers={"Range": f"bytes={(20 << 20) - 5}-"})
    assert (part.status_code, part.content) == (206, large[-5:])
    part = requests.get(path, headers={"Range": "bytes=9000000-9000009"})
    assert (part.status_code, part.content) == (206, large[9_000_000:9_000_010])
    # Only what is on its way is in the server's own folder.
    over_s3.kill()
    assert not [path for path in (tmp_path / "home/blobs").rglob("*") if path.is_file()]
    over_s3.start()
    assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a.txt") == "hello"


def test_a_model_is_logged_registered_and_loaded(over_s3):
    from sklearn.linear_model import LinearRegression

    with mlflow.start_run(experiment_id="0"):
        mlflow.sklearn.log_model(LinearRegression().fit([[0], [1]], [0, 1]), name="model", serialization_format="cloudpickle", registered_model_name="line")
    assert mlflow.pyfunc.load_model("models:/line/1").predict([[3]]) == pytest.approx([3])


def test_a_service_that_is_down_loses_nothing_and_is_told(service, over_s3):
    with mlflow.start_run(experiment_id="0") as run:
        mlflow.log_text("kept", "before.txt")
    service.stop()
    url = f"{over_s3.address}/api/2.0/mlflow-artifacts/artifacts/{run.info.experiment_id}/{run.info.run_id}/artifacts"
    refused = requests.put(f"{url}/during.txt", data=b"lost")
    assert refused.status_code >= 500, refused.text
    assert PLACE in refused.text and "AWS_ENDPOINT_URL_S3" in refused.text
    assert service.address.removeprefix("http://") not in refused.text
    assert requests.get(f"{url}/before.txt").status_code >= 500
    # Nothing that isn't there is listed.
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["before.txt"]


def lockgate(*args):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_bucket_that_can_not_be_used_is_told_before_anything_is_served(service, tmp_path, monkeypatch):
    start = ("server", "--trust-loopback", "--listen", "127.0.0.1:0", "--home", str(tmp_path / "home"), "--blobs")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, told = lockgate(*start, PLACE)
    assert code != 0 and f"can't read {PLACE}/ (SignatureDoesNotMatch" in told and "AWS_ACCESS_KEY_ID" in told
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", service.address.removeprefix("http://"))
    code, told = lockgate(*start, PLACE)
    assert code != 0 and "must begin with https:// or http://" in told
    code, told = lockgate(*start, "gs://models/x")
    assert code != 0 and "give a folder or s3://BUCKET/PREFIX" in told
    code, told = lockgate(*start, "s3://Models")
    assert code != 0 and "lower-case letters" in told


@pytest.mark.skipif(engines.ENGINE != "sqlite", reason="says how it is done without an engine's own tools")
def test_the_database_is_checked_against_the_bucket(service, over_s3, tmp_path):
    with mlflow.start_run(experiment_id="0") as run:
        mlflow.log_text("hello", "a.txt")
    copy = tmp_path / "copy"
    place = ("--home", str(over_s3.home), "--blobs", PLACE)
    code, told = lockgate("db", "check", "--deep", *place)
    assert code == 0 and "1 artifacts" in told, told
    ((name, _),) = service.objects().items()
    damaged = service.root / "models/lockgate/blobs" / name[:2] / name[2:]
    damaged.write_bytes(b"hal")
    # What is cut short is never given as the whole.
    assert requests.get(f"{over_s3.address}/get-artifact", params={"run_id": run.info.run_id, "path": "a.txt"}).status_code == 500
    damaged.write_bytes(b"hallo")
    code, told = lockgate("db", "check", "--deep", *place)
    assert code == 1 and name in told, told
    code, told = lockgate("db", "backup", str(copy), "--with-blobs", *place)
    assert code != 0 and "aws s3 sync" in told and not copy.exists()
    code, told = lockgate("db", "backup", str(copy), *place)
    assert code == 0, told
