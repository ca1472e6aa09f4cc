"""Logs tiny ONNX models, all with the same answers: `toy` in two versions, `slow`, which takes long for every row, `sometimes`,
which does for those whose first number is above 0.7, and `fragile`, which fails for these.

Each takes [N, 4] numbers `x` and gives `y`, [N, 1].
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

node = helper.make_node


def const(name, value):
    return numpy_helper.from_array(np.array(value), name)


def long_work(flag):
    """A loop that multiplies matrices ten times where `flag` is 1, and not at all where it is 0: nothing can be computed beforehand."""
    side = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("Add", ["ones", "before"], ["matrix"]),
            node("MatMul", ["matrix", "matrix"], ["product"]),
            node("ReduceMean", ["product", "both"], ["mean"], keepdims=0),
            node("Mul", ["mean", "none"], ["after"]),
            node("Identity", ["go"], ["goes"]),
        ],
        "body",
        [side("i", TensorProto.INT64, []), side("go", TensorProto.BOOL, []), side("before", TensorProto.FLOAT, [])],
        [side("goes", TensorProto.BOOL, []), side("after", TensorProto.FLOAT, [])],
        [const("ones", np.ones((400, 400), np.float32)), const("both", np.array([0, 1], np.int64)), const("none", np.float32(0))],
    )
    return [
        node("Mul", [flag, "ten"], ["times"]),
        node("Loop", ["times", "", "zero"], ["end"], body=body),
        node("Add", ["sum", "end"], ["y"]),
    ]


def graph(kind, alias):
    constants = [
        const("w", np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)),
        const("first", np.array([0], np.int64)),
        const("limit", np.float32(0.7)),
        const("zero", np.float32(0)),
        const("axes", np.array([0, 1], np.int64)),
    ]
    nodes = [node("MatMul", ["x", "w"], ["sum"])]
    above = [
        node("Gather", ["x", "first"], ["a"], axis=1),
        node("ReduceMax", ["a", "axes"], ["largest"], keepdims=0),
        node("Greater", ["largest", "limit"], ["above"]),
    ]
    if kind in ("slow", "sometimes"):
        constants.append(const("ten", np.array(10, np.int64)))
    if kind == "slow":
        nodes += [*above, node("Not", ["above"], ["below"]), node("Or", ["above", "below"], ["always"])]
        nodes += [node("Cast", ["always"], ["flag"], to=TensorProto.INT64), *long_work("flag")]
    elif kind == "sometimes":
        nodes += [*above, node("Cast", ["above"], ["flag"], to=TensorProto.INT64), *long_work("flag")]
    elif kind == "fragile":
        constants += [const("table", np.array([0.0], np.float32)), const("five", np.array(5, np.int64))]
        nodes += [*above, node("Cast", ["above"], ["flag"], to=TensorProto.INT64), node("Mul", ["flag", "five"], ["index"])]
        nodes += [node("Gather", ["table", "index"], ["nothing"]), node("Add", ["sum", "nothing"], ["y"])]
    else:
        nodes.append(node("Identity", ["sum"], ["y"]))
    side = helper.make_tensor_value_info
    inputs, outputs = [side("x", TensorProto.FLOAT, [None, 4])], [side("y", TensorProto.FLOAT, [None, 1])]
    return helper.make_graph(nodes, kind, inputs, outputs, constants, doc_string=alias)


mlflow.set_experiment("inline")
for kind, alias in (("toy", "good"), ("toy", "next"), ("slow", "good"), ("sometimes", "good"), ("fragile", "good")):
    model = helper.make_model(graph(kind, alias), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    x, y = (Schema([TensorSpec(np.dtype("float32"), (-1, n), name)]) for n, name in ((4, "x"), (1, "y")))
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            model,
            name="model",
            registered_model_name=kind,
            signature=ModelSignature(x, y),
            save_as_external_data=False,
            pip_requirements=["onnx", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    mlflow.MlflowClient().set_registered_model_alias(kind, alias, str(logged.registered_model_version))
