"""One generated sequence of calls against stock MLflow and against Lockgate: every answer is the same, but for what `KNOWN` lists."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, http
from differential import play
from engines import ENGINE

CALLS = 2500


@pytest.fixture
def stock(tmp_path_factory):
    """A stock `mlflow server` over SQLite, with one worker process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("stock")
    program = Path(os.environ.get("MLFLOW_STOCK") or ROOT / ".venv-stock/bin/mlflow")
    assert program.is_file(), f"no stock MLflow at {program}: `make e2e` installs it, MLFLOW_STOCK names another"
    command = [program, "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", home / "artifacts"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    with open(home / "log", "wb") as log:
        # A group of its own: the command starts others, which end with it.
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while http("GET", f"http://127.0.0.1:{port}/health")[0] != 200:
            assert process.poll() is None and time.monotonic() < end, (home / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.skipif(ENGINE != "sqlite", reason="compared on SQLite, as stock is")
@pytest.mark.parametrize("seed", [1])
def test_every_answer_is_stocks(fresh, stock, seed):
    found = []
    played = play(fresh, stock, seed, CALLS, lambda *difference: found.append(difference))
    # Most calls do something: a sequence of refusals would compare nothing.
    assert sum(count for (_, status), count in played.items() if status == 200) > CALLS * 0.4, played
    assert len({path for path, _ in played}) > 30
    shown = "\n".join(f"#{number} {call}\n  ours  {ours}\n  stock {other}" for number, call, ours, other in found[:10])
    assert not found, f"{len(found)} of {CALLS} answers differ:\n{shown}"
