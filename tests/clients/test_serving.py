"""`mlflow models` with URIs of the registry at MLFLOW_TRACKING_URI: predict, serve, generate-dockerfile."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier


@pytest.fixture
def registered(client, experiment, unique):
    """A name with two versions that answer differently, of which the alias means the first; and rows for them."""
    x, y = load_iris(return_X_y=True, as_frame=True)
    name = f"served-{unique}"
    models = [DecisionTreeClassifier(random_state=0).fit(x, target) for target in (y, 2 - y)]
    with mlflow.start_run():
        for model in models:
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=name, signature=infer_signature(x, y), input_example=x.head(2),
                serialization_format="cloudpickle", pip_requirements=["scikit-learn"],
            )  # fmt: skip
    client.set_registered_model_alias(name, "champion", "1")
    rows = x.iloc[::30]
    first, second = (model.predict(rows).tolist() for model in models)
    assert first != second
    return name, rows, first, second


@pytest.fixture
def start(tmp_path):
    """Starts `mlflow models …` in a session of its own, which ends with the test."""
    started = []

    def start(*arguments):
        # serve looks for uvicorn on the path.
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        log = tmp_path / f"{arguments[0]}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "models", *map(str, arguments)], env=env, cwd=tmp_path,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process, log

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        process.wait(30)


def done(process, log):
    assert process.wait(120) == 0, log.read_text()[-3000:]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_version_predicts_and_an_alias_is_served(registered, start, tmp_path):
    name, rows, first, second = registered
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Both at once, for the time that the command takes to start.
    server, log = start("serve", "-m", f"models:/{name}@champion", "--env-manager", "local", "-p", port)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    done(*start(
        "predict", "-m", f"models:/{name}/2", "--env-manager", "local", "-t", "csv", "-i", tmp_path / "rows.csv", "-o", tmp_path / "told.json",
    ))  # fmt: skip
    assert json.loads((tmp_path / "told.json").read_text())["predictions"] == second

    body = json.dumps({"dataframe_split": rows.to_dict(orient="split")}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    end = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                predictions = json.load(answer)["predictions"]
            break
        except urllib.error.HTTPError as error:
            pytest.fail(error.read().decode())
        except OSError:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
    assert predictions == first


def test_a_dockerfile_comes_with_the_version_s_files(registered, start, tmp_path):
    name, rows, first, _ = registered
    folder = tmp_path / "image"
    done(*start("generate-dockerfile", "-m", f"models:/{name}/1", "-d", folder))
    text = (folder / "Dockerfile").read_text()
    assert "COPY model_dir" in text
    made = files(folder / "model_dir")
    assert made == files(mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(tmp_path / "downloaded")))
    assert {"MLmodel", "model.pkl", "requirements.txt", "registered_model_meta"} <= set(made)
    # What the image would serve.
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(str(folder / "model_dir")).predict(rows), first)
