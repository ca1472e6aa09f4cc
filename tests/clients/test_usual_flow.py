"""What a data scientist does with MLflow from morning to night; for clients from 2.22 to 3.18, against MLFLOW_TRACKING_URI."""

import pathlib
import time

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import infer_signature
from packaging.version import Version
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

OLD = Version(mlflow.__version__).major < 3
NEW = pytest.mark.skipif(OLD, reason="MLflow 3 has it")


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True, as_frame=True)
    return x, y, LogisticRegression(max_iter=300).fit(x, y)


def log_model(model, x, **more):
    named = {"artifact_path": "model"} if OLD else {"name": "model"}
    if Version(mlflow.__version__) >= Version("3.10"):
        named["serialization_format"] = "cloudpickle"
    return mlflow.sklearn.log_model(model, **named, signature=infer_signature(x, model.predict(x)), input_example=x.head(2), **more)


def test_experiments(client, unique):
    eid = client.create_experiment(f"e-{unique}", tags={"team": "a"})
    assert client.get_experiment(eid).tags["team"] == "a"
    client.set_experiment_tag(eid, "k", "v")
    assert [e.experiment_id for e in client.search_experiments(filter_string=f"name = 'e-{unique}' AND tags.k = 'v'")] == [eid]
    client.rename_experiment(eid, f"f-{unique}")
    assert client.get_experiment_by_name(f"f-{unique}").experiment_id == eid
    client.delete_experiment(eid)
    assert eid in [e.experiment_id for e in client.search_experiments(view_type=ViewType.DELETED_ONLY)]
    with pytest.raises(MlflowException):
        mlflow.set_experiment(f"f-{unique}")
    client.restore_experiment(eid)
    with pytest.raises(RestException, match="RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(f"f-{unique}")


def test_a_run(client, experiment, tmp_path):
    with mlflow.start_run(run_name="first", description="what", tags={"t": "1"}) as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({f"p{i}": i for i in range(120)})
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"acc": 0.9, "inf": float("inf"), "nan": float("nan")}, step=3)
        mlflow.set_tags({"a": "b", "long": "x" * 4000})
        with mlflow.start_run(nested=True, run_name="child") as child:
            mlflow.log_metric("loss", 7)
        with pytest.raises(MlflowException, match="[Cc]hang"):
            mlflow.log_param("lr", 0.2)
    rid = run.info.run_id
    client.log_batch(
        rid, [Metric("m", float(i), 1700000000000 + i, i) for i in range(500)], [Param("q", "1")], [RunTag("r", "s")]
    )
    found = client.get_run(rid)
    assert found.info.status == "FINISHED" and found.info.run_name == "first" and found.info.end_time >= found.info.start_time
    assert len(found.data.params) == 122 and found.data.params["lr"] == "0.1"
    assert np.isnan(found.data.metrics["nan"]) and found.data.metrics["inf"] > 1e300
    assert found.data.tags["mlflow.note.content"] == "what" and len(found.data.tags["long"]) == 4000
    assert [m.step for m in client.get_metric_history(rid, "loss")] == list(range(20))
    assert len(client.get_metric_history(rid, "m")) == 500
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == rid
    assert client.get_parent_run(child.info.run_id).info.run_id == rid
    client.update_run(rid, name="renamed")
    client.delete_tag(rid, "a")
    assert client.get_run(rid).info.run_name == "renamed" and "a" not in client.get_run(rid).data.tags
    with mlflow.start_run(run_id=rid):
        mlflow.log_metric("acc", 0.95, step=4)
    assert client.get_run(rid).data.metrics["acc"] == 0.95
    with pytest.raises(ValueError), mlflow.start_run() as broken:
        raise ValueError
    assert client.get_run(broken.info.run_id).info.status == "FAILED"
    client.delete_run(broken.info.run_id)
    assert client.get_run(broken.info.run_id).info.lifecycle_stage == "deleted"
    client.restore_run(broken.info.run_id)


def test_asynchronous_logging(client, experiment):
    with mlflow.start_run() as run:
        for step in range(200):
            mlflow.log_metric("loss", step, step=step, synchronous=False)
        mlflow.log_params({"a": 1}, synchronous=False)
        mlflow.set_tag("t", "u", synchronous=False)
        mlflow.flush_async_logging()
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 200
    found = client.get_run(run.info.run_id)
    assert found.data.params == {"a": "1"} and found.data.tags["t"] == "u"


