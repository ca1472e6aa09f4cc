"""Registers what servers of the team's own serve: a scikit-learn model for MLServer, and "weights" for a server of texts.

The files are logged as a folder; an MLmodel file beside them says what the model takes, for gates.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import joblib
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import Model, infer_signature
from sklearn.linear_model import LinearRegression

logging.getLogger("mlflow").setLevel(logging.ERROR)


def register(name, folder, alias):
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    if not [m for m in client.search_registered_models() if m.name == name]:
        client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias(name, alias, version.version)


def rows(name, slope):
    folder = Path(mkdtemp())
    frame = pd.DataFrame({"a": np.arange(8.0), "b": np.arange(8.0)[::-1] ** 2})
    model = LinearRegression().fit(frame.to_numpy(), slope * frame["a"] + frame["b"])
    joblib.dump(model, folder / "model.joblib")
    settings = {"name": "churn", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    predicted = model.predict(frame.to_numpy())
    golden = {"columns": ["a", "b"], "rows": frame.to_numpy().tolist(), "outputs": {"y": predicted.tolist()}}
    (folder / "golden.json").write_text(json.dumps(golden))
    Model(signature=infer_signature(frame, predicted)).save(str(folder / "MLmodel"))
    register(name, folder, f"slope{slope}")


def words(fault):
    folder = Path(mkdtemp())
    shutil.copy("serve.py", folder)
    (folder / "words.json").write_text(json.dumps({"word": "w" if fault == "none" else fault, "fault": fault}))
    (folder / "requirements.txt").write_text("sniffio==1.3.1\n")
    register("llm", folder, fault)


for slope in (2, 3):
    rows("churn", slope)
    rows("away", slope)
for fault in ("none", "better", "break", "error"):
    words(fault)
