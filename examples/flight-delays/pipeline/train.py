"""Trains one variant, logs it with the stock MLflow client and registers it as a version of `delay`.

    python -m pipeline.train [variant]

The variant is the argument, else $VARIANT, else params.toml's. MLFLOW_TRACKING_URI says where the server is.
"""

import json
import logging
import os
import sys
import tempfile
import time
import tomllib
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from pipeline.features import FEATURES
from pipeline.metrics import quality
from pipeline.prepare import read, shortest
from pipeline.variants import VARIANTS, Trained

# It warns that it can't tell pip's version: uv makes environments without pip.
logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

MODEL = "delay"
MODELS = Path("models")
GOLDEN_ROWS = 200
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("float", name) for name in FEATURES]),
    outputs=Schema([ColSpec("float", "probability")]),
)


def golden(trained: Trained, rows: np.ndarray) -> dict:
    """Rows with the offline model's answers, not the exported one's: a parity gate then sees what the export broke."""
    answers = trained.offline.probability(rows)
    return {
        "columns": FEATURES,
        "rows": [shortest(row) for row in rows],
        "outputs": {"probability": [float(answer) for answer in answers]},
    }


def log(variant: str, trained: Trained, params: dict, validation: tuple[np.ndarray, np.ndarray]) -> dict:
    """Logs the run and the model, registers the version, sets its alias."""
    rows, delayed = validation
    sample = rows[np.random.default_rng(0).choice(len(rows), GOLDEN_ROWS, replace=False)]
    mlflow.set_experiment("flight-delays")
    with mlflow.start_run(run_name=variant) as run, tempfile.TemporaryDirectory() as folder:
        mlflow.set_tag("variant", variant)
        mlflow.log_params({"variant": variant, **({} if variant == "rules" else params["trees"])})
        offline = quality(delayed, trained.offline.probability(rows))
        mlflow.log_metrics({f"offline_{name}": value for name, value in offline.items()})
        path = Path(folder) / "golden.json"
        path.write_text(json.dumps(golden(trained, sample)))
        logged = mlflow.onnx.log_model(
            trained.shipped,
            name="model",
            signature=SIGNATURE,
            input_example=pd.DataFrame(sample[:3], columns=FEATURES),
            extra_files=[str(path)],
            registered_model_name=MODEL,
            # One file, whatever the tables' size; and no guessing of requirements, which takes a Python process of its own.
            save_as_external_data=False,
            pip_requirements=["onnx", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, variant, version)
    return {"model": MODEL, "version": version, "alias": variant, "run_id": run.info.run_id}


def main() -> None:
    """Trains, logs, notes for the next stage what was registered."""
    params = tomllib.loads(Path("params.toml").read_text())
    variant = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("VARIANT") or params["variant"]
    if variant not in VARIANTS:
        raise SystemExit(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
    rows, delayed = read("train")
    started = time.monotonic()
    trained = VARIANTS[variant](rows, delayed, params)
    print(f"trained {variant} on {len(rows)} flights in {time.monotonic() - started:.1f} s")
    registered = log(variant, trained, params, read("validation"))
    MODELS.mkdir(exist_ok=True)
    note = MODELS / ("rules.json" if variant == "rules" else "trained.json")
    note.write_text(json.dumps(registered) + "\n")
    print(f"registered {MODEL} version {registered['version']} as @{variant}")


if __name__ == "__main__":
    main()
