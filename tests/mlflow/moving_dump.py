"""Prints everything that the stock client sees of a store, as JSON: python moving_dump.py TRACKING_URI [name|copy]

What two stores may say differently (where artifacts lie, infinities that databases can't hold) is made the same.
"""

import hashlib
import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
from mlflow.entities import ViewType  # noqa: E402

LARGEST = sys.float_info.max


def number(value):
    return "nan" if math.isnan(value) else min(max(value, -LARGEST), LARGEST) + 0.0


def files(uri):
    """What lies at a URI, by path."""
    if uri.startswith("s3:"):
        return uri
    with tempfile.TemporaryDirectory() as folder:
        try:
            root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:
            # A folder is made with its first file.
            assert any(text in str(error) for text in ("No such", "not exist", "No artifacts")), error
            return {}
        found = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def place(source):
    return source.split("/artifacts", 1)[1] if "/artifacts" in source and not source.startswith("s3:") else source


def all_pages(search, **more):
    token, found = None, []
    while True:
        page = search(page_token=token, **more)
        found += page
        token = page.token
        if not token:
            return found


def run(client, run, deleted):
    info, data = run.info, run.data
    history = {}
    for key in data.metrics:
        points = {(p.timestamp, p.step, number(p.value)) for p in client.get_metric_history(info.run_id, key)}
        history[key] = sorted(points, key=str)
    inputs = run.inputs
    datasets = [{**dict(one.dataset), "tags": {tag.key: tag.value for tag in one.tags}} for one in inputs.dataset_inputs]
    return {
        "name": info.run_name, "user": info.user_id, "status": info.status, "start": info.start_time, "end": info.end_time,
        "stage": info.lifecycle_stage, "experiment": info.experiment_id, "params": data.params, "tags": data.tags,
        "metrics": {key: number(value) for key, value in data.metrics.items()}, "history": history,
        "datasets": sorted(datasets, key=str), "models in": sorted(one.model_id for one in inputs.model_inputs),
        "models out": sorted((one.model_id, one.step) for one in run.outputs.model_outputs),
        # Those of a deleted experiment can't be found by the file store itself.
        "files": deleted or files(info.artifact_uri),
    }  # fmt: skip


def logged(model):
    newest = {}
    for one in sorted(model.metrics or [], key=lambda m: (m.step, m.timestamp)):
        newest[f"{one.key} {one.dataset_name}"] = (number(one.value), one.step, one.timestamp, one.run_id)
    return {
        "name": model.name, "type": model.model_type or "", "run": model.source_run_id, "status": str(model.status),
        "created": model.creation_timestamp, "tags": model.tags, "params": model.params, "metrics": newest,
        "files": files(model.artifact_location),
    }  # fmt: skip


# Each store has its own places for the parts of a trace.
PLACES = ("mlflow.artifactLocation", "mlflow.trace.spansLocation")


def trace(one):
    info = one.info
    location = info.tags["mlflow.artifactLocation"]
    said = {}
    for each in info.assessments:
        # Over HTTP the client forgets that an expectation counts.
        what = {"valid": True, **each.to_dictionary()}
        said[what.pop("assessment_id")] = what
    spans = sorted((span.to_dict() for span in one.data.spans), key=lambda span: span["span_id"])
    return {
        "experiment": info.experiment_id, "state": str(info.state), "start": info.request_time, "took": info.execution_duration,
        "client id": info.client_request_id, "request": info.request_preview, "response": info.response_preview,
        "tags": {key: value for key, value in info.tags.items() if key not in PLACES}, "metadata": info.trace_metadata,
        "said": said, "spans": json.loads(json.dumps(spans)),
        "files": {path: digest for path, digest in files(location).items() if path != "traces.json"},
    }  # fmt: skip


def links(client, experiments, filters):
    """Which traces are found by what they are linked to."""
    def found(condition):
        page = client.search_traces(locations=experiments, filter_string=condition, include_spans=False)
        return sorted(one.info.trace_id for one in page)

    return {condition: ids for condition in filters if (ids := found(condition))}


def version(client, one, predict):
    one = client.get_model_version(one.name, one.version)
    guess = None
    if not one.source.startswith("s3:"):
        with tempfile.TemporaryDirectory() as folder:
            uri = f"models:/{one.name}/{one.version}"
            if predict == "copy":
                # Loaded by name, a model in a local folder gets another file there.
                uri = client.get_model_version_download_uri(one.name, one.version)
                uri = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            guess = mlflow.pyfunc.load_model(uri).predict(np.array([[4.0]])).tolist()
    return {
        "created": one.creation_timestamp, "updated": one.last_updated_timestamp, "description": one.description or "",
        "run": one.run_id or "", "link": one.run_link or "", "tags": one.tags, "aliases": sorted(one.aliases),
        "stage": one.current_stage, "source": place(one.source), "guess": guess,
    }  # fmt: skip


def main(uri, predict="name"):
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    found = {"experiments": {}, "runs": {}, "logged": {}, "traces": {}, "links": {}, "registered": {}, "versions": {}}
    experiments = all_pages(client.search_experiments, view_type=ViewType.ALL)
    for one in experiments:
        found["experiments"][one.experiment_id] = [
            one.name, one.lifecycle_stage, one.tags, one.creation_time, one.last_update_time,
            one.artifact_location if one.artifact_location.startswith("s3:") else "",
        ]  # fmt: skip
        ids, deleted = [one.experiment_id], one.lifecycle_stage == "deleted"
        for each in all_pages(lambda **more: client.search_runs(ids, "", ViewType.ALL, 100, **more)):
            found["runs"][each.info.run_id] = run(client, client.get_run(each.info.run_id), deleted)
        for model in [] if deleted else client.search_logged_models(ids):
            found["logged"][model.model_id] = logged(model)
        for each in [] if deleted else all_pages(lambda **more: client.search_traces(locations=ids, max_results=2, **more)):
            found["traces"][each.info.trace_id] = trace(each)
    active = [one.experiment_id for one in experiments if one.lifecycle_stage == "active"]
    found["links"] = links(client, active, [f"run_id = '{id}'" for id in found["runs"]])
    if not uri.startswith("file:"):
        found["links"] |= links(client, active, ["prompt = 'greeting/1'"])
    for model in all_pages(client.search_registered_models):
        found["registered"][model.name] = [
            model.description or "", model.tags, {alias: int(version) for alias, version in model.aliases.items()},
            model.creation_timestamp, model.last_updated_timestamp,
        ]  # fmt: skip
        for one in client.search_model_versions(f"name = '{model.name}'"):
            found["versions"][f"{model.name} {one.version}"] = version(client, one, predict)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
