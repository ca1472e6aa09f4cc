"""PyTorch and TensorFlow with the stock client. Their wheels are too large for CI: `make test-big` installs them and runs this."""

import importlib.util
import os

import mlflow
import pytest

MISSING = [name for name in ("torch", "lightning", "tensorflow", "keras") if not importlib.util.find_spec(name)]
# Nothing large is imported before this is known. Where the file is asked for by name, a skipped test would hide that it ran nothing.
if MISSING:
    reason = f"{', '.join(MISSING)} not installed here (6 GB): `make test-big` makes an environment and runs these tests in it"
    if os.environ.get("LOCKGATE_TEST_BIG"):
        raise ModuleNotFoundError(reason)
    pytest.skip(reason, allow_module_level=True)

import numpy as np  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402

EPOCHS = 4


@pytest.fixture(scope="module")
def rows():
    """Rows whose target is a line over their features."""
    made = np.random.default_rng(0)
    x = made.normal(size=(64, 3)).astype(np.float32)
    return x, (x @ np.array([[1.0], [-2.0], [0.5]], dtype=np.float32)) + 0.1


@pytest.fixture(autouse=True)
def quiet_after():
    yield
    for flavor in ("pytorch", "tensorflow", "keras"):
        getattr(mlflow, flavor).autolog(disable=True)
    while mlflow.active_run():
        mlflow.end_run()


def loads_alike(client, run_id, name, load, predict, x, expected, path="model"):
    """By its run, its id, a version and an alias: as it was logged, and as a function. The name has one version."""
    client.set_registered_model_alias(name, "champion", "1")
    (output,) = client.get_run(run_id).outputs.model_outputs
    uris = [f"runs:/{run_id}/{path}", f"models:/{output.model_id}", f"models:/{name}/1", f"models:/{name}@champion"]
    for uri in uris:
        np.testing.assert_allclose(predict(load(uri)), expected, rtol=1e-5, atol=1e-6, err_msg=uri)
        np.testing.assert_allclose(np.asarray(mlflow.pyfunc.load_model(uri).predict(x)), expected, rtol=1e-5, atol=1e-6, err_msg=uri)
    assert client.get_model_version(name, "1").run_id == run_id
    assert str(client.get_logged_model(output.model_id).status) == "READY"


def steps(client, run_id, key):
    """A metric's values by their steps, of which each is there once."""
    history = client.get_metric_history(run_id, key)
    found = {metric.step: metric.value for metric in history}
    assert len(found) == len(history)
    return found


# PyTorch


@pytest.fixture
def net():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def torch_predicts(x):
    import torch

    def predict(net):
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    return predict


@pytest.mark.parametrize("form", ["pickle", "pt2"])
def test_a_pytorch_model_is_logged_registered_and_loaded(client, experiment, rows, net, form):
    import torch

    x, y = rows
    predict = torch_predicts(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    with mlflow.start_run() as run:
        for epoch in range(EPOCHS):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
            mlflow.log_metric("loss", losses[-1], step=epoch)
        expected = predict(net)
        mlflow.pytorch.log_model(
            net, name="model", signature=infer_signature(x, expected), registered_model_name=f"torch-{form}",
            serialization_format=form, input_example=x[:2], pip_requirements=["torch"],
        )  # fmt: skip
    assert steps(client, run.info.run_id, "loss") == dict(enumerate(losses))
    loads_alike(client, run.info.run_id, f"torch-{form}", mlflow.pytorch.load_model, predict, x, expected)


def test_a_state_dict_is_logged_and_loaded(experiment, net):
    import torch

    with mlflow.start_run() as run:
        mlflow.pytorch.log_state_dict(net.state_dict(), artifact_path="checkpoint")
    found = mlflow.pytorch.load_state_dict(f"runs:/{run.info.run_id}/checkpoint")
    assert list(found) == list(net.state_dict())
    assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())


