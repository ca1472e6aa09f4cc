"""The whole graph: the columns of a signature in, the model's answer out."""

import numpy as np
from original import Refused
from source import OPSETS

# The smallest number that becomes infinite as a 32-bit float.
BEYOND_F32 = 3.4028235677973366e38


def build(original, source, answer, wide, guard):
    """The whole graph: the signature's columns in, the model's answer with its name, type and shape out."""
    import onnx
    from onnx import TensorProto as T, helper, numpy_helper

    nodes, constants = [], []

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_{len(nodes)}", **attributes))
        return output

    def constant(name, values):
        constants.append(numpy_helper.from_array(values, name))
        return name

    number = T.DOUBLE if wide else T.FLOAT
    types = {"BYTES": T.STRING, "BOOL": T.BOOL, "FP32": T.FLOAT, "FP64": T.DOUBLE}
    types.update({k: getattr(T, k) for k in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")})
    inputs, columns, wanted = [], [], []
    axis = constant("lockgate/axis", np.array([1], dtype="i8"))
    whole = source.whole_columns() if source.by_name() else set()
    if original.matrix:
        [spec] = original.specs
        inputs.append(helper.make_tensor_value_info(spec["name"], types[spec["datatype"]], [None, len(original.names)]))
        matrix = node("Cast", [spec["name"]], "lockgate/matrix", to=number)
        wanted, columns = [("in", "f", len(original.names))], [matrix]
    else:
        for i, (name, kind) in enumerate(zip(original.names, original.types)):
            inputs.append(helper.make_tensor_value_info(name, types[kind], [None]))
            column = node("Unsqueeze", [name, axis], f"lockgate/column{i}")
            if kind == "BYTES":
                wanted.append((name, "s", 1))
            elif kind not in ("FP32", "FP64", "BOOL") and name in whole:
                column = node("Cast", [column], f"lockgate/number{i}", to=T.INT64)
                wanted.append((name, "i", 1))
            else:
                column = node("Cast", [column], f"lockgate/number{i}", to=number)
                wanted.append((name, "f", 1))
            columns.append(column)
        if not source.by_name():
            if any(kind == "s" for _, kind, _ in wanted):
                raise Refused("a column holds text, and no ColumnTransformer at the model's beginning takes it apart")
            columns = [node("Concat", columns, "lockgate/matrix", axis=1)]
            wanted = [("in", "f", len(original.names))]
    inner = onnx.compose.add_prefix(source.convert(wide, wanted), "model/")
    feeds = {f"model/{name}": column for (name, _, _), column in zip(wanted, columns)}
    nodes += [helper.make_node("Identity", [column], [name], name=f"{name}_feed") for name, column in feeds.items()]
    outputs = [o.name for o in inner.graph.output]
    narrow = rounded(inner.graph.node, nodes) if source.rounds and wide else nodes.extend(inner.graph.node) or []
    source.tell_where_missing_go(nodes)
    result = chosen(source, answer, outputs, node, constant)
    name, datatype, values = answer
    if datatype != "BYTES":
        result = node("Cast", [result], "lockgate/typed", to=types[datatype])
    if source.call == "predict_proba":
        # What a 32-bit sum leaves may lie a hair outside.
        ends = [constant(f"lockgate/{end}", np.array(end, dtype=values.dtype)) for end in (0, 1)]
        result = node("Clip", [result, *ends], "lockgate/clipped")
    shape = constant("lockgate/shape", np.array([-1, *values.shape[1:]], dtype="i8"))
    result = node("Reshape", [result, guarded(original, guard, narrow, shape, node, constant)], name)
    output = helper.make_tensor_value_info(name, types[datatype], [None, *values.shape[1:]])
    graph = helper.make_graph(nodes, "lockgate", inputs, [output], [*inner.graph.initializer, *constants])
    opsets = {"": OPSETS[""], **{o.domain: o.version for o in inner.opset_import}}
    opsets = [helper.make_opsetid(domain, number) for domain, number in opsets.items()]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(inner.functions), producer_name="lockgate")
    model.ir_version = min(model.ir_version, 10)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def rounded(inner, nodes):
    """Adds the nodes so that trees get what is left of their input after a 32-bit float, as scikit-learn's own do; gives what
    that is called."""
    from onnx import TensorProto as T, helper

    found = []
    for n in inner:
        if n.op_type.startswith("TreeEnsemble"):
            narrow, again = f"{n.output[0]}/narrow", f"{n.output[0]}/again"
            nodes.append(helper.make_node("Cast", [n.input[0]], [narrow], to=T.FLOAT))
            nodes.append(helper.make_node("Cast", [narrow], [again], to=T.DOUBLE))
            n.input[0] = again
            found.append(narrow)
        nodes.append(n)
    return found


def chosen(source, answer, outputs, node, constant):
    """The converter's output that stands for what the model answers."""
    _, datatype, values = answer
    if len(outputs) == 1:
        return outputs[0]
    label, scores = outputs[0], outputs[1]
    estimator = source.kind == "sklearn" or hasattr(source.model, "get_params")
    if estimator:
        return label if source.call == "predict" else scores
    if values.ndim == 2:
        return scores
    if source.kind == "xgboost" and "multi:softmax" in source.model.save_config():
        return label
    # A booster of two classes answers with the second one's probability.
    return node("Gather", [scores, constant("lockgate/second", np.array([1], dtype="i8"))], "lockgate/probability", axis=1)


def guarded(original, guard, narrow, shape, node, constant):
    """The shape, from a place that isn't there where a row holds what the model refuses: so the graph refuses it too.

    `narrow` are 32-bit floats that the model refuses where they are infinite.
    """
    from onnx import TensorProto as T

    bad = []
    for number, (i, (missing, infinite, large)) in enumerate(sorted(guard.items())):
        name = f"lockgate/guard{number}"
        if original.matrix:
            value = node("Gather", [original.specs[0]["name"], constant(f"{name}/at", np.array(i, dtype="i8"))], f"{name}/column", axis=1)
        else:
            value = original.names[i]
        value = node("Abs", [node("Cast", [value], f"{name}/wide", to=T.DOUBLE)], f"{name}/size")
        if missing:
            bad.append(node("IsNaN", [value], f"{name}/gone"))
        if infinite:
            limit = np.nextafter(BEYOND_F32, 0) if large and not narrow else np.finfo("f8").max
            bad.append(node("Greater", [value, constant(f"{name}/limit", np.array(limit))], f"{name}/large"))
    if guard:
        bad += [node("IsInf", [value], f"{value}/infinite") for value in narrow]
    if not bad:
        return shape
    numbers = [node("Cast", [part], f"{part}/number", to=T.INT64) for part in bad]
    worst = [node("ReduceMax", [part], f"{part}/worst", keepdims=0) for part in numbers]
    index = node("Max", worst, "lockgate/refused") if len(worst) > 1 else worst[0]
    zero = node("Gather", [constant("lockgate/zero", np.array([0], dtype="i8")), index], "lockgate/none")
    return node("Add", [shape, zero], "lockgate/checked")
