"""Turns one MLflow model into an ONNX graph, where the graph can be shown to answer as the model does.

Started as `python -I main.py FOLDER`, in an environment of the model's own requirements and the converters. FOLDER holds
`job.json`, these files and the shim, whose code reads what the model takes and answers: so the graph is compared with what is served. It
gets `result.json`, and `model.onnx` where the graph is equal.
"""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

# Python was told to look into no folder by itself.
sys.path.insert(0, str(Path(__file__).parent))

from comparison import BATCH, Comparison, micros  # noqa: E402
from graph import build  # noqa: E402
from original import Graph, Original, Refused, shim  # noqa: E402
from rows import guard_of, jumps, neighbours, specials, usable  # noqa: E402
from source import Source  # noqa: E402

SEED = 20240601
TOOLS = ["mlflow-skinny", "mlflow", "scikit-learn", "xgboost", "xgboost-cpu", "lightgbm", "skl2onnx", "onnxmltools", "onnx", "onnxruntime"]


def optimise(job):
    original = Original(shim(job["shim"]), job["model"])
    if original.model.model.metadata.signature.params:
        raise Refused("it takes parameters beside its columns")
    unfit = [c["name"] for c in job["columns"] if c["type"] in ("datetime", "binary") or (c["type"] == "string" and not c["required"])]
    if unfit:
        raise Refused(f"column `{unfit[0]}` holds moments, bytes, or text that may be missing, which a graph can't take")
    source = Source(job["model"])
    given, passed = {}, []
    for rows in job["rows"]:
        found = usable(original, rows)
        if found:
            given.setdefault(rows["source"], []).extend(found)
        elif found is None:
            passed.append(rows["source"])
    real = [row for rows in given.values() for row in rows]
    if not real:
        raise Refused(
            "there are no rows to compare on: log a golden set (golden.json) or an input_example with the model, or name evaluation "
            "data in lockgate.toml" + (f" ({', '.join(passed)} lack its columns)" if passed else "")
        )
    answer = original.ask(real[:BATCH])
    real = real if answer is not None else [row for row in real if original.ask([row]) is not None]
    answer = answer or (original.ask(real[:BATCH]) if real else None)
    if answer is None:
        raise Refused("the model refuses all rows that there are")
    if len(answer) != 1 or answer[0][2].ndim > 2:
        raise Refused("it answers with several outputs, or with more than rows and columns")
    rng = np.random.default_rng(SEED)
    special = specials(original, real)
    given["missing and extreme values"] = [row for _, _, row in special]
    given["neighbours of these rows"] = neighbours(original, real, rng)
    if source.trees or answer[0][2].dtype.kind != "f":
        given["both sides of jumps"] = jumps(original, real, rng, source.trees)
    guard = guard_of(original, special)
    reasons = []
    for wide in (False,) if source.kind == "xgboost" else (True, False):
        words = "as doubles" if wide else "as 32-bit floats"
        try:
            graph = build(original, source, answer[0], wide, guard)
            comparison = Comparison(job["tolerance"])
            candidate = Graph(original, graph)
            for name, rows in given.items():
                comparison.all(name, rows, original, candidate)
            ours, theirs = micros(candidate, real[0]), micros(original, real[0])
            if ours >= theirs:
                raise Refused(f"the graph is no faster: {ours:.0f} µs for a row, the model {theirs:.0f} µs")
            return graph, comparison, words
        except Refused as why:
            reasons.append(f"{words}: {why}")
        except Exception as why:
            text = re.sub(r"\s+", " ", str(why))[:400]
            reasons.append(f"{words}: {type(why).__name__}: {text}")
    raise Refused("; ".join(reasons))


def versions():
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def main(folder):
    folder = Path(folder)
    try:
        graph, comparison, numbers = optimise(json.loads((folder / "job.json").read_text()))
        (folder / "model.onnx").write_bytes(graph)
        result = {"rows": comparison.rows, "refused": comparison.refused, "largest": comparison.largest}
        result |= {"numbers": numbers, "versions": versions()}
    except Refused as why:
        result = {"why": str(why)}
    except Exception as why:
        result = {"why": f"{type(why).__name__}: {str(why)[:600]}"}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