def test_pytorch_autolog_with_lightning(client, experiment, rows, net, tmp_path):
    import lightning
    import torch

    x, y = rows
    seen = []

    class Line(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, batch):
            return self.net(batch)

        def training_step(self, batch, _):
            loss = torch.nn.functional.mse_loss(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def on_train_epoch_end(self):
            seen.append(float(self.trainer.callback_metrics["train_loss"]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    mlflow.pytorch.autolog(checkpoint=False, registered_model_name="torch-autolog")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=16)
    model = Line()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=True, default_root_dir=tmp_path,
    )  # fmt: skip
    with mlflow.start_run() as run:
        trainer.fit(model, data)
    found = client.get_run(run.info.run_id)
    assert (found.data.params["optimizer_name"], found.data.params["lr"]) == ("Adam", "0.01")
    assert found.info.status == "FINISHED"
    logged = steps(client, run.info.run_id, "train_loss")
    assert list(logged) == list(range(EPOCHS))
    np.testing.assert_allclose(list(logged.values()), seen, rtol=1e-6)
    assert "model_summary.txt" in {item.path for item in client.list_artifacts(run.info.run_id)}
    expected = torch_predicts(x)(model)
    loaded = mlflow.pytorch.load_model("models:/torch-autolog/1")
    np.testing.assert_allclose(torch_predicts(x)(loaded), expected, rtol=1e-6)


# TensorFlow and Keras


@pytest.fixture
def dense():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    return model


def keras_predicts(x):
    return lambda model: model.predict(x, verbose=0)


@pytest.mark.parametrize("flavor", ["tensorflow", "keras"])
def test_a_keras_model_is_logged_registered_and_loaded(client, experiment, rows, dense, flavor):
    x, y = rows
    api = getattr(mlflow, flavor)
    dense.fit(x, y, epochs=1, verbose=0)
    expected = keras_predicts(x)(dense)
    # mlflow.keras 3.17 writes an example before it makes the folder for it.
    more = {"input_example": x[:2]} if flavor == "tensorflow" else {}
    with mlflow.start_run() as run:
        api.log_model(
            dense, name="model", signature=infer_signature(x, expected), registered_model_name=f"keras-{flavor}",
            pip_requirements=["keras", "tensorflow-cpu"], **more,
        )  # fmt: skip
    loads_alike(client, run.info.run_id, f"keras-{flavor}", api.load_model, keras_predicts(x), x, expected)


def test_a_tensorflow_module_is_logged_registered_and_loaded(client, experiment, rows):
    import tensorflow as tf

    x, _ = rows

    class Scaled(tf.Module):
        def __init__(self):
            super().__init__()
            self.factor = tf.Variable([[1.0], [2.0], [3.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
        def __call__(self, batch):
            return batch @ self.factor

    module = Scaled()
    expected = module(x).numpy()
    with mlflow.start_run() as run:
        mlflow.tensorflow.log_model(
            module, name="model", signature=infer_signature(x, expected), registered_model_name="tf-module",
            pip_requirements=["tensorflow-cpu"],
        )  # fmt: skip
    loads_alike(
        client, run.info.run_id, "tf-module", mlflow.tensorflow.load_model, lambda loaded: loaded(tf.constant(x)).numpy(), x, expected
    )


@pytest.mark.parametrize("flavor", ["tensorflow", "keras"])
def test_keras_autolog(client, experiment, rows, dense, flavor):
    x, y = rows
    api = getattr(mlflow, flavor)
    name = f"autolog-{flavor}"
    api.autolog(registered_model_name=name, log_input_examples=True)
    with mlflow.start_run() as run:
        fitted = dense.fit(x, y, epochs=EPOCHS, batch_size=16, validation_data=(x[:16], y[:16]), verbose=0)
    api.autolog(disable=True)
    found = client.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["epochs"] == str(EPOCHS) and found.data.params["batch_size"] == "16"
    assert found.inputs.dataset_inputs
    keys = ["loss", "mae", "val_loss", "val_mae"]
    if flavor == "keras":
        # mlflow.keras gives validation's metrics a name of its own and no step.
        for key in (keys.pop(), keys.pop()):
            history = client.get_metric_history(run.info.run_id, key.replace("val_", "validation_"))
            np.testing.assert_allclose(sorted(metric.value for metric in history), sorted(fitted.history[key]), rtol=1e-5, err_msg=key)
    for key in keys:
        logged = steps(client, run.info.run_id, key)
        assert list(logged) == list(range(EPOCHS)), (key, logged)
        np.testing.assert_allclose(list(logged.values()), fitted.history[key], rtol=1e-5, err_msg=key)
    assert "model_summary.txt" in {item.path for item in client.list_artifacts(run.info.run_id)}
    loads_alike(client, run.info.run_id, name, api.load_model, keras_predicts(x), x, keras_predicts(x)(dense))
