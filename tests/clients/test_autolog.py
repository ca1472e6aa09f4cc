"""Autologging and evaluation with scikit-learn, XGBoost and LightGBM, against the server of MLFLOW_TRACKING_URI."""

import lightgbm
import mlflow
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x = x.iloc[:, :6]
    return train_test_split(x, y, test_size=0.3, random_state=0)


@pytest.fixture(autouse=True)
def quiet_after():
    yield
    for flavor in ("sklearn", "xgboost", "lightgbm"):
        getattr(mlflow, flavor).autolog(disable=True)
    mlflow.autolog(disable=True)


def files(client, run_id, path=None):
    found = []
    for item in client.list_artifacts(run_id, path):
        found += files(client, run_id, item.path) if item.is_dir else [item.path]
    return found


def loads_alike(run_id, expected, rows, name, load=mlflow.pyfunc.load_model):
    """By its run, its id, a version and an alias."""
    client = mlflow.MlflowClient()
    logged = client.get_run(run_id).outputs.model_outputs
    assert len(logged) == 1
    version = mlflow.register_model(f"runs:/{run_id}/model", name)
    client.set_registered_model_alias(name, "champion", version.version)
    uris = [
        f"runs:/{run_id}/model", f"models:/{logged[0].model_id}", f"models:/{name}/{version.version}", f"models:/{name}@champion",
        f"models:/{name}/latest",
    ]  # fmt: skip
    for uri in uris:
        np.testing.assert_allclose(load(uri).predict(rows), expected, rtol=1e-6)
    return client.get_logged_model(logged[0].model_id)


# First: `mlflow.autolog()` leaves alone what was configured by its flavor's own `autolog`.
def test_the_universal_autolog(client, experiment):
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    mlflow.autolog()
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(x, y)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["n_estimators"] == "5" and "training_r2_score" in run.data.metrics
    loaded = mlflow.sklearn.load_model(f"models:/{mlflow.last_logged_model().model_id}")
    np.testing.assert_allclose(loaded.predict(x), model.predict(x))


def test_sklearn_autolog(client, experiment, unique, cancer):
    train, test, y, _ = cancer
    mlflow.sklearn.autolog(log_input_examples=True)
    with mlflow.start_run() as run:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(train, y)
    found = client.get_run(run.info.run_id)
    assert found.data.params["logisticregression__C"] == "0.5"
    assert found.data.metrics["training_accuracy_score"] > 0.8
    assert found.data.tags["estimator_name"] == "Pipeline"
    assert [i.dataset.name for i in found.inputs.dataset_inputs] and found.info.status == "FINISHED"
    names = files(client, run.info.run_id)
    assert "estimator.html" in names and "training_confusion_matrix.png" in names
    logged = loads_alike(run.info.run_id, model.predict(test), test, f"sk-{unique}")
    assert logged.params["logisticregression__C"] == "0.5"
    assert {m.key for m in logged.metrics} >= {"training_accuracy_score"}
    assert mlflow.models.get_model_info(f"models:/sk-{unique}/1").signature.inputs.input_names() == list(train.columns)


def test_sklearn_grid_search_autolog(client, experiment, cancer):
    train, _, y, _ = cancer
    mlflow.sklearn.autolog(max_tuning_runs=3)
    with mlflow.start_run() as run:
        GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.01, 0.1, 1, 10]}, cv=3).fit(
            train, y
        )
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert len(children) == 3
    assert all(child.info.status == "FINISHED" and "mean_test_score" in child.data.metrics for child in children)
    found = client.get_run(run.info.run_id)
    assert "best_logisticregression__C" in found.data.params and "best_cv_score" in found.data.metrics
    assert "cv_results.csv" in files(client, run.info.run_id)


def test_xgboost_autolog(client, experiment, unique, cancer):
    train, test, y, y_test = cancer
    mlflow.xgboost.autolog()
    with mlflow.start_run() as run:
        data = xgboost.DMatrix(train, label=y)
        booster = xgboost.train(
            {"objective": "binary:logistic", "eta": 0.2, "max_depth": 3, "eval_metric": "logloss"}, data, num_boost_round=30,
            evals=[(data, "train"), (xgboost.DMatrix(test, label=y_test), "valid")], early_stopping_rounds=5, verbose_eval=False,
        )  # fmt: skip
    found = client.get_run(run.info.run_id)
    assert (found.data.params["eta"], found.data.params["num_boost_round"]) == ("0.2", "30")
    assert {"train-logloss", "valid-logloss", "best_iteration", "stopped_iteration"} <= set(found.data.metrics)
    history = client.get_metric_history(run.info.run_id, "valid-logloss")
    assert len(history) >= 5 and len({m.step for m in history}) >= 5
    assert {"feature_importance_weight.json", "feature_importance_weight.png"} <= set(files(client, run.info.run_id))
    loads_alike(run.info.run_id, booster.predict(xgboost.DMatrix(test)), test, f"xgb-{unique}")


def test_xgboost_sklearn_api_autolog(client, experiment, unique, cancer):
    train, test, y, _ = cancer
    mlflow.xgboost.autolog(model_format="json", registered_model_name=f"xgbc-{unique}")
    with mlflow.start_run() as run:
        model = xgboost.XGBClassifier(n_estimators=10, max_depth=2).fit(train, y)
    assert client.get_run(run.info.run_id).data.params["max_depth"] == "2"
    loaded = mlflow.xgboost.load_model(f"models:/xgbc-{unique}/1")
    assert list(loaded.predict(test)) == list(model.predict(test))


