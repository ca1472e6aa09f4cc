"""Lockgate's shim: one MLflow model, for one worker.

The worker starts it with a socket as standard input, and sends this file and its options as the first frame. A frame is a
header (magic, length of the JSON, length of what follows it), JSON, and the tensors' raw bytes, little-endian, in the order of
the JSON: the binary layout of the Open Inference Protocol. What the model prints goes to the worker's log.
"""

import base64
import json
import os
import signal
import struct
import sys
import time
import traceback

HEADER = struct.Struct("<4sIQ")
MAGIC = b"LGS1"
LENGTH = struct.Struct("<I")
PR_SET_PDEATHSIG = 1
# What the name of a tensor ends in that says which texts of a column are missing.
MISSING = "\0missing"
# What the worker takes of an answer.
MOST_OUTPUTS = 10_000
MOST_HEAD = 4 << 20


class InputError(Exception):
    """What was asked can't be given to the model."""


def follow_parent(parent):
    """The kernel kills this process when the worker ends, however it ends and whatever this process is doing then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        pass  # then it ends when it next reads from the worker
    if os.getppid() != parent:
        os._exit(0)


def quiet_streams():
    """Nothing that the model prints or reads may touch the socket."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")


def receive(sock):
    """The next frame; ends the process where the worker is gone."""

    def exactly(count):
        buffer = bytearray(count)
        view, got = memoryview(buffer), 0
        while got < count:
            more = sock.recv_into(view[got:])
            if more == 0:
                os._exit(0)
            got += more
        return buffer

    magic, head, raw = HEADER.unpack(exactly(HEADER.size))
    if magic != MAGIC:
        raise SystemExit("the worker speaks another protocol")
    return json.loads(exactly(head)), exactly(raw)


def send(sock, head, parts=()):
    text = json.dumps(head).encode()
    sock.sendall(b"".join([HEADER.pack(MAGIC, len(text), sum(map(len, parts))), text, *parts]))


def sentence(error):
    try:
        # Half of a surrogate pair is no text for anybody else.
        return str(error).strip().encode("utf-8", "replace").decode()[:1000]
    except Exception:
        return ""


def words(error):
    text = sentence(error)
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__


# Everything below needs numpy, which comes with the model's environment.

DTYPES = {
    "BOOL": "bool",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
NAMES = {("b", 1): "BOOL"}
NAMES.update({("u", n): f"UINT{8 * n}" for n in (1, 2, 4, 8)})
NAMES.update({("i", n): f"INT{8 * n}" for n in (1, 2, 4, 8)})
NAMES.update({("f", n): f"FP{8 * n}" for n in (4, 8)})
COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "datetime": "BYTES",
    "binary": "BYTES",
}


def texts(raw, count):
    """The elements of a BYTES tensor."""
    found, at = [], 0
    for _ in range(count):
        (size,) = LENGTH.unpack_from(raw, at)
        at += 4 + size
        found.append(str(raw[at - size : at], "utf-8"))
    return found


def array(tensor, raw):
    """A tensor as a numpy array that the model may write into."""
    import numpy as np

    if tensor["datatype"] == "BYTES":
        count = 1
        for axis in tensor["shape"]:
            count *= axis
        return np.array(texts(raw, count), dtype=object).reshape(tensor["shape"])
    flat = np.frombuffer(raw, dtype=DTYPES[tensor["datatype"]])
    return np.require(flat, requirements=["A", "W"]).reshape(tensor["shape"])


