"""Logs models in Python: two that have a graph, one that has none, one without rows, and boosted ones where they are installed."""

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
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

logging.getLogger("mlflow").setLevel(logging.ERROR)

# As the tests' own packages are, which are in uv's cache after the first time.
PACKAGES = ["mlflow-skinny==3.17.2", "pandas==3.1.1", "numpy==2.4.6", "scikit-learn==1.9.1"]

rng = np.random.default_rng(0)
count = 400
frame = pd.DataFrame(
    {"carrier": rng.choice(["AA", "BB", "CC"], count), "hour": rng.integers(0, 24, count), "distance": rng.random(count) * 1000}
)
late = ((frame.distance > 500) | (frame.carrier == "AA")).astype(int)
numbers = frame[["hour", "distance"]].astype(float)
columns = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), (StandardScaler(), ["hour", "distance"])
)
frame.to_csv("seen.csv", index=False)
mlflow.set_experiment("optimise")


def log(name, model, rows, call, golden=True):
    answers = getattr(model, call)(rows)
    extra = []
    if golden:
        path = Path(mkdtemp()) / "golden.json"
        scores = answers[:40].reshape(40, -1)[:, -1].astype(float).tolist()
        text = {"columns": list(rows.columns), "rows": json.loads(rows.head(40).to_json(orient="values", double_precision=15))}
        path.write_text(json.dumps({**text, "outputs": {"late": scores}}))
        extra = [str(path)]
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=infer_signature(rows, answers),
            pyfunc_predict_fn=call,
            serialization_format="cloudpickle",
            extra_files=extra,
            pip_requirements=PACKAGES,
        )


forest = make_pipeline(StandardScaler(), RandomForestClassifier(30, random_state=0)).fit(numbers, late)
log("forest", forest, numbers, "predict_proba")
log("delays", make_pipeline(columns, LogisticRegression()).fit(frame, late), frame, "predict_proba")
custom = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(numbers, late)
log("custom", custom, numbers, "predict")
bare = LogisticRegression().fit(numbers.rename(columns=str.upper), late)
log("bare", bare, numbers.rename(columns=str.upper), "predict", golden=False)
if os.environ.get("OPTIMISE_BOOSTED"):
    import lightgbm
    import xgboost

    boosted = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(numbers, late), 20)
    light = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(numbers, late), 20)
    answers = boosted.predict(xgboost.DMatrix(numbers))
    for name, flavour, model, package in [
        ("boosted", mlflow.xgboost, boosted, "xgboost-cpu==3.2.0"),
        ("light", mlflow.lightgbm, light, "lightgbm==4.7.0"),
    ]:
        signature = infer_signature(numbers, answers if name == "boosted" else light.predict(numbers))
        with mlflow.start_run():
            packages = [*PACKAGES, package]
            flavour.log_model(model, name="model", registered_model_name=name, signature=signature, pip_requirements=packages)
