"""Trains a tumour classifier on scikit-learn's breast-cancer data, logs it to MLflow with a golden set, registers it."""

import json
import logging
import os
import tempfile
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# It warns that it can't tell pip's version: uv makes environments without pip.
logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

# Rows that are exactly float32, as the model will get them; the label is 1 for a malignant tumour.
data = load_breast_cancer(as_frame=True)
rows = data.data.rename(columns=lambda name: name.replace(" ", "_")).astype(np.float32)
malignant = (1 - data.target).rename("malignant")
train_rows, test_rows, train_labels, test_labels = train_test_split(rows, malignant, test_size=0.4, random_state=0)
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(train_rows.to_numpy(), train_labels)
offline = model.predict_proba(test_rows.to_numpy())[:, 1]

# The environments' data: what production's gate measures on, and what traffic.py sends.
Path("data").mkdir(exist_ok=True)
test_rows.assign(malignant=test_labels, case_id=[f"case-{at}" for at in test_rows.index]).to_parquet(
    "data/holdout.parquet", index=False
)

# One float32 input `features`, one output `probability` [N, 1]: no ZipMap, and the second of the two classes' columns.
whole = to_onnx(model, train_rows.to_numpy()[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
whole.graph.input[0].name = "features"
whole.graph.node[0].input[0] = "features"
whole.graph.initializer.append(numpy_helper.from_array(np.array([1]), "second"))
whole.graph.node.append(helper.make_node("Gather", ["probabilities", "second"], ["probability"], axis=1))
whole.graph.output.append(helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1]))
onnx_model = Extractor(whole).extract_model(["features"], ["probability"])

mlflow.set_experiment("breast-cancer")
with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
    mlflow.log_params({"C": 0.1, "test_size": 0.4})
    mlflow.log_metric("holdout_roc_auc", roc_auc_score(test_labels, offline))
    # The golden set: rows with scikit-learn's answers, which the exported model must give too.
    golden = {"columns": list(rows.columns), "rows": test_rows.to_numpy().tolist(), "outputs": {"probability": offline.tolist()}}
    Path(folder, "golden.json").write_text(json.dumps(golden))
    logged = mlflow.onnx.log_model(onnx_model, name="model", registered_model_name="tumour", input_example=test_rows[:3],
        signature=ModelSignature(Schema([ColSpec("float", name) for name in rows]), Schema([ColSpec("float", "probability")])),
        extra_files=[f"{folder}/golden.json"], save_as_external_data=False,
        pip_requirements=["onnx", "onnxruntime"], onnx_execution_providers=["CPUExecutionProvider"])  # fmt: skip
mlflow.MlflowClient().set_registered_model_alias("tumour", "candidate", str(logged.registered_model_version))
print(f"registered tumour version {logged.registered_model_version}, roc_auc {roc_auc_score(test_labels, offline):.4f}")
