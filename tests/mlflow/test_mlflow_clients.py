"""Stock clients of three releases do their day's work: in an environment of each, as users run them."""

import os
import subprocess
from pathlib import Path

import engines
import pytest
from conftest import ROOT

STOCK = os.environ.get("MLFLOW_STOCK")
CLIENTS = {
    "2.22": (os.environ.get("MLFLOW_2"), None, ["test_usual_flow.py"]),
    "3.17": (STOCK and str(Path(STOCK).parent / "python"), None, ["test_usual_flow.py", "test_autolog.py", "test_serving.py"]),
    "3.18": (STOCK and str(Path(STOCK).parent / "python"), os.environ.get("MLFLOW_318"), ["test_usual_flow.py"]),
}


@pytest.mark.parametrize("release", CLIENTS)
def test_a_client_does_its_day_s_work(fresh, release, tmp_path):
    python, over, files = CLIENTS[release]
    if engines.ENGINE == "postgres" and release != "3.17":
        pytest.skip("the engine doesn't matter to a client: one of them shows it")
    if engines.ENGINE == "postgres":
        # Nor to what a library logs by itself, or to the programs that only download a version.
        files = ["test_usual_flow.py"]
    if not python or (release == "3.18" and not over):
        pytest.skip(f"no environment has MLflow {release}: make e2e makes them")
    env = {**os.environ, "MLFLOW_TRACKING_URI": fresh, "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "agg"}
    # Asynchronous logging, which the other tests switch off, is a part of the day.
    env = {key: value for key, value in env.items() if key not in ("MLFLOW_ENABLE_ASYNC_LOGGING", "PYTHONPATH")}
    if over:
        env["PYTHONPATH"] = over
    told = subprocess.run([python, "-c", "import mlflow; print(mlflow.__version__)"], env=env, capture_output=True, text=True)
    assert told.stdout.startswith(release), told
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "tests", *(ROOT / "tests/clients" / file for file in files)]
    # Warnings are the libraries' own affair.
    done = subprocess.run([*command, "-W", "ignore"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
