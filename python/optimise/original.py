"""The model as it is served, and a graph beside it."""

from pathlib import Path

import numpy as np


class Refused(Exception):
    """Why the model stays in Python."""


def shim(path):
    scope = {"__name__": "shim"}
    exec(compile(Path(path).read_text(), "shim.py", "exec"), scope)
    return scope


class Original:
    """The model as the shim serves it."""

    def __init__(self, scope, folder):
        self.scope, self.model = scope, scope["Model"](folder)
        self.specs = self.model.inputs.specs
        self.model.tell = lambda: None  # rows that it refuses are expected here
        self.matrix = self.model.inputs.tensors
        self.names = [spec["name"] for spec in self.specs]
        if self.matrix:
            [spec] = self.specs if len(self.specs) == 1 else [None]
            if spec is None or len(spec["shape"]) != 2 or spec["shape"][1] < 1 or spec["datatype"] == "BYTES":
                raise Refused("its signature has tensors; only one matrix of numbers, or columns, can be compared")
            self.names = [f"{spec['name']}[{i}]" for i in range(spec["shape"][1])]
        self.types = [self.specs[0 if self.matrix else i]["datatype"] for i in range(len(self.names))]

    def arrays(self, rows):
        """The rows as the arrays of the model's inputs."""
        columns = [self.column(kind, [row[i] for row in rows]) for i, kind in enumerate(self.types)]
        if self.matrix:
            return {self.specs[0]["name"]: np.stack(columns, axis=1)}
        return dict(zip(self.names, columns))

    def column(self, kind, values):
        if kind == "BYTES":
            return np.array(values, dtype=object)
        if kind in ("FP32", "FP64"):
            return np.array([np.nan if v is None else v for v in values], dtype=self.scope["DTYPES"][kind])
        return np.array(values).astype(self.scope["DTYPES"][kind])

    def ask(self, rows):
        """Name, type and values of each output; None where the model refuses the rows."""
        head, raw = [], []
        for name, values in self.arrays(rows).items():
            tensor, piece = self.model.outputs.tensor(name, values)
            head.append(tensor)
            raw.append(piece)
        answer, parts = self.model.answer({"inputs": head}, b"".join(raw))
        if "error" in answer:
            return None
        return [(o["name"], o["datatype"], self.scope["array"](o, bytearray(p))) for o, p in zip(answer["outputs"], parts)]


class Graph:
    """A candidate, run as the worker runs it."""

    def __init__(self, original, onnx_bytes):
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.original = original
        self.session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])

    def ask(self, rows):
        try:
            return self.session.run(None, self.original.arrays(rows))[0]
        except Exception:
            return None