class Inputs:
    """What the model's signature says that it takes."""

    def __init__(self, schema):
        if schema is None or not schema.inputs:
            raise InputError("the model has no signature")
        self.tensors = schema.is_tensor_spec()
        if self.tensors:
            self.specs = [self.tensor(i, spec) for i, spec in enumerate(schema.inputs)]
            self.named = schema.inputs[0].name is not None
            return
        self.kinds = [getattr(spec.type, "name", str(spec.type)) for spec in schema.inputs]
        self.named = all(spec.name is not None for spec in schema.inputs)
        self.specs = []
        for i, (spec, kind) in enumerate(zip(schema.inputs, self.kinds)):
            name = spec.name if self.named else f"input_{i}"
            if kind not in COLUMNS:
                raise InputError(f"the column `{name}` has the type {kind}, which can't be served")
            self.specs.append({"name": str(name), "datatype": COLUMNS[kind], "shape": [-1]})
        self.number = {spec["name"]: i for i, spec in enumerate(self.specs)}
        self.index = None

    @staticmethod
    def tensor(i, spec):
        kind, name = spec.type, spec.name if spec.name is not None else f"input_{i}"
        datatype = "BYTES" if kind.kind in "OSU" else NAMES.get((kind.kind, kind.itemsize))
        if datatype is None:
            raise InputError(f"the tensor `{name}` has the type {kind}, which can't be served")
        return {"name": str(name), "datatype": datatype, "shape": list(spec.shape)}

    def build(self, tensors, raw):
        """What the model is called with."""
        pieces, view, at = [], memoryview(raw), 0
        for tensor in tensors:
            pieces.append(view[at : at + tensor["size"]])
            at += tensor["size"]
        if self.tensors:
            arrays = {t["name"]: array(t, piece) for t, piece in zip(tensors, pieces)}
            return arrays if self.named else next(iter(arrays.values()))
        return self.frame(tensors, pieces, view)

    def frame(self, tensors, pieces, whole):
        import numpy as np
        import pandas as pd

        kinds = {tensor["datatype"] for tensor in tensors}
        if len(kinds) == 1 and "BYTES" not in kinds and len(tensors) == len(self.specs):
            # Columns of one type lie behind each other: one block, as pandas itself would have it.
            if self.index is None:
                self.index = pd.Index([t["name"] for t in tensors]) if self.named else pd.RangeIndex(len(tensors))
            block = np.frombuffer(whole, dtype=DTYPES[kinds.pop()]).reshape(len(tensors), -1)
            return pd.DataFrame(block.T, columns=self.index, copy=False)
        columns, missing = {}, {}
        for tensor, piece in zip(tensors, pieces):
            name = tensor["name"]
            if name.endswith(MISSING):
                missing[name.removesuffix(MISSING)] = array(tensor, piece)
        for tensor, piece in zip(tensors, pieces):
            name, values = tensor["name"], array(tensor, piece)
            if name in missing:
                values[missing[name]] = None
            if name in self.number:
                number = self.number[name]
                columns[name if self.named else number] = self.column(number, values)
        return pd.DataFrame(columns)

    def column(self, number, values):
        import pandas as pd

        name, kind = self.specs[number]["name"], self.kinds[number]
        if kind == "datetime":
            try:
                return pd.to_datetime(pd.Series(values.tolist()), format="ISO8601").to_numpy(dtype="datetime64[ns]")
            except (ValueError, TypeError) as error:
                raise InputError(f"{name}: no moment in time: {str(error)[:200]}") from None
        if kind == "binary":
            try:
                return [None if text is None else base64.b64decode(text, validate=True) for text in values]
            except ValueError:
                raise InputError(f"{name}: no base64 text") from None
        return values.tolist() if values.dtype == object else values


class Outputs:
    """The model's answer as typed tensors, whatever form it has."""

    def __init__(self, schema):
        specs = schema.inputs if schema is not None else []
        self.names = [str(s.name) if s.name is not None else f"output_{i}" for i, s in enumerate(specs)] or ["output_0"]
        self.specs = []
        for name, spec in zip(self.names, specs):
            if hasattr(spec, "shape"):
                kind, shape = spec.type, list(spec.shape)
                datatype = "BYTES" if kind.kind in "OSU" else NAMES.get((kind.kind, kind.itemsize))
            else:
                datatype, shape = COLUMNS.get(getattr(spec.type, "name", str(spec.type))), [-1]
            if datatype is not None:
                self.specs.append({"name": name, "datatype": datatype, "shape": shape})

    def tensors(self, answer):
        """Pairs of a description and bytes."""
        import numpy as np
        import pandas as pd

        if isinstance(answer, list) and answer and all(isinstance(item, dict) for item in answer):
            answer = pd.DataFrame(answer)
        if isinstance(answer, pd.DataFrame):
            named = [(str(name), answer.iloc[:, i]) for i, name in enumerate(answer.columns)]
        elif isinstance(answer, dict):
            named = [(str(name), value) for name, value in answer.items()]
        elif isinstance(answer, tuple) and len(answer) > 1:
            named = [(self.names[i] if i < len(self.names) else f"output_{i}", v) for i, v in enumerate(answer)]
        else:
            named = [(self.names[0] if len(self.names) == 1 else "output_0", answer)]
        if not named:
            raise ValueError("the model's answer has no columns")
        return [self.tensor(name, self.numpy(np, value)) for name, value in named]

    @staticmethod
    def numpy(np, value):
        """Anything that holds values as an array of at least one axis."""
        if hasattr(value, "detach"):
            value = value.detach().cpu()  # PyTorch
        if hasattr(value, "toarray"):
            value = value.toarray()  # SciPy's sparse matrices
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()  # pandas
        elif hasattr(value, "numpy") and not isinstance(value, np.ndarray):
            value = value.numpy()  # TensorFlow, PyTorch
        return np.atleast_1d(np.asarray(value))

    @staticmethod
    def tensor(name, values):
        import numpy as np

        if values.dtype.kind == "S":
            values = values.astype("O")
        if values.dtype.kind == "O":
            values = plain(np, name, values)
        if values.dtype.kind == "M":
            values = np.datetime_as_string(values)
        if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
            values = values.astype("f4" if values.dtype.itemsize < 4 else "f8")
        if values.dtype.kind == "U" or values.dtype == object:
            pieces = []
            for text in values.ravel().tolist():
                piece = text.encode("utf-8")
                pieces += [LENGTH.pack(len(piece)), piece]
            raw, datatype = b"".join(pieces), "BYTES"
        else:
            datatype = NAMES.get((values.dtype.kind, values.dtype.itemsize))
            if datatype is None:
                raise TypeError(f"the model's output `{name}` has the type {values.dtype}, which can't be answered")
            raw = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        return {"name": name, "datatype": datatype, "shape": list(values.shape), "size": len(raw)}, raw


