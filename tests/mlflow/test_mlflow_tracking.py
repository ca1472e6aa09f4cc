"""What a training script does, with the stock client."""

import math
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException


def test_a_run_is_read_as_it_was_logged(client, experiment, tmp_path):
    (tmp_path / "notes.txt").write_text("ünïcode\n")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a b.svg").write_text("<svg/>")
    with mlflow.start_run(run_name="first", tags={"team": "ops"}) as run:
        mlflow.log_params({"depth": 3, "rate": 0.1})
        mlflow.log_metrics({"auc": 0.5, "odd": math.nan, "big": math.inf}, step=0)
        mlflow.log_metric("auc", 0.75, step=1)
        mlflow.set_tags({"a": "1", "b": "2"})
        mlflow.log_artifact(str(tmp_path / "notes.txt"))
        mlflow.log_artifacts(str(tmp_path / "plots"), "plots")
        mlflow.log_dict({"x": [1]}, "deep/er/x.json")
        mlflow.log_text("", "empty.txt")
    found = client.get_run(run.info.run_id)
    assert (found.info.run_name, found.info.status, found.info.lifecycle_stage) == ("first", "FINISHED", "active")
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"depth": "3", "rate": "0.1"}
    assert found.data.metrics["auc"] == 0.75
    assert math.isnan(found.data.metrics["odd"])
    assert found.data.metrics["big"] > 1e308
    assert {k: found.data.tags[k] for k in ("a", "b", "team", "mlflow.runName")} == {
        "a": "1", "b": "2", "team": "ops", "mlflow.runName": "first",
    }
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "auc")] == [(0, 0.5), (1, 0.75)]
    listed = {f.path: (f.is_dir, f.file_size) for f in client.list_artifacts(run.info.run_id)}
    assert listed == {"deep": (True, None), "empty.txt": (False, 0), "notes.txt": (False, 10), "plots": (True, None)}
    assert [f.path for f in client.list_artifacts(run.info.run_id, "plots")] == ["plots/a b.svg"]
    assert client.list_artifacts(run.info.run_id, "notes.txt") == []
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes.txt") == "ünïcode\n"
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (folder / "plots" / "a b.svg").read_text() == "<svg/>"


def test_a_param_is_written_once(experiment):
    with mlflow.start_run():
        mlflow.log_param("p", 1)
        mlflow.log_param("p", 1)
        with pytest.raises(MlflowException, match="Changing param values is not allowed"):
            mlflow.log_param("p", 2)


def test_a_batch_is_logged_entirely_or_not_at_all(client, experiment):
    run = client.create_run(experiment.experiment_id).info.run_id
    client.log_batch(run, [Metric("m", i / 1000, i, i) for i in range(1000)])
    client.log_batch(run, params=[Param("p", "1")], tags=[RunTag("t", "1")])
    assert len(client.get_metric_history(run, "m")) == 1000
    with pytest.raises(MlflowException):
        client.log_batch(run, [Metric("n", 1, 0, 0)], [Param("p", "other")])
    assert "n" not in client.get_run(run).data.metrics


def test_runs_are_searched_by_what_they_logged(client, experiment):
    for i in range(5):
        with mlflow.start_run(run_name=f"run {i}"):
            mlflow.log_metric("auc", i / 10)
            mlflow.log_param("kind", "even" if i % 2 == 0 else "odd")
            mlflow.set_tag("number", str(i))

    def names(text="", **kwargs):
        found = client.search_runs([experiment.experiment_id], text, **kwargs)
        return [run.info.run_name for run in found]

    assert names("metrics.auc > 0.15 and params.kind = 'even'", order_by=["metrics.auc ASC"]) == ["run 2", "run 4"]
    assert names("attributes.run_name LIKE '%3'") == ["run 3"]
    assert names("status = 'FINISHED'", order_by=["tags.number DESC"], max_results=2) == ["run 4", "run 3"]
    assert names("tags.nothing IS NULL", order_by=["start_time ASC"])[0] == "run 0"
    page = client.search_runs([experiment.experiment_id], max_results=2, order_by=["metrics.auc"])
    assert [r.info.run_name for r in page] == ["run 0", "run 1"]
    page = client.search_runs(
        [experiment.experiment_id], max_results=2, order_by=["metrics.auc"], page_token=page.token
    )
    assert [r.info.run_name for r in page] == ["run 2", "run 3"]
    with pytest.raises(MlflowException, match="Invalid clause"):
        names("metrics.auc > 1 OR metrics.auc < 0")
    table = mlflow.search_runs(experiment_names=[experiment.name], filter_string="metrics.auc >= 0.4")
    assert list(table["params.kind"]) == ["even"]


def test_datasets_are_inputs_of_a_run(client, experiment):
    import pandas

    data = mlflow.data.from_pandas(pandas.DataFrame({"x": [1, 2], "y": [0, 1]}), name="flights", targets="y")
    with mlflow.start_run() as run:
        mlflow.log_input(data, context="training", tags={"split": "1"})
        mlflow.log_input(data, context="training")
    (found,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("flights", data.digest)
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training", "split": "1"}
    by_data = client.search_runs([experiment.experiment_id], "dataset.name = 'flights' AND dataset.context = 'training'")
    assert [r.info.run_id for r in by_data] == [run.info.run_id]


def test_what_was_deleted_can_be_restored(client, experiment):
    run = client.create_run(experiment.experiment_id).info.run_id
    client.delete_run(run)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        client.log_metric(run, "m", 1)
    assert client.search_runs([experiment.experiment_id]) == []
    client.restore_run(run)
    client.log_metric(run, "m", 1)
    client.delete_experiment(experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).lifecycle_stage == "deleted"
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    client.restore_experiment(experiment.experiment_id)
    client.rename_experiment(experiment.experiment_id, experiment.name + " renamed")
    assert client.get_experiment_by_name(experiment.name) is None
    client.set_experiment_tag(experiment.experiment_id, "k", "v")
    found = client.search_experiments(filter_string="tags.k = 'v'")
    assert [e.experiment_id for e in found] == [experiment.experiment_id]


def test_errors_carry_mlflows_codes(client, experiment):
    for call, code in [
        (lambda: client.get_run("0" * 32), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: client.get_experiment("999999"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: client.get_experiment("abc"), "INVALID_PARAMETER_VALUE"),
        (lambda: client.create_experiment(experiment.name), "RESOURCE_ALREADY_EXISTS"),
        (lambda: client.get_registered_model("nothing"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: client.search_experiments(filter_string="nothing = 1"), "INVALID_PARAMETER_VALUE"),
        (lambda: client.delete_tag(client.create_run(experiment.experiment_id).info.run_id, "t"), "RESOURCE_DOES_NOT_EXIST"),
    ]:
        with pytest.raises(RestException) as raised:
            call()
        assert raised.value.error_code == code, raised.value
