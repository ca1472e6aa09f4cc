"""What stock clients of several releases do, in an environment of each: tests/mlflow/test_mlflow_clients.py runs them."""

import os
import uuid

import mlflow
import pytest


@pytest.fixture(autouse=True)
def tracking():
    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)
    return uri


@pytest.fixture
def unique():
    return uuid.uuid4().hex[:8]


@pytest.fixture
def experiment(unique):
    experiment = mlflow.set_experiment(f"exp-{unique}")
    yield experiment
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client():
    return mlflow.MlflowClient()
