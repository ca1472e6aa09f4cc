"""MLflow's routes over a fresh folder, for the stock client.

`LOCKGATE_MLFLOW_URI` names a server that runs already; otherwise the example `serve` of lockgate-mlflow is started
(`cargo build --package lockgate-mlflow --example serve`).
"""

import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
PROGRAM = os.environ.get("LOCKGATE_MLFLOW_SERVE") or str(TARGET / "debug/examples/serve")

os.environ.update(
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    MLFLOW_ENABLE_ASYNC_LOGGING="false",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server's address."""
    running = os.environ.get("LOCKGATE_MLFLOW_URI")
    if running:
        yield running
        return
    folder = tmp_path_factory.mktemp("mlflow")
    process = subprocess.Popen([PROGRAM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture(scope="session")
def client(server):
    """The stock client, pointed at the server."""
    import mlflow

    mlflow.set_tracking_uri(server)
    return mlflow.MlflowClient()


@pytest.fixture
def experiment(client, request):
    """A fresh experiment, which is the current one."""
    import mlflow

    return mlflow.set_experiment(f"{request.module.__name__}.{request.node.name}")


def http(method, url, body=None, headers=None):
    """One request as it is; returns status, headers and body, also for errors."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
