"""From scikit-learn to ONNX: one input `features` [N, F] of float32, one output `probability` [N, 1]."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from pipeline.features import FEATURES
from pipeline.model import DelayModel, RateTable, RuleModel

OPSET = {"": 18, "ai.onnx.ml": 3}


class _Graph:
    """The nodes and constants that come before the estimator."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def pick(self, features: list[str], output: str) -> str:
        """Columns of the input, by name."""
        at = np.array([self.order.index(name) for name in features], np.int64)
        return self.node("Gather", ["features", self.constant(f"{output}_at", at)], output, axis=1)

    def rate(self, table: RateTable) -> str:
        """A category's rate by its code. Gather refuses an index beyond its table."""
        name = table.feature
        code = self.node("Cast", [self.pick([name], f"{name}_number")], f"{name}_code", to=TensorProto.INT64)
        if table.unknown:
            last = self.constant(f"{name}_last", np.array([table.size], np.int64))
            code = self.node("Min", [code, last], f"{name}_known")
        return self.node("Gather", [self.constant(f"{name}_rates", table.rates), code], f"{name}_rate", axis=0)


def to_graph(model: DelayModel | RuleModel, order: list[str] | None = None) -> onnx.ModelProto:
    """The model as ONNX; `order` is the order of the request's columns, `FEATURES` unless told."""
    front = _Graph(order or FEATURES)
    if isinstance(model, RuleModel):
        estimator, width = model.curve, 1
        front.node("Identity", [front.pick(["hour"], "hour_number")], "columns")
    else:
        estimator, width = model.trees, len(model.plain) + len(model.tables)
        front.node("Concat", [front.pick(model.plain, "plain"), *[front.rate(table) for table in model.tables]], "columns", axis=1)
    inner = to_onnx(
        estimator,
        initial_types=[("columns", FloatTensorType([None, width]))],
        options={id(estimator): {"zipmap": False}},
        target_opset=OPSET,
    )
    delayed = numpy_helper.from_array(np.array([1], np.int64), "delayed_at")
    graph = helper.make_graph(
        [*front.nodes, *inner.graph.node, helper.make_node("Gather", ["probabilities", "delayed_at"], ["probability"], axis=1)],
        "delay",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(FEATURES)])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        [*front.constants, *inner.graph.initializer, delayed],
    )
    whole = helper.make_model(graph, opset_imports=inner.opset_import, ir_version=inner.ir_version, producer_name="flight-delays")
    # Only what leads to the probability: the estimator's predicted class is cut off.
    trimmed = Extractor(whole).extract_model(["features"], ["probability"])
    onnx.checker.check_model(trimmed)
    return trimmed
