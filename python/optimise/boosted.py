"""LightGBM's models as graphs."""

import math

import numpy as np
from original import Refused


def lightgbm_graph(model, inputs, wide, opsets):
    """LightGBM's trees with their thresholds as they are: its converter makes 32-bit floats of them, and rows between a threshold
    and what is left of it would go the other way."""
    from onnx import TensorProto as T, helper, numpy_helper

    booster = getattr(model, "booster_", model)
    dump = booster.dump_model()
    objective = dump["objective"].split()
    links = {"regression": None, "binary": "Sigmoid", "multiclass": "Softmax"}
    if objective[0] not in links or dump.get("average_output") or "sqrt" in objective:
        raise Refused(f"its objective is `{dump['objective']}`; {', '.join(links)} can be converted")
    sigmoid = [word for word in objective if word.startswith("sigmoid:")]
    if sigmoid and float(sigmoid[0][8:]) != 1.0:
        raise Refused(f"its objective is `{dump['objective']}`, with a slope")
    per = dump["num_tree_per_iteration"]
    cells = {name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    leaves = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add(tree, node, number):
        """One node and all below it; gives the number that is free next."""
        leaf = "leaf_value" in node
        if leaf:
            for name, value in zip(leaves, (tree, number, tree % per, node["leaf_value"])):
                leaves[name].append(value)
        elif node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise Refused("it splits by categories, or takes zeros for missing values, which only LightGBM does")
        else:
            # Where missing values are none of the split's business, LightGBM takes them for zeros.
            missing = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
        at = len(cells["nodeids"])
        row = (tree, number, 0, "LEAF", 0.0, 0, 0, 0) if leaf else (tree, number, node["split_feature"], "BRANCH_LEQ", unbounded(node["threshold"]), number + 1, 0, int(missing))
        for name, value in zip(cells, row):
            cells[name].append(value)
        if leaf:
            return number + 1
        free = add(tree, node["left_child"], number + 1)
        cells["falsenodeids"][at] = free
        return add(tree, node["right_child"], free)

    for tree, info in enumerate(dump["tree_info"]):
        add(tree, info["tree_structure"], 0)
    kind = np.float64 if wide else np.float32
    tensors = {"nodes_values": cells.pop("values"), "target_weights": leaves.pop("weights")}
    attributes = {f"nodes_{name}": values for name, values in cells.items()} | {f"target_{name}": values for name, values in leaves.items()}
    for name, values in tensors.items():
        values = np.array(values, dtype=kind)
        attributes |= {f"{name}_as_tensor": numpy_helper.from_array(values, name)} if wide else {name: values.tolist()}
    [(name, _, width)] = inputs
    nodes = [helper.make_node("TreeEnsembleRegressor", [name], ["raw"], domain="ai.onnx.ml", n_targets=per, **attributes)]
    nodes.append(helper.make_node("Cast", ["raw"], ["wide"], to=T.DOUBLE))
    link, constants, classes, result = links[objective[0]], [], getattr(model, "classes_", None), "wide"
    if classes is not None:
        constants += [numpy_helper.from_array(np.array(classes, dtype=object if classes.dtype.kind in "OU" else classes.dtype), "classes")]
        if per == 1:
            constants += [numpy_helper.from_array(np.array(0.0), "nothing")]
            nodes += [helper.make_node("Greater", ["wide", "nothing"], ["second"]), helper.make_node("Cast", ["second"], ["best"], to=T.INT64)]
        else:
            nodes.append(helper.make_node("ArgMax", ["wide"], ["best"], axis=1))
        nodes.append(helper.make_node("Gather", ["classes", "best"], ["label"]))
        result = "label"
    elif link:
        nodes.append(helper.make_node(link, ["wide"], ["linked"]))
        result = "linked"
    element = helper.np_dtype_to_tensor_dtype(classes.dtype) if result == "label" and classes.dtype.kind not in "OU" else T.STRING if result == "label" else T.DOUBLE
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, T.DOUBLE if wide else T.FLOAT, [None, width])],
        [helper.make_tensor_value_info(result, element, [None, None])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*pair) for pair in opsets.items()])


def unbounded(threshold):
    """LightGBM writes an infinite threshold as a large one."""
    return math.copysign(math.inf, threshold) if abs(threshold) >= 1e300 else threshold