def test_lightgbm_autolog(client, experiment, unique, cancer):
    train, test, y, y_test = cancer
    mlflow.lightgbm.autolog()
    with mlflow.start_run() as run:
        data = lightgbm.Dataset(train, label=y)
        booster = lightgbm.train(
            {"objective": "binary", "num_leaves": 7, "verbose": -1}, data, num_boost_round=20,
            valid_sets=[lightgbm.Dataset(test, label=y_test, reference=data)], valid_names=["valid"],
        )  # fmt: skip
    found = client.get_run(run.info.run_id)
    assert found.data.params["num_leaves"] == "7"
    assert "valid-binary_logloss" in found.data.metrics
    assert len(client.get_metric_history(run.info.run_id, "valid-binary_logloss")) == 20
    assert "feature_importance_gain.json" in files(client, run.info.run_id)
    loads_alike(run.info.run_id, booster.predict(test), test, f"lgb-{unique}")


def test_a_classifier_is_evaluated(client, experiment, cancer):
    train, test, y, y_test = cancer
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, y)
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(model, name="model", input_example=train.head(2), serialization_format="cloudpickle")
        data = test.assign(label=y_test)
        result = mlflow.models.evaluate(
            info.model_uri, data, targets="label", model_type="classifier", evaluators="default",
            evaluator_config={"log_model_explainability": False},
        )  # fmt: skip
    assert result.metrics["accuracy_score"] > 0.8
    found = client.get_run(run.info.run_id)
    assert abs(found.data.metrics["roc_auc"] - result.metrics["roc_auc"]) < 1e-12
    names = files(client, run.info.run_id)
    assert any("confusion_matrix" in name for name in names) and any("roc_curve" in name for name in names)
    assert result.artifacts["confusion_matrix"].content is not None
    logged = client.get_logged_model(info.model_id)
    assert "accuracy_score" in {m.key for m in logged.metrics}
    best = mlflow.search_logged_models([experiment.experiment_id], "metrics.accuracy_score > 0.5", output_format="list")
    assert [m.model_id for m in best] == [info.model_id]


@pytest.mark.parametrize("reference", ["/1", "@champion"])
def test_a_registered_model_is_evaluated(client, experiment, unique, cancer, reference):
    train, test, y, y_test = cancer
    name = f"judged-{unique}"
    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c)).fit(train, y) for c in (1, 1e-4)]
    with mlflow.start_run():
        for model in models:
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=name, input_example=train.head(2), serialization_format="cloudpickle",
                pip_requirements=["scikit-learn"],
            )  # fmt: skip
    client.set_registered_model_alias(name, "champion", "1")

    def mistakes(predictions, targets, metrics):
        wrong = (predictions != targets).astype(float)
        return mlflow.metrics.MetricValue(scores=list(wrong), aggregate_results={"sum": wrong.sum()})

    uri = f"models:/{name}{reference}"
    model_id = mlflow.models.get_model_info(uri).model_id
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(
            uri, test.assign(label=y_test), targets="label", model_type="classifier", evaluators="default", model_id=model_id,
            extra_metrics=[mlflow.metrics.make_metric(eval_fn=mistakes, greater_is_better=False, name="mistakes")],
            evaluator_config={"log_model_explainability": False},
        )  # fmt: skip
    predicted = models[0].predict(test)
    assert result.metrics["accuracy_score"] == (predicted == y_test).mean() != (models[1].predict(test) == y_test).mean()
    # All is on the server: metrics of the run and of the version's model, the table row by row, the plots.
    found = client.get_run(run.info.run_id)
    assert {key: found.data.metrics[key] for key in result.metrics} == result.metrics
    assert found.data.metrics["mistakes/sum"] == (predicted != y_test).sum()
    table = mlflow.load_table("eval_results_table.json", run_ids=[run.info.run_id])
    assert (len(table), list(table["label"])) == (len(test), list(y_test))
    assert list(table["mistakes/score"]) == list((predicted != y_test).astype(float))
    assert set(files(client, run.info.run_id)) >= {item.uri.split("/artifacts/")[-1] for item in result.artifacts.values()}
    logged = client.get_logged_model(model_id)
    assert {m.key: m.value for m in logged.metrics}["accuracy_score"] == result.metrics["accuracy_score"]


def test_a_static_table_is_evaluated_and_validated(client, experiment, cancer):
    train, test, y, y_test = cancer
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, y)
    data = mlflow.data.from_pandas(test.assign(label=y_test, p=model.predict(test)), targets="label", predictions="p", name="holdout")
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(data=data, model_type="classifier")
    mlflow.validate_evaluation_results(
        {"accuracy_score": mlflow.models.MetricThreshold(threshold=0.5, greater_is_better=True)}, result
    )
    found = client.get_run(run.info.run_id)
    assert [i.dataset.name for i in found.inputs.dataset_inputs] == ["holdout"]


def test_a_pyfunc_from_a_class(client, experiment, unique):
    class Adds(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            with open(context.artifacts["n"]) as file:
                self.n = int(file.read())

        def predict(self, context, model_input, params=None):
            return model_input["a"] + self.n

    import pandas as pd

    with mlflow.start_run() as run:
        mlflow.log_text("3", "numbers/n.txt")
        mlflow.pyfunc.log_model(
            name="model", python_model=Adds(), artifacts={"n": f"runs:/{run.info.run_id}/numbers/n.txt"}, registered_model_name=f"py-{unique}",
            input_example=pd.DataFrame({"a": [1.0]}),
        )  # fmt: skip
    assert list(mlflow.pyfunc.load_model(f"models:/py-{unique}/1").predict(pd.DataFrame({"a": [1.0, 2.0]}))) == [4.0, 5.0]
