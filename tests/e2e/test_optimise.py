"""Models in Python that are served as graphs: only where the graph was shown to answer alike, and then with the same answers.

OPTIMISE_BOOSTED=1 plays XGBoost and LightGBM too, whose packages the tests' Python needs then.
"""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from conftest import Lockgate, free_ports, post, repository, wait_for

BOOSTED = bool(os.environ.get("OPTIMISE_BOOSTED"))
NAMES = {"forest": ["hour", "distance"], "delays": ["carrier", "hour", "distance"], "boosted": ["hour", "distance"]}
NAMES["light"] = NAMES["boosted"]
ROWS = {
    "forest": [[7.0, 900.0], [22.0, 10.5], [3.5, 499.99999999], [3.5, 500.0], [-1e6, 1e6], [12, 250]],
    "delays": [["AA", 7, 900.0], ["CC", 22, 10.5], ["ZZ", 3, 0.1], ["", 23, 1e7]],
}
ROWS["boosted"] = ROWS["light"] = [*ROWS["forest"], [None, 500.0], [3.0, None]]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    base = tmp_path_factory.mktemp("op")
    folder = base / "p"
    shutil.copytree(Path(__file__).parent / "projects/optimise", folder)
    (folder / ".gitignore").write_text("seen.csv\n")
    repository(folder)
    lockgate = Lockgate(folder, base / "s", free_ports(4))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    try:
        lockgate.ok("run", timeout=300)
        yield lockgate
        lockgate.verified()
    finally:
        lockgate.ok("up", "--stop")


def serve(project, release):
    promotion = project.json("promote", release["digest"][7:19], "--env", "dev")["id"]
    wait_for("it to serve", lambda: project.stage(promotion) not in ("gating", "rolling"), 300)
    assert project.serves("dev") == release["digest"], project.ok("why", promotion)


def asked(project, model):
    """What the model answers in each protocol, with its metadata."""
    names, rows, base = NAMES[model], ROWS[model], project.gateway("dev")
    split = {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in rows]}}
    records = {"dataframe_records": [dict(zip(names, row)) for row in rows]}
    answers = [post(f"{base}/models/{model}/invocations", body) for body in (split, records)]
    kinds = ["BYTES", "INT64", "FP64"] if model == "delays" else ["FP64", "FP64"]
    whole = [row for row in rows if None not in row]
    inputs = [
        {"name": n, "shape": [len(whole)], "datatype": k, "data": [row[i] for row in whole]} for i, (n, k) in enumerate(zip(names, kinds))
    ]
    answers.append(post(f"{base}/v2/models/{model}/infer", {"inputs": inputs}))
    for status, _, body in answers:
        assert status == 200, body
    mlflow, again, oip = [json.loads(body) for _, _, body in answers]
    return mlflow, again, oip["outputs"]


def alike(one, other, tolerance):
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(alike(a, b, tolerance) for a, b in zip(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[k], other[k], tolerance) for k in one)
    if isinstance(one, float) or isinstance(other, float):
        # A float that is whole may be written as 1.
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("model", ["forest", "delays", *(["boosted", "light"] if BOOSTED else [])])
def test_a_graph_answers_as_python_does_in_every_protocol(project, model):
    python = project.json("release", "create", model)
    assert python["manifest"]["runtime"]["kind"] == "python"
    serve(project, python)
    before = asked(project, model)
    fast = project.json("release", "build", model, "--optimise", timeout=400)
    assert "not_optimised" not in fast, fast["not_optimised"]
    manifest = fast["manifest"]
    assert manifest["runtime"] == {"kind": "onnx", "entry": "optimised/model.onnx"}
    proof = manifest["optimised"]
    assert proof["original"] == python["manifest"]["runtime"] and proof["tolerance"] == 1e-5
    given = {"forest": {"golden set": 40, "data seen.csv": 400}, "delays": {"golden set": 40, "data seen.csv": 400}}
    for source, count in given.get(model, {"data seen.csv": 400}).items():
        assert proof["rows"][source] == count and proof["data"][source].startswith("sha256:"), proof
    assert proof["largest"] <= 1e-5 and proof["versions"]["onnxruntime"] == "1.32.0"
    # What made the old release is still in the new one.
    old = {f["path"]: f["sha256"] for f in python["manifest"]["files"]}
    new = {f["path"]: f["sha256"] for f in manifest["files"]}
    assert {**old, "optimised/model.onnx": new["optimised/model.onnx"]} == new
    told = project.ok("release", "show", fast["digest"][7:19])
    assert "answered alike" in told and "400 data seen.csv" in told and "allowed 1e-5" in told, told
    again = project.json("release", "create", model, "--optimise", timeout=400)
    assert again["digest"] == fast["digest"] and again["existed"]
    serve(project, fast)
    after = asked(project, model)
    assert alike(before, after, 1e-5), (before, after)


def test_what_python_refuses_the_graph_refuses(project):
    """Served by the test before: a column of text that is missing, a number that is infinite."""
    url = f"{project.gateway('dev')}/models/delays/invocations"

    def status(row):
        return post(url, {"dataframe_split": {"columns": NAMES["delays"], "data": [row]}})[0]

    assert status(["AA", 7, 900.0]) == 200
    assert [status(["AA", 7, None]), status([None, 7, 900.0])] == [500, 400]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("custom", [], "FunctionTransformer is not supported"),
        ("bare", [], "there are no rows to compare on"),
        # Sums in another order differ in their last digit: equal to the last bit is more than a graph can promise.
        ("delays", ["--tolerance", "0"], "rows differ"),
    ],
)
def test_a_model_stays_in_python_where_nothing_shows_that_a_graph_answers_alike(project, model, options, words):
    refused = project.run("release", "create", model, "--optimise=require", *options, timeout=400)
    assert refused.returncode == 1 and words in refused.stderr and "not released" in refused.stderr, refused.stderr
    made = project.run("release", "create", model, "--optimise", *options, "--json", timeout=400)
    assert made.returncode == 0 and "not optimised: " in made.stderr, made.stderr
    release = json.loads(made.stdout)
    assert words in release["not_optimised"] and release["manifest"]["runtime"]["kind"] == "python", release
    assert "optimised" not in release["manifest"]


def test_a_tolerance_is_a_number_and_needs_the_wish(project):
    for options in (["--tolerance", "1e-3"], ["--optimise", "--tolerance=-1"], ["--optimise", "--tolerance", "nan"]):
        assert project.run("release", "create", "custom", *options).returncode != 0
