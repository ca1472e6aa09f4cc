"""Makes a store with the stock client, as a program of its own: python moving_world.py TRACKING_URI [ARTIFACT_ROOT]

It runs under an MLflow with database support, which the client under test need not have.
"""

import os
import sys
import tempfile

os.environ.update(
    MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_ENABLE_ASYNC_LOGGING="false",
    MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false",
)
import mlflow  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy as np  # noqa: E402
from mlflow.entities import AssessmentSource, LoggedModelInput, Metric, Param, RunTag, SpanType  # noqa: E402
from mlflow.data.code_dataset_source import CodeDatasetSource  # noqa: E402
from mlflow.data.meta_dataset import MetaDataset  # noqa: E402
from mlflow.tracing.attachments import Attachment  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402

STEPS = 12_000


def main(uri, root=None):
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()

    def new(name, **more):
        return client.create_experiment(name, artifact_location=root and f"{root}/{abs(hash(name))}", **more)

    first = new("naïve 実験", tags={"team": "brücke", "empty": ""})
    gone = new("gone")
    far = client.create_experiment("far away", artifact_location="s3://bucket/far")
    old_style(client, first)
    trained(first)
    many(client, first)
    traced(client, first, uri)
    leftover = client.create_run(gone, start_time=1_700_000_000_001, run_name="in a deleted experiment")
    client.log_metric(leftover.info.run_id, "m", 1.0)
    client.set_terminated(leftover.info.run_id)
    client.delete_experiment(gone)
    away = client.create_run(far, run_name="artifacts elsewhere")
    client.set_terminated(away.info.run_id)
    client.create_registered_model("elsewhere")
    client.create_model_version("elsewhere", f"s3://bucket/far/{away.info.run_id}/artifacts/model", run_id=away.info.run_id)
    client.set_experiment_tag("0", "default", "yes")


def old_style(client, experiment):
    """Odd numbers, names and files."""
    run = client.create_run(experiment, start_time=1_700_000_000_000, tags={"π": "3,14 –"}, run_name="1e3")
    id = run.info.run_id
    odd = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-320, 0.1]
    points = [Metric("odd/ü", value, 1000 + i, i - 3) for i, value in enumerate(odd)]
    client.log_batch(id, metrics=points)
    client.log_batch(id, metrics=[Metric("last is nan", 1.0, 5, 0), Metric("last is nan", float("nan"), 6, 1)])
    client.log_batch(id, metrics=[Metric("tie", value, 5, 5) for value in (2.0, 7.0, -1.0)])
    client.log_batch(id, params=[Param("p/q", "x\ny"), Param("näme", "wert"), Param("long", "ü" * 5000)], tags=[RunTag("t", "v")])
    client.log_text(id, "tief", "a/b c/é%20.txt")
    client.log_text(id, "", "empty")
    client.log_dict(id, {"a": [1, 2]}, "a/d.json")
    client.set_terminated(id, "FAILED", 1_700_000_099_000)
    deleted = client.create_run(experiment, run_name="deleted")
    client.log_param(deleted.info.run_id, "p", "1")
    client.log_text(deleted.info.run_id, "kept", "kept.txt")
    client.delete_run(deleted.info.run_id)


