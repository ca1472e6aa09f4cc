"""Logs tiny ONNX models, each with one fault:  FAULT=good,nan python train.py

Each takes [N, 4] numbers `x` and gives `y`, [N, 1]. A row whose first number is above 0.7 (30 % of the tests' traffic) makes
`nan` answer NaN and `error` fail; `swapped` takes its columns for each other.
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

WEIGHTS = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
SLOW = 768  # a product of matrices of this size takes some ten milliseconds


def const(name, value):
    return numpy_helper.from_array(np.array(value), name)


def graph(fault):
    node = helper.make_node
    constants = [const("w", WEIGHTS), const("first", np.array([0], np.int64)), const("limit", np.float32(0.7))]
    nodes = [node("MatMul", ["x", "w"], ["sum"]), node("Gather", ["x", "first"], ["a"], axis=1)]
    if fault == "swapped":
        # Two columns in each other's place: well-formed answers, and wrong ones.
        constants[0] = const("w", WEIGHTS[[1, 0, 3, 2]])
    if fault.startswith("good") or fault == "swapped":
        nodes.append(node("Identity", ["sum"], ["y"]))
    elif fault == "nan":
        # The root of a negative number, which even times zero is none.
        constants.append(const("zero", np.float32(0)))
        nodes += [node("Sub", ["limit", "a"], ["d"]), node("Sqrt", ["d"], ["r"]), node("Mul", ["r", "zero"], ["z"])]
        nodes += [node("Add", ["sum", "z"], ["y"])]
    elif fault in ("error", "broken"):
        # A table with one row; `error` looks beyond its end for some rows, `broken` for all.
        constants += [const("table", np.array([0.0], np.float32)), const("five", np.float32(5))]
        nodes += [node("Greater", ["a", "limit"], ["above"]), node("Cast", ["above"], ["f"], to=TensorProto.FLOAT)]
        nodes += [node("Mul", ["f", "five"], ["g"])] if fault == "error" else [node("Add", ["f", "five"], ["g"])]
        nodes += [
            node("Cast", ["g"], ["index"], to=TensorProto.INT64),
            node("Gather", ["table", "index"], ["nothing"]),
            node("Add", ["sum", "nothing"], ["y"]),
        ]
    elif fault == "constant":
        constants.append(const("zero", np.float32(0)))
        nodes += [node("Mul", ["sum", "zero"], ["y"])]
    elif fault == "slow":
        # The weights come from the input, so that nothing can be computed beforehand.
        constants += [
            const("zero", np.float32(0)),
            const("shape", np.array([SLOW, SLOW], np.int64)),
            const("axes", np.array([0, 1], np.int64)),
        ]
        nodes += [
            node("ReduceMean", ["a", "axes"], ["mean"], keepdims=1),
            node("Expand", ["mean", "shape"], ["big"]),
            node("MatMul", ["big", "big"], ["product"]),
            node("ReduceMean", ["product", "axes"], ["m"], keepdims=1),
            node("Mul", ["m", "zero"], ["nothing"]),
            node("Add", ["sum", "nothing"], ["y"]),
        ]
    else:
        raise SystemExit(f"there is no fault `{fault}`")
    return helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        constants,
        doc_string=fault,
    )


mlflow.set_experiment("faults")
for fault in os.environ.get("FAULT", "good").split(","):
    model = helper.make_model(graph(fault), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, 4), "x")]), Schema([TensorSpec(np.dtype("float32"), (-1, 1), "y")])
    )
    with mlflow.start_run():
        mlflow.log_param("fault", fault)
        logged = mlflow.onnx.log_model(
            model,
            name="model",
            registered_model_name="toy",
            signature=signature,
            save_as_external_data=False,
            pip_requirements=["onnx", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    mlflow.MlflowClient().set_registered_model_alias("toy", fault, str(logged.registered_model_version))
    print(f"registered toy version {logged.registered_model_version}: {fault}")