def test_artifacts(client, experiment, tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "one.txt").write_text("one")
    (tmp_path / "d" / "sub" / "two ü.txt").write_text("two")
    (tmp_path / "d" / "empty").write_text("")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(tmp_path / "d", "tree")
        mlflow.log_artifact(tmp_path / "d" / "one.txt")
        mlflow.log_text("hello", "texts/a.txt")
        mlflow.log_dict({"k": [1, 2]}, "x.json")
        mlflow.log_dict({"k": [1, 2]}, "x.yaml")
        mlflow.log_table({"q": ["a"], "n": [1]}, "t.json")
        mlflow.log_table({"q": ["b"], "n": [2]}, "t.json")
        mlflow.log_figure(Figure(), "f.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "i.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="dog", step=1)  # asynchronous
        mlflow.flush_artifact_async_logging()
        mlflow.log_input(mlflow.data.from_pandas(pd.DataFrame({"a": [1]}), name="ds"), context="training")
    rid = run.info.run_id
    assert {f.path for f in client.list_artifacts(rid)} == {"tree", "one.txt", "texts", "x.json", "x.yaml", "t.json", "f.png", "i.png", "images"}
    assert {f.path for f in client.list_artifacts(rid, "tree")} == {"tree/one.txt", "tree/sub", "tree/empty"}
    assert mlflow.artifacts.load_text(f"runs:/{rid}/tree/sub/two ü.txt") == "two"
    assert mlflow.artifacts.load_dict(f"runs:/{rid}/x.json") == {"k": [1, 2]}
    assert list(mlflow.load_table("t.json", run_ids=[rid])["n"]) == [1, 2]
    folder = mlflow.artifacts.download_artifacts(run_id=rid, artifact_path="tree", dst_path=str(tmp_path / "out"))
    assert sorted(p.name for p in pathlib.Path(folder).rglob("*") if p.is_file()) == ["empty", "one.txt", "two ü.txt"]
    (given,) = client.get_run(rid).inputs.dataset_inputs
    assert given.dataset.name == "ds" and given.tags[0].value == "training"
    client.log_text(rid, "again", "texts/a.txt")
    assert mlflow.artifacts.load_text(f"runs:/{rid}/texts/a.txt") == "again"


def test_search(client, experiment):
    for i in range(7):
        with mlflow.start_run(run_name=f"r{i}"):
            mlflow.log_param("i", i)
            mlflow.log_metric("acc", i / 10)
            mlflow.set_tag("even", str(i % 2 == 0))
    eid = [experiment.experiment_id]

    def names(filter_string="", **more):
        return [r.info.run_name for r in client.search_runs(eid, filter_string, **more)]

    assert names("metrics.acc > 0.3", order_by=["metrics.acc ASC"]) == ["r4", "r5", "r6"]
    assert names("params.i = '3'") == ["r3"]
    assert len(names("tags.even = 'True' AND attributes.status = 'FINISHED'")) == 4
    assert names("attributes.run_name LIKE 'r6%'") == ["r6"] and names("run_name ILIKE 'R5'") == ["r5"]
    assert names("start_time > 0", order_by=["start_time DESC"])[0] == "r6"
    page = client.search_runs(eid, max_results=3, order_by=["metrics.acc"])
    rest = client.search_runs(eid, max_results=3, order_by=["metrics.acc"], page_token=page.token)
    assert [r.info.run_name for r in [*page, *rest]] == ["r0", "r1", "r2", "r3", "r4", "r5"]
    frame = mlflow.search_runs(experiment_names=[experiment.name], order_by=["metrics.acc DESC"])
    assert list(frame["params.i"]) == ["6", "5", "4", "3", "2", "1", "0"] and frame["metrics.acc"].iloc[0] == 0.6
    with pytest.raises(MlflowException):
        names("metrics.acc >> 1")


