"""Loads the registered model as anybody would, by name and version, and logs how it does on the second half of March."""

import json
import os
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import pandas as pd

from pipeline.features import FEATURES
from pipeline.metrics import quality
from pipeline.prepare import read

MODELS = Path("models")


def main() -> None:
    """Downloads, predicts, logs."""
    registered = json.loads((MODELS / "trained.json").read_text())
    model = mlflow.pyfunc.load_model(f"models:/{registered['model']}/{registered['version']}")
    rows, delayed = read("validation")
    answers = model.predict(pd.DataFrame(rows, columns=FEATURES))["probability"].to_numpy()
    found = {f"validation_{name}": value for name, value in quality(delayed, answers).items()}
    with mlflow.start_run(run_id=registered["run_id"]):
        mlflow.log_metrics(found)
    (MODELS / "metrics.json").write_text(json.dumps(found, indent=2) + "\n")
    print(", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
