"""Logs two models without ONNX: a scikit-learn pipeline that reads text, and a model of our own that refuses some rows."""

import json
import logging
import os
from pathlib import Path
from tempfile import mkdtemp

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

logging.getLogger("mlflow").setLevel(logging.ERROR)

# As the tests' own packages are, which are in uv's cache after the first time.
PACKAGES = ["mlflow-skinny==3.17.2", "pandas==3.1.1", "numpy==2.4.6", "scikit-learn==1.9.1"]


class Picky(mlflow.pyfunc.PythonModel):
    """Doubles `x`, and does what `what` says; `what` may be missing."""

    def predict(self, context, model_input, params=None):
        what = set(model_input["what"].dropna())
        print("asked for", sorted(what))
        if "fail" in what:
            raise ValueError("this row can't be answered; see /secret/place/of/data.csv")
        if "refuse" in what:
            raise mlflow.MlflowException.invalid_parameter_value("`what` may not be refuse")
        if "much" in what:
            np.ones(1 << 30)
        if "peek" in what:
            return np.array([float(can_read(path)) for path in model_input["path"]])
        years = model_input["day"].dt.year.to_numpy()
        return pd.DataFrame({"twice": model_input["x"] * 2.0, "year": years, "what": model_input["what"].fillna("none")})


def can_read(path):
    try:
        if os.path.isdir(path):
            return len(os.listdir(path)) >= 0
        with open(path, "rb") as file:
            return len(file.read(1)) == 1
    except OSError:
        return False


def delays():
    rng = np.random.default_rng(0)
    count = 400
    frame = pd.DataFrame(
        {
            "carrier": rng.choice(["AA", "BB", "CC"], count),
            "hour": rng.integers(0, 24, count),
            "distance": rng.random(count) * 1000,
        }
    )
    late = (frame.distance > 500) | (frame.carrier == "AA")
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), (StandardScaler(), ["hour", "distance"])
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, late.astype(int)), frame


mlflow.set_experiment("flavours")
model, frame = delays()
golden = frame.head(40)
folder = Path(mkdtemp())
rows = {
    "columns": list(golden.columns),
    "rows": json.loads(golden.to_json(orient="values")),
    "outputs": {"late": model.predict_proba(golden)[:, 1].tolist()},
}
(folder / "golden.json").write_text(json.dumps(rows))
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name="delays",
        signature=infer_signature(frame, model.predict_proba(frame)),
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
        extra_files=[str(folder / "golden.json")],
        pip_requirements=PACKAGES,
    )
day = pd.to_datetime(["2026-01-02"])
example = pd.DataFrame({"x": [1.0, 2.0], "what": ["go", None], "path": ["/", "/"], "day": [day[0]] * 2})
golden = {
    "columns": list(example.columns),
    "rows": [[1.5, "peek", "/usr", "2026-01-02T00:00:00"], [2.5, "peek", "/nowhere", "2026-01-02T00:00:00"]],
    "outputs": {"answer": [1.0, 0.0]},
}
(folder / "golden.json").write_text(json.dumps(golden))
answer = pd.DataFrame({"twice": [2.0], "year": [2026], "what": ["go"]})
others = [
    ("picky", PACKAGES),
    ("astray", [*PACKAGES, "gone @ file:///nowhere/gone-1.0-py3-none-any.whl"]),
    # A version that its registry never had.
    ("broken", [*PACKAGES, "pytz==0.0.1"]),
]
for name, packages in others:
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model=Picky(),
            registered_model_name=name,
            signature=infer_signature(example, answer),
            artifacts={"golden": str(folder / "golden.json")},
            pip_requirements=packages,
        )
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model, name="model", registered_model_name="unsigned", serialization_format="cloudpickle", pip_requirements=PACKAGES
    )