def trained(experiment):
    """A model, registered twice with a deleted version between, and what it was made of."""
    client = mlflow.MlflowClient()
    mlflow.set_experiment(experiment_id=experiment)
    x = np.arange(10.0).reshape(-1, 1)
    with mlflow.start_run(run_name="trained") as run:
        data = MetaDataset(CodeDatasetSource({"mlflow.source.name": "x"}), name="parcels", digest="abc123")
        mlflow.log_input(data, context="training", tags={"split": "a"})
        model = mlflow.sklearn.log_model(
            LinearRegression().fit(x, 3 * x[:, 0] + 1), name="model", registered_model_name="prices", input_example=x[:2],
            serialization_format="cloudpickle",
        )  # fmt: skip
        mlflow.log_metric("rmse", 0.25, step=1, model_id=model.model_id)
        mlflow.log_metric("rmse", float("nan"), step=2, model_id=model.model_id)
    with mlflow.start_run(run_name="user") as user:
        client.log_inputs(user.info.run_id, models=[LoggedModelInput(model.model_id)])
    client.set_logged_model_tags(model.model_id, {"stage": "grün"})
    mlflow.register_model(model.model_uri, "prices")
    client.create_model_version("prices", model.model_uri, run_id=run.info.run_id, run_link="http://x/y", model_id=model.model_id)
    client.delete_model_version("prices", "2")
    client.update_registered_model("prices", "Was ein Paket kostet")
    client.update_model_version("prices", "3", "third")
    client.set_registered_model_tag("prices", "owner", "übermut")
    client.set_model_version_tag("prices", "1", "checked", "yes")
    client.set_registered_model_alias("prices", "champion", "3")
    client.set_registered_model_alias("prices", "old", "1")
    # A folder of a run registered as it was before MLflow 3.
    with tempfile.TemporaryDirectory() as folder:
        mlflow.sklearn.save_model(LinearRegression().fit(x, x[:, 0]), f"{folder}/m", serialization_format="cloudpickle")
        client.log_artifacts(run.info.run_id, f"{folder}/m", "classic")
    client.create_registered_model("classic", tags={"a": "b"})
    uri = client.get_run(run.info.run_id).info.artifact_uri
    client.create_model_version("classic", f"{uri}/classic", run_id=run.info.run_id)
    client.create_registered_model("never used")
    # A copy of another model's version, by a name that comes before it.
    client.copy_model_version("models:/prices/3", "a copy")
    # A copy of a version whose name means another model by now.
    client.copy_model_version("models:/classic/1", "from reused")
    client.rename_registered_model("classic", "classic before")
    client.create_registered_model("classic")
    client.copy_model_version("models:/prices/1", "classic")
    client.transition_model_version_stage("prices", "3", "Staging")


def many(client, experiment):
    run = client.create_run(experiment, run_name="many steps").info.run_id
    for begin in range(0, STEPS, 1000):
        client.log_batch(run, metrics=[Metric("loss", 1 / (step + 1), 10_000 + step, step) for step in range(begin, begin + 1000)])
    client.set_terminated(run)


def traced(client, experiment, uri):
    """Traces with spans, feedback that was overridden, expectations, attachments and links."""
    mlflow.set_experiment(experiment_id=experiment)

    @mlflow.trace(span_type=SpanType.LLM, attributes={"lärm": float("nan"), "large": 2**62, "k": "1e3"})
    def answer(question):
        span = mlflow.get_current_active_span()
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.add_event(mlflow.entities.SpanEvent("thought", attributes={"n": 1.5}))
        return {"antwort": question * 2, "zahl": 1.0}

    @mlflow.trace(name="frage – 問")
    def ask(question, **more):
        mlflow.update_current_trace(tags={"t": "1e3", "a b": "ü\nx", **slash}, metadata={"m": "0o17"}, **more)
        return answer(question)

    slash = {} if uri.startswith("file:") else {"x/y": "with a slash"}

    def last():
        return mlflow.get_last_active_trace_id()

    ask("wie?", client_request_id="1e3")
    first = last()
    human = AssessmentSource("HUMAN", "ana@example.org")
    wrong = mlflow.log_feedback(trace_id=first, name="good", value="1e3", rationale="0o17", metadata={"k": "1"}, source=human)
    mlflow.override_feedback(trace_id=first, assessment_id=wrong.assessment_id, value=0.5, rationale="weil\n\nes so ist: ü")
    mlflow.log_feedback(trace_id=first, name="kinds", value={"a": [1.5, 2, True, "no"], "b": "null"})
    mlflow.log_feedback(trace_id=first, name="whole", value=3)
    mlflow.log_feedback(trace_id=first, name="no", value=False)
    mlflow.log_feedback(trace_id=first, name="failed", error=ValueError("kaputt"))
    mlflow.log_expectation(trace_id=first, name="wanted", value={"z": [1, "2"]}, span_id=mlflow.get_trace(first).data.spans[0].span_id)
    mlflow.log_expectation(trace_id=first, name="number", value=7)
    with mlflow.start_run(run_name="of traces") as run:
        ask("in a run")
        inside = last()
    with mlflow.start_span("failed") as span:
        span.set_inputs({"x": "y" * 3000})
        span.set_outputs(Attachment(content_type="image/png", content_bytes=b"not really"))
        span.set_status("ERROR")
    # What a file store can't keep.
    if not uri.startswith("file:"):
        ask("linked")
        client.link_traces_to_run([last()], run.info.run_id)
        prompt = mlflow.genai.register_prompt("greeting", "Hallo {{name}}")
        client.link_prompt_versions_to_trace([prompt], inside)


if __name__ == "__main__":
    main(*sys.argv[1:])
