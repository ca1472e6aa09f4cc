"""Logs two tiny ONNX models for the clients of the Open Inference Protocol.

`toy` takes [N, 4] numbers `x` and gives `y`, [N, 1]; `echo` gives back what it gets: 16-bit floats, texts, and large rows.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from onnx import TensorProto, checker, helper, numpy_helper

logging.getLogger("mlflow").setLevel(logging.ERROR)


def log(name, nodes, inputs, outputs, constants=()):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), [None, *shape]) for n, t, shape in inputs],
        [info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), [None, *shape]) for n, t, shape in outputs],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    spec = [Schema([TensorSpec(np.dtype("str" if t == "O" else t), (-1, *s), n) for n, t, s in side]) for side in (inputs, outputs)]
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=ModelSignature(*spec),
            save_as_external_data=False,
            pip_requirements=["onnx", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    mlflow.MlflowClient().set_registered_model_alias(name, "good", str(logged.registered_model_version))


mlflow.set_experiment("kinds")
weights = numpy_helper.from_array(np.array([[1.0], [2.0], [3.0], [4.0]], np.float32), "w")
log("toy", [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", "float32", (4,))], [("y", "float32", (1,))], [weights])
kinds = [("half", "float16", (2,)), ("text", "O", (1,)), ("wide", "float32", (1024,))]
log(
    "echo",
    [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in kinds],
    kinds,
    [(f"{name}_out", kind, shape) for name, kind, shape in kinds],
)