def plain(np, name, values):
    """An array of Python objects as one of a type that has a name."""
    import pandas as pd

    flat = values.ravel()
    if all(isinstance(v, (bytes, bytearray)) for v in flat):
        return np.array([base64.b64encode(v).decode() for v in flat], dtype=object).reshape(values.shape)
    if all(isinstance(v, str) for v in flat):
        return values  # not an array of a fixed width, which the longest text would blow up
    if all(isinstance(v, (list, tuple, np.ndarray)) for v in flat):
        stacked = np.array([np.asarray(v) for v in flat])
        if stacked.dtype.kind != "O":
            return stacked.reshape(values.shape + stacked.shape[1:])
    elif any(isinstance(v, str) for v in flat):
        raise TypeError(f"the model's output `{name}` holds text and something else, a missing value perhaps")
    elif any(v is pd.NaT or isinstance(v, (np.datetime64, np.timedelta64)) for v in flat):
        raise TypeError(f"the model's output `{name}` holds moments, some of them missing perhaps: answer text instead")
    elif all(isinstance(v, (bool, np.bool_)) for v in flat):
        return flat.astype(bool).reshape(values.shape)
    elif all(isinstance(v, (int, np.integer)) for v in flat):
        return flat.astype("i8").reshape(values.shape)
    else:
        # Decimals, integers of pandas' own types, numbers among which some are missing.
        if any(isinstance(v, (int, np.integer)) and abs(int(v)) > 2**53 for v in flat):
            raise TypeError(f"the model's output `{name}` holds whole numbers beside others that are too large to be exact")
        return np.array([np.nan if pd.isna(v) else float(v) for v in flat]).reshape(values.shape)
    raise TypeError(f"the model's output `{name}` holds lists of different lengths")


class Model:
    """The model, and how it is called."""

    def __init__(self, folder):
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(folder)
        metadata = self.model.metadata
        signature = metadata.signature
        self.inputs = Inputs(signature.inputs if signature else None)
        self.outputs = Outputs(signature.outputs if signature else None)
        special = [getattr(metadata, name, None) for name in ("_is_signature_from_type_hint", "_is_type_hint_from_example")]
        self.predict = self.model.predict
        inner = getattr(self.model, "_predict_fn", None)
        if inner and not any(ask and ask() for ask in special) and not getattr(signature, "params", None):
            # What arrives here has the signature's names, order and types already; to check them again would often take
            # longer than the model.
            self.predict = inner
        self.told = 0.0

    def answer(self, head, raw):
        """Outputs, or what went wrong and whose fault it is."""
        try:
            try:
                data = self.inputs.build(head["inputs"], raw)
            except UnicodeDecodeError:
                raise InputError("a text is not UTF-8") from None
            pairs = self.outputs.tensors(self.predict(data))
        except BaseException as error:  # a model may raise anything, SystemExit too
            kind = "input" if self.is_input(error) else "model"
            if kind == "model":
                self.tell()
            return {"error": {"kind": kind, "message": sentence(error) if kind == "input" else words(error)}}, ()
        return {"outputs": [head for head, _ in pairs]}, [raw for _, raw in pairs]

    @staticmethod
    def is_input(error):
        if isinstance(error, InputError):
            return True
        # MLflow's own refusals, which a model may raise too.
        code = getattr(error, "error_code", None)
        return type(error).__name__ == "MlflowException" and code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

    def tell(self):
        """The traceback into the log, once a second: many bad rows would only fill it."""
        if time.monotonic() - self.told > 1.0:
            self.told = time.monotonic()
            traceback.print_exc()


def main(sock, options):
    follow_parent(options["parent"])
    quiet_streams()
    try:
        import faulthandler

        faulthandler.enable(2)
        model = Model(options["model"])
    except BaseException as error:
        traceback.print_exc()
        send(sock, {"id": 0, "error": {"kind": "model", "message": words(error)}})
        raise SystemExit(1) from None
    import gc

    gc.collect()
    gc.freeze()
    send(sock, {"id": 0, "inputs": model.inputs.specs, "outputs": model.outputs.specs})
    while True:
        head, raw = receive(sock)
        answer, parts = model.answer(head, raw)
        if sum(map(len, parts)) > options["max_answer"] or len(parts) > MOST_OUTPUTS or len(json.dumps(answer)) > MOST_HEAD:
            answer, parts = {"error": {"kind": "model", "message": "its answer is too large"}}, ()
        send(sock, {"id": head["id"], **answer}, parts)


if "SOCKET" in globals():  # whoever converts a model reads this file too, for what it says of inputs and answers
    main(SOCKET, json.loads(OPTIONS))  # noqa: F821, both are given by the worker
