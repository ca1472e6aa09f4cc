"""From log_model to load_model, with the stock client."""

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import infer_signature

from conftest import http

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def trained():
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x = x.iloc[:, :4].astype(np.float32)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), x


def same(model, trained):
    fitted, x = trained
    assert list(model.predict(x)[:20]) == list(fitted.predict(x)[:20])


def test_an_sklearn_model_is_logged_registered_and_loaded(client, experiment, trained):
    fitted, x = trained
    with mlflow.start_run() as run:
        mlflow.log_params({"kind": "logistic"})
        mlflow.log_metric("auc", 0.9)
        info = mlflow.sklearn.log_model(
            fitted, name="model", signature=infer_signature(x, fitted.predict(x)), input_example=x.head(2),
            registered_model_name="tumour", serialization_format="cloudpickle",
        )
    assert int(info.registered_model_version) == 1
    client.set_registered_model_alias("tumour", "candidate", 1)
    for uri in [
        "models:/tumour/1", "models:/tumour@candidate", "models:/tumour/latest", f"models:/{info.model_id}",
        f"runs:/{run.info.run_id}/model",
    ]:
        same(mlflow.sklearn.load_model(uri), trained)
    same(mlflow.pyfunc.load_model("models:/tumour/1"), trained)

    version = client.get_model_version("tumour", "1")
    assert (version.status, version.run_id) == ("READY", run.info.run_id)
    assert version.aliases == ["candidate"]
    assert client.get_model_version_by_alias("tumour", "candidate").version == "1"
    model = client.get_registered_model("tumour")
    assert {alias: int(version) for alias, version in model.aliases.items()} == {"candidate": 1}
    found = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert [(v.name, v.version) for v in found] == [("tumour", "1")]
    assert [m.name for m in client.search_registered_models("name LIKE 'tum%'")] == ["tumour"]

    (logged,) = client.search_logged_models([experiment.experiment_id], "name = 'model'")
    assert (logged.model_id, str(logged.status)) == (info.model_id, "READY")
    assert logged.params == {"kind": "logistic"}
    outputs = client.get_run(run.info.run_id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [info.model_id]
    assert mlflow.models.get_model_info("models:/tumour/1").signature.inputs.input_names() == list(x.columns)


def test_an_onnx_model_is_logged_registered_and_loaded(client, experiment, trained):
    onnx = pytest.importorskip("onnx")
    skl2onnx = pytest.importorskip("skl2onnx")
    fitted, x = trained
    graph = skl2onnx.to_onnx(fitted, x.head(1).to_numpy(), options={"zipmap": False})
    onnx.checker.check_model(graph)
    array = x.to_numpy()
    with mlflow.start_run():
        info = mlflow.onnx.log_model(
            graph, name="onnx", signature=infer_signature(array, fitted.predict(x)), input_example=array[:2],
            registered_model_name="tumour-onnx",
        )
    assert int(info.registered_model_version) == 1
    loaded = mlflow.onnx.load_model("models:/tumour-onnx/1")
    assert loaded.SerializeToString() == graph.SerializeToString()


def test_a_version_keeps_its_files(server, client, experiment):
    with mlflow.start_run() as run:
        mlflow.log_text("one", "folder/MLmodel")
        client.create_registered_model("frozen", {"k": "v"}, "a description")
        version = client.create_model_version("frozen", f"runs:/{run.info.run_id}/folder", run.info.run_id)
        mlflow.log_text("two", "folder/MLmodel")
    uri = client.get_model_version_download_uri("frozen", version.version)
    assert mlflow.artifacts.load_text(uri + "/MLmodel") == "one"
    assert uri.startswith("mlflow-artifacts:/versions/")
    status, _, _ = http("PUT", uri.replace("mlflow-artifacts:", server + "/api/2.0/mlflow-artifacts/artifacts") + "/MLmodel", b"three")
    assert status == 400
    copied = client.copy_model_version("models:/frozen/1", "frozen-copy")
    assert mlflow.artifacts.load_text(f"models:/frozen-copy/{copied.version}/MLmodel") == "one"


def test_the_registry_is_edited(client, experiment):
    client.create_registered_model("edited")
    with pytest.raises(RestException, match="RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model("edited")
    run = client.create_run(experiment.experiment_id).info.run_id
    for _ in range(3):
        client.create_model_version("edited", f"runs:/{run}/x", run)
    client.update_model_version("edited", "1", "described")
    client.set_model_version_tag("edited", "1", "k", "v")
    assert client.get_model_version("edited", "1").description == "described"
    assert [v.version for v in client.search_model_versions("name = 'edited' AND tags.k = 'v'")] == ["1"]
    client.delete_model_version_tag("edited", "1", "k")
    client.set_registered_model_tag("edited", "k", "v")
    client.delete_registered_model_tag("edited", "k")
    client.set_registered_model_alias("edited", "champion", 3)
    client.delete_model_version("edited", "3")
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias("edited", "champion")
    assert client.create_model_version("edited", f"runs:/{run}/x", run).version == "4"
    client.rename_registered_model("edited", "edited again")
    order = ["version_number ASC"]
    assert [v.version for v in client.search_model_versions("name = 'edited again'", order_by=order)] == ["1", "2", "4"]
    client.delete_registered_model("edited again")
    with pytest.raises(RestException, match="not found"):
        client.get_registered_model("edited again")
    for alias in ("latest", "v1", "a b"):
        with pytest.raises(MlflowException):
            client.set_registered_model_alias("tumour", alias, 1)


def test_logged_models_are_edited(client, experiment):
    model = mlflow.create_external_model(name="elsewhere", params={"a": "1"}, tags={"t": "1"})
    client.set_logged_model_tags(model.model_id, {"u": "2"})
    client.delete_logged_model_tag(model.model_id, "t")
    client.log_model_params(model.model_id, {"b": "2"})
    found = client.get_logged_model(model.model_id)
    assert (found.params, found.tags.get("u"), "t" in found.tags) == ({"a": "1", "b": "2"}, "2", False)
    with mlflow.start_run():
        mlflow.log_metric("acc", 0.7, model_id=model.model_id)
    best = mlflow.search_logged_models(
        [experiment.experiment_id], "metrics.acc > 0.5", order_by=[{"field_name": "metrics.acc", "ascending": False}],
        output_format="list",
    )
    assert [m.model_id for m in best] == [model.model_id]
    client.delete_logged_model(model.model_id)
    with pytest.raises(RestException):
        client.get_logged_model(model.model_id)
