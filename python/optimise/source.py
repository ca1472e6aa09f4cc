"""The model behind a flavour, and the converters."""

import importlib
import re

import numpy as np
from boosted import lightgbm_graph
from original import Refused

OPSETS = {"": 18, "ai.onnx.ml": 3}


class Source:
    """The model behind the flavour, and what of it is answered."""

    def __init__(self, folder):
        from mlflow.models import Model

        flavour = Model.load(folder).flavors["python_function"]
        self.loader, self.call = flavour["loader_module"], flavour.get("predict_fn", "predict")
        loaders = {"mlflow.sklearn": "sklearn", "mlflow.xgboost": "xgboost", "mlflow.lightgbm": "lightgbm"}
        if self.loader not in loaders:
            raise Refused(f"models of {self.loader} can't be converted; {', '.join(loaders)} can")
        if self.call not in ("predict", "predict_proba"):
            raise Refused(f"it answers with `{self.call}`; only predict and predict_proba have a counterpart")
        self.kind = loaders[self.loader]
        self.model = importlib.import_module(self.loader).load_model(folder)
        names = " ".join(type(part).__name__ for part in self.parts(self.model))
        self.trees = self.kind != "sklearn" or bool(re.search("Tree|Forest|Boosting|AdaBoost|Bagging|Isolation", names))
        # Scikit-learn's histogram boosting compares doubles; its other trees compare what is left after a 32-bit float.
        self.rounds = self.kind == "sklearn" and "HistGradient" not in names
        self.steps = [step for _, step in getattr(self.model, "steps", [])] or [self.model]

    def parts(self, model):
        yield model
        inner = [step for _, step in getattr(model, "steps", [])]
        inner += [entry[1] for entry in getattr(model, "transformers_", [])]
        estimators = getattr(model, "estimators_", None)
        inner += [e for e in np.ravel(np.array(estimators, dtype=object))][:1] if estimators is not None else []
        for part in inner:
            if hasattr(part, "get_params"):
                yield from self.parts(part)

    def by_name(self):
        return hasattr(self.steps[0], "transformers_")

    def tell_where_missing_go(self, nodes):
        """Into the trees of scikit-learn, which know it and whose converter doesn't ask them."""
        from onnx import helper

        trees = []
        for part in self.parts(self.model):
            several = getattr(part, "estimators_", None)
            trees += [part] if hasattr(part, "tree_") else []
            if several is not None and len(several) and hasattr(np.ravel(several)[0], "tree_"):
                trees = [tree for tree in np.ravel(np.array(several, dtype=object))]
                break
        ensembles = [n for n in nodes if n.op_type.startswith("TreeEnsemble")]
        if len(ensembles) != 1 or not trees or self.kind != "sklearn":
            return
        states = [tree.tree_.__getstate__()["nodes"] for tree in trees]
        if any("missing_go_to_left" not in state.dtype.names for state in states):
            return
        left = np.concatenate([state["missing_go_to_left"] for state in states]).astype(int).tolist()
        [ensemble] = ensembles
        lengths = [len(a.ints) for a in ensemble.attribute if a.name == "nodes_nodeids"]
        if lengths == [len(left)]:
            kept = [a for a in ensemble.attribute if a.name != "nodes_missing_value_tracks_true"]
            del ensemble.attribute[:]
            ensemble.attribute.extend([*kept, helper.make_attribute("nodes_missing_value_tracks_true", left)])

    def whole_columns(self):
        """Columns of which some transformer needs whole numbers as they are: they are categories there."""
        found = set()
        for _, transformer, columns in getattr(self.steps[0], "transformers_", []):
            names = [type(part).__name__ for part in self.parts(transformer)]
            if any("Encoder" in name or "Binarizer" in name for name in names) and isinstance(columns, (list, np.ndarray)):
                found.update(map(str, columns))
        return found

    def convert(self, wide, inputs):
        """The converter's own graph, for columns or one matrix, of doubles or floats."""
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

        kinds = {"f": DoubleTensorType if wide else FloatTensorType, "i": Int64TensorType, "s": StringTensorType}
        types = [(name, kinds[kind]([None, width])) for name, kind, width in inputs]
        if self.kind == "sklearn":
            from skl2onnx import convert_sklearn

            classifier = hasattr(self.model, "predict_proba")
            options = {"zipmap": False} if classifier else None
            return convert_sklearn(self.model, name="model", initial_types=types, options=options, target_opset=OPSETS)
        if self.kind == "lightgbm":
            return lightgbm_graph(self.model, inputs, wide, OPSETS)
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType as Narrow

        # The converter knows columns by their number alone.
        booster = self.model.get_booster() if hasattr(self.model, "get_booster") else self.model
        booster.feature_names = None
        types = [(name, Narrow([None, width])) for name, _, width in inputs]
        return onnxmltools.convert_xgboost(self.model, name="model", initial_types=types, target_opset=15)