def test_a_model_from_log_to_load(client, experiment, unique, iris):
    x, _, model = iris
    name = f"iris-{unique}"
    with mlflow.start_run() as run:
        info = log_model(model, x, registered_model_name=name)
    rid = run.info.run_id
    second = mlflow.register_model(info.model_uri, name, tags={"by": "hand"})
    third = mlflow.register_model(f"runs:/{rid}/model", name)
    assert [str(second.version), str(third.version)] == ["2", "3"]
    client.set_registered_model_alias(name, "champion", "2")
    client.update_registered_model(name, "The iris")
    client.update_model_version(name, "1", "First")
    client.set_model_version_tag(name, "1", "k", "v")
    client.set_registered_model_tag(name, "owner", "me")
    uris = [info.model_uri, f"runs:/{rid}/model", f"models:/{name}/1", f"models:/{name}@champion", f"models:/{name}/latest"]
    for uri in uris:
        assert list(mlflow.pyfunc.load_model(uri).predict(x)) == list(model.predict(x))
        assert isinstance(mlflow.sklearn.load_model(uri), LogisticRegression)
    assert mlflow.models.get_model_info(f"models:/{name}/1").signature == info.signature
    found = client.get_registered_model(name)
    assert found.description == "The iris" and found.tags == {"owner": "me"} and set(found.aliases) == {"champion"}
    assert {str(v.version) for v in client.search_model_versions(f"name = '{name}'")} == {"1", "2", "3"}
    assert [str(v.version) for v in client.search_model_versions(f"name = '{name}' AND tags.by = 'hand'")] == ["2"]
    assert [m.name for m in client.search_registered_models(f"name ILIKE '%{unique}' AND tags.owner = 'me'")] == [name]
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"
    copied = client.copy_model_version(f"models:/{name}/1", f"{name}-copy")
    assert list(mlflow.pyfunc.load_model(f"models:/{name}-copy/{copied.version}").predict(x)) == list(model.predict(x))
    client.delete_registered_model_alias(name, "champion")
    client.delete_model_version(name, "2")
    client.rename_registered_model(name, f"{name}-new")
    assert {str(v.version) for v in client.search_model_versions(f"name = '{name}-new'")} == {"1", "3"}
    client.delete_registered_model(f"{name}-new")
    with pytest.raises(MlflowException):
        client.get_registered_model(f"{name}-new")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_stages(client, experiment, unique, iris):
    x, _, model = iris
    name = f"staged-{unique}"
    with mlflow.start_run():
        log_model(model, x, registered_model_name=name)
    with mlflow.start_run():
        log_model(model, x, registered_model_name=name)
    assert client.transition_model_version_stage(name, "1", "Staging").current_stage == "Staging"
    client.transition_model_version_stage(name, "1", "production")
    client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
    assert client.get_model_version(name, "1").current_stage == "Archived"
    assert [str(v.version) for v in client.get_latest_versions(name, ["Production"])] == ["2"]
    assert {(v.current_stage, str(v.version)) for v in client.get_latest_versions(name)} == {("Archived", "1"), ("Production", "2")}
    assert list(mlflow.pyfunc.load_model(f"models:/{name}/Production").predict(x)) == list(model.predict(x))
    with pytest.raises(MlflowException):
        client.transition_model_version_stage(name, "2", "Nonsense")


@NEW
def test_logged_models(client, experiment, iris):
    x, y, model = iris
    with mlflow.start_run() as run:
        mlflow.log_param("c", 1)
        info = log_model(model, x)
        data = mlflow.data.from_pandas(x.assign(y=y), targets="y", name="train")
        mlflow.log_metric("acc", 0.9, model_id=info.model_id, dataset=data)
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.source_run_id == run.info.run_id and logged.params == {"c": "1"}
    (metric,) = logged.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("acc", 0.9, "train")
    mlflow.set_logged_model_tags(info.model_id, {"k": "v"})
    found = mlflow.search_logged_models(
        [experiment.experiment_id], "metrics.acc > 0.8 AND tags.k = 'v'", datasets=[{"dataset_name": "train", "dataset_digest": data.digest}],
        order_by=[{"field_name": "metrics.acc", "ascending": False, "dataset_name": "train"}], output_format="list",
    )  # fmt: skip
    assert [m.model_id for m in found] == [info.model_id]
    # `datasets=[{"dataset_name": "train"}]` alone finds it too, as MLflow documents; stock 3.17 and 3.18 find nothing.
    own = mlflow.initialize_logged_model(name="own2", params={"a": "1"})
    mlflow.finalize_logged_model(own.model_id, "FAILED")
    assert str(mlflow.get_logged_model(own.model_id).status) == "FAILED"


@NEW
def test_prompts(unique):
    name = f"prompt-{unique}"
    mlflow.genai.register_prompt(name, "Say {{what}}", commit_message="one", tags={"a": "b"})
    mlflow.genai.register_prompt(name, [{"role": "user", "content": "Say {{what}}"}])
    mlflow.genai.set_prompt_alias(name, "live", 1)
    assert mlflow.genai.load_prompt(f"prompts:/{name}@live").format(what="x") == "Say x"
    assert mlflow.genai.load_prompt(f"prompts:/{name}/2").format(what="x")[0]["content"] == "Say x"
    assert [p.name for p in mlflow.genai.search_prompts(f"name = '{name}'")] == [name]
    assert not [m for m in mlflow.MlflowClient().search_registered_models() if m.name == name]
    mlflow.genai.delete_prompt_alias(name, "live")


def test_system_metrics(client, experiment):
    mlflow.set_system_metrics_sampling_interval(0.2)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(log_system_metrics=True) as run:
        for _ in range(100):
            if any(key.startswith("system/") for key in client.get_run(run.info.run_id).data.metrics):
                break
            time.sleep(0.1)
        else:
            raise AssertionError("no system metric came within ten seconds")
