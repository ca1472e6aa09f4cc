"""MLflow's routes of a real server over a fresh folder, for the stock client."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import engines
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LOCKGATE_BIN") or str(ROOT / "target/debug/lockgate")

os.environ.update(
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    MLFLOW_ENABLE_ASYNC_LOGGING="false",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server's address."""
    yield from serve(tmp_path_factory)


@pytest.fixture
def fresh(tmp_path_factory):
    """The address of a server of its own, over an empty folder."""
    yield from serve(tmp_path_factory)


def serve(tmp_path_factory, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home = tmp_path_factory.mktemp("server")
    command = [PROGRAM, "server", "--trust-loopback", "--listen", address, "--home", str(home), *engines.database(), *options]
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        for _ in range(600):
            if process.poll() is None and http("GET", f"http://{address}/health")[0] == 200:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"the server is not ready: {(home / 'log').read_text()}")
        yield f"http://{address}"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def pytest_sessionfinish():
    engines.stop()


def pytest_report_header():
    return f"lockgate: {PROGRAM} on {engines.ENGINE}"


@pytest.fixture(scope="session")
def client(server):
    """The stock client, pointed at the server."""
    import mlflow

    mlflow.set_tracking_uri(server)
    return mlflow.MlflowClient()


@pytest.fixture(autouse=True)
def same_place(request):
    """Where the client points after a test is where it pointed before: tests with servers of their own disturb no other."""
    import mlflow

    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


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
    except urllib.error.URLError:
        return 0, {}, b""
