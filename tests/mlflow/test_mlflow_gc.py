"""`lockgate db gc`: what stock's client deleted goes for good, and nothing else does."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time

import engines
import mlflow
import pytest
import requests
from engines import PROGRAM, Server
from mlflow.exceptions import MlflowException
from test_mlflow_s3 import PLACE, service  # noqa: F401

NOW = ["--older-than", "0d"]


def db(verb, *arguments):
    """Runs `lockgate db`; exit code, JSON output and what is said beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    done = subprocess.run([PROGRAM, "--json", "db", verb, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)
    assert "geheim" not in done.stdout + done.stderr, "a password is shown"
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


class Kept:
    """A server whose files look as old as they are told to."""

    def __init__(self, folder, blobs=None):
        self.options = [*(["--blobs", PLACE] if blobs else []), *engines.database()]
        self.server = Server(folder / "home", *self.options).start()
        self.place = ["--home", self.server.home, *self.options]
        self.folder = blobs or self.server.home / "blobs/blobs"
        self.client = mlflow.MlflowClient(self.server.address)

    def files(self):
        return {path.parent.name + path.name for path in self.folder.glob("*/*")}

    def age(self, days=2):
        for path in self.folder.glob("*/*"):
            then = time.time() - days * 86_400
            os.utime(path, (then, then))

    def gc(self, *arguments):
        """What went; afterwards all that is left is sound."""
        code, report, said = db("gc", *self.place, *arguments)
        assert code == 0, said
        self.sound()
        return report

    def refused(self, *arguments):
        """Why nothing went."""
        before = self.files(), self.ids()
        code, _, said = db("gc", *self.place, *arguments)
        assert code != 0 and (self.files(), self.ids()) == before
        return said

    def sound(self):
        code, found, said = db("check", *self.place, "--deep")
        assert (code, found["findings"]) == (0, []), (found, said)

    def experiments(self):
        return {one.experiment_id for one in self.client.search_experiments(view_type=3)}

    def ids(self):
        return {run.info.run_id for run in self.client.search_runs(list(self.experiments()), run_view_type=3)}

    def run(self, text, experiment="0", path="a.txt"):
        run = self.client.create_run(experiment).info
        self.client.log_metric(run.run_id, "loss", 0.5)
        self.client.log_param(run.run_id, "depth", 3)
        self.client.log_text(run.run_id, text, path)
        return run

    def sql(self, statement):
        """Changes the database behind the server's back."""
        if engines.ENGINE == "postgres":
            address = self.options[self.options.index("--database") + 1]
            engines.postgres().run("psql", "-d", address.rsplit("/", 1)[1], "-v", "ON_ERROR_STOP=1", "-c", statement)
        else:
            with sqlite3.connect(self.server.home / "lockgate.db") as connection:
                connection.execute(statement)
            connection.close()


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path)
    mlflow.set_tracking_uri(kept.server.address)
    yield kept
    kept.server.stop()


def gone(call, *arguments):
    with pytest.raises(MlflowException) as refused:
        call(*arguments)
    return refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("running", [True, False])
def test_a_deleted_experiment_goes_with_all_that_is_in_it_and_its_name_is_free(kept, running):
    experiment = kept.client.create_experiment("old", tags={"team": "vision"})
    mlflow.set_experiment(experiment_id=experiment)
    run, stays = kept.run("goes", experiment), kept.run("stays")
    kept.client.log_inputs(run.run_id, [mlflow.entities.DatasetInput(mlflow.entities.Dataset("d", "1", "local", "{}"))])
    model = kept.client.create_logged_model(experiment, "m", source_run_id=run.run_id)
    kept.client.log_model_artifact(model.model_id, __file__)
    with mlflow.start_span("question"):
        pass
    mlflow.flush_trace_async_logging()
    kept.client.delete_experiment(experiment)
    kept.age()
    if not running:
        kept.server.stop()
    code, wanted, said = db("gc", *kept.place, *NOW, "--dry-run")
    assert code == 0, said
    assert (wanted["experiments"], wanted["runs"], wanted["logged_models"], wanted["traces"], wanted["kept"]) == (1, 1, 1, 1, [])
    # The run's, the model's and the trace's, where the client uploads it; a dry run deletes nothing.
    there = {path: path.stat().st_size for path in kept.folder.glob("*/*")}
    assert wanted["blobs"] == len(there) - 1 in (2, 3) and wanted["bytes"] == sum(there.values()) - len("stays")
    went = kept.gc(*NOW)
    assert went == {**wanted, "dry_run": False}
    if not running:
        kept.server.start()
    assert gone(kept.client.get_experiment, experiment) and gone(kept.client.get_run, run.run_id)
    assert requests.get(f"{kept.server.address}/api/2.0/mlflow/logged-models/{model.model_id}?allow_deleted=true").status_code == 404
    again = kept.client.create_experiment("old")
    assert int(again) > int(experiment), "a number is used once"
    assert kept.client.get_experiment(again).tags == {} and kept.client.search_runs([again]) == []
    assert mlflow.artifacts.load_text(f"{stays.artifact_uri}/a.txt") == "stays"
    rest = kept.gc(*NOW)
    assert {name: rest[name] for name in went if name not in ("kept", "dry_run")} == dict.fromkeys((n for n in went if n not in ("kept", "dry_run")), 0)


@pytest.mark.parametrize("location", ["mlflow-artifacts:/", "mlflow-artifacts:/shared/", "mlflow-artifacts:/shared"])
def test_files_of_traces_go_with_their_experiment_alone_and_a_dry_run_says_so(kept, location):
    root = location.removeprefix("mlflow-artifacts:/")
    paths = []
    for name in ["goes", "stays"]:
        mlflow.set_experiment(experiment_id=kept.client.create_experiment(name, artifact_location=location))
        with mlflow.start_span("s"):
            pass
        mlflow.flush_trace_async_logging()
        trace = mlflow.get_last_active_trace_id()
        paths.append(f"{kept.server.address}/api/2.0/mlflow-artifacts/artifacts/{root.rstrip('/') + '/' if root else ''}traces/{trace}/artifacts/a.txt")
        assert requests.put(paths[-1], data=name.encode() * 9).status_code == 200
    kept.client.delete_experiment(kept.client.get_experiment_by_name("goes").experiment_id)
    kept.age()
    said, done = (kept.gc(*NOW, *dry) for dry in (["--dry-run"], []))
    assert {**said, "dry_run": False} == done and done["traces"] == 1 and done["blobs"] >= 1
    assert [requests.get(path).status_code for path in paths] == [404, 200]


def test_a_deleted_run_goes_and_bytes_that_others_share_stay(kept):
    first, second, third = kept.run("shared"), kept.run("shared"), kept.run("own")
    kept.client.set_tag(first.run_id, "t", "1")
    kept.client.delete_run(first.run_id)
    kept.client.delete_run(third.run_id)
    kept.age()
    assert kept.gc()["runs"] == 0, "thirty days are the rule"
    went = kept.gc(*NOW)
    assert (went["runs"], went["blobs"], went["bytes"]) == (2, 1, len("own"))
    assert kept.ids() == {second.run_id}
    assert mlflow.artifacts.load_text(f"{second.artifact_uri}/a.txt") == "shared"


def test_what_was_restored_in_time_stays(kept):
    run = kept.run("back")
    kept.client.delete_run(run.run_id)
    kept.client.restore_run(run.run_id)
    kept.age()
    assert kept.gc(*NOW)["runs"] == 0
    assert kept.client.get_run(run.run_id).data.metrics == {"loss": 0.5}


def test_a_run_whose_version_is_registered_stays_until_the_version_is_deleted(kept):
    run = kept.run("the bytes of a model", path="model/MLmodel")
    kept.client.create_registered_model("fraud")
    kept.client.create_model_version("fraud", f"{run.artifact_uri}/model", run.run_id)
    kept.client.delete_run(run.run_id)
    kept.age()
    went = kept.gc(*NOW)
    assert (went["runs"], went["blobs"]) == (0, 0)
    assert went["kept"] == [{"what": f"run {run.run_id}", "why": "version 1 of `fraud` was registered from it"}]
    uri = kept.client.get_model_version_download_uri("fraud", "1")
    assert mlflow.artifacts.load_text(f"{uri}/MLmodel") == "the bytes of a model"
    kept.client.delete_model_version("fraud", "1")
    assert kept.gc(*NOW)["version_files"] == 0, "its files are as young as the version"
    kept.sql("UPDATE artifacts SET updated = updated - 200000000 WHERE root LIKE 'versions/%'")
    kept.run("something else", path="b.txt")
    went = kept.gc(*NOW)
    assert (went["version_files"], went["blobs"], went["young"]) == (1, 1, 0)
    assert gone(kept.client.get_run, run.run_id)


def test_the_experiment_of_a_registered_model_stays(kept):
    experiment = kept.client.create_experiment("e")
    other, run = kept.run("other", experiment), kept.run("bytes", experiment, "model/MLmodel")
    kept.client.create_registered_model("fraud")
    kept.client.create_model_version("fraud", f"runs:/{run.run_id}/model", run.run_id)
    kept.client.delete_experiment(experiment)
    went = kept.gc(*NOW)
    assert (went["experiments"], went["runs"]) == (0, 1)
    assert {one["what"] for one in went["kept"]} == {f"experiment {experiment}", f"run {run.run_id}"}
    assert gone(kept.client.get_run, other.run_id)
    kept.client.restore_experiment(experiment)
    assert kept.client.get_run(run.run_id).info.lifecycle_stage == "active"


def test_named_ids_must_be_deleted_and_old_enough(kept):
    active, first, second = kept.run("a"), kept.run("b"), kept.run("c")
    experiment, model = kept.client.create_experiment("e"), kept.client.create_logged_model("0", "m")
    for run in (first, second):
        kept.client.delete_run(run.run_id)
    kept.age()
    for option, given in (("--run-ids", f"{first.run_id},{active.run_id}"), ("--experiment-ids", experiment), ("--logged-model-ids", model.model_id)):
        assert "not in the `deleted` lifecycle stage" in kept.refused(option, given)
    for option in ("--run-ids", "--experiment-ids", "--logged-model-ids"):
        assert "not found" in kept.refused(option, "12345")
    assert "not older than the required age" in kept.refused("--run-ids", first.run_id, "--older-than", "1d")
    assert "is no time" in kept.refused("--older-than", "soon")
    assert kept.gc("--run-ids", first.run_id)["runs"] == 1, "named, and nothing said of its age"
    assert kept.ids() == {active.run_id, second.run_id}
    kept.client.delete_experiment(experiment)
    kept.client.delete_logged_model(model.model_id)
    went = kept.gc("--experiment-ids", experiment, "--logged-model-ids", model.model_id)
    assert (went["experiments"], went["logged_models"], went["runs"]) == (1, 1, 0)


def test_a_deleted_logged_model_can_be_looked_at_until_it_goes(kept):
    model = kept.client.create_logged_model("0", "m", params={"depth": "3"}, tags={"k": "v"})
    kept.client.log_model_artifact(model.model_id, __file__)
    kept.client.delete_logged_model(model.model_id)
    route = f"{kept.server.address}/api/2.0/mlflow/logged-models/{model.model_id}"
    assert requests.get(route).status_code == 404
    found = requests.get(f"{route}?allow_deleted=true").json()["model"]
    assert found["info"]["name"] == "m" and found["info"]["tags"] == [{"key": "k", "value": "v"}] and found["data"]["params"] == [{"key": "depth", "value": "3"}]
    assert gone(kept.client.get_logged_model, model.model_id)
    assert kept.client.search_logged_models(["0"]) == []
    assert kept.client.search_logged_models(["0"], filter_string="name = 'm'") == []
    assert requests.delete(route).status_code == 404
    assert requests.patch(f"{route}/tags", json={"model_id": model.model_id, "tags": [{"key": "a", "value": "b"}]}).status_code == 404
    path = f"{kept.server.address}/api/2.0/mlflow-artifacts/artifacts/0/models/{model.model_id}/artifacts/{os.path.basename(__file__)}"
    assert requests.get(path).content == open(__file__, "rb").read()
    kept.age()
    went = kept.gc(*NOW)
    assert (went["logged_models"], went["blobs"]) == (1, 1)
    assert requests.get(f"{route}?allow_deleted=true").status_code == 404 and requests.get(path).status_code == 404


def test_young_bytes_stay_and_the_grace_may_be_short_only_without_a_server(kept):
    run = kept.run("young")
    kept.client.delete_artifacts(run.run_id) if hasattr(kept.client, "delete_artifacts") else kept.client.delete_run(run.run_id)
    went = kept.gc(*NOW)
    assert (went["blobs"], went["young"]) == (0, 1)
    assert "under an hour" in kept.refused(*NOW, "--grace", "59m")
    kept.server.stop()
    code, went, said = db("gc", *kept.place, *NOW, "--grace", "0s")
    if engines.ENGINE == "postgres":
        assert code == 1 and "under an hour" in said, "others may run"
    else:
        assert (code, went["blobs"]) == (0, 1)


def test_nothing_goes_where_the_place_has_another_owner_or_none(kept):
    run = kept.run("x")
    kept.client.delete_run(run.run_id)
    kept.age()
    owners = kept.server.home / "blobs/owners"
    [own] = owners.iterdir()
    (owners / ("0" * 32)).write_text("another database")
    said = kept.refused(*NOW)
    assert "another database" in said and "0" * 32 in said
    (owners / ("0" * 32)).unlink()
    own.rename(owners.with_name("aside"))
    assert "no mark" in kept.refused(*NOW)
    owners.with_name("aside").rename(own)
    assert kept.gc(*NOW)["blobs"] == 1


@pytest.mark.skipif(engines.ENGINE == "postgres", reason="its backups are pg_dump's")
def test_a_database_made_of_a_backup_is_another_owner(kept, tmp_path):
    kept.run("of both")
    assert db("backup", tmp_path / "copy.db", *kept.place)[0] == 0
    assert db("restore", tmp_path / "copy.db", "--home", tmp_path / "other")[0] == 0
    Server(tmp_path / "other", "--blobs", kept.server.home / "blobs").start().stop()
    kept.age()
    assert "another database" in kept.refused(*NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_only_the_server_s_user_may_do_it(kept):
    folder = kept.server.home / "blobs"
    os.chown(folder, 65534, -1)
    assert "run this as the user that runs the server" in kept.refused(*NOW)
    os.chown(folder, 0, -1)
    kept.gc(*NOW)


def test_nothing_goes_where_a_record_cant_be_understood(kept):
    run, other = kept.run("x"), kept.run("y")
    kept.client.delete_run(run.run_id)
    kept.age()
    kept.sql(f"UPDATE artifacts SET digest = 'sha256:short' WHERE root LIKE '%{other.run_id}%'")
    assert "digest" in kept.refused(*NOW)
    kept.sql(f"DELETE FROM artifacts WHERE root LIKE '%{other.run_id}%'")
    kept.sql("UPDATE head SET next = next + 1")
    assert "db check" in kept.refused(*NOW)
    kept.sql("UPDATE head SET next = next - 1")
    upload = kept.server.home / "blobs/uploads/1-1-00000000000000000000000000000000"
    upload.mkdir(parents=True)
    (upload / "joined").write_text("garbled")
    assert str(upload) in kept.refused(*NOW)
    (upload / "joined").unlink()
    assert kept.gc(*NOW)["blobs"] == 2


def test_killed_in_the_middle_it_goes_on_and_all_is_sound(kept):
    experiment = kept.client.create_experiment("many")
    stays = [kept.run(f"stays {n}") for n in range(5)]
    metrics = [mlflow.entities.Metric(f"m{n % 7}", n, n, n) for n in range(1000)]
    for n in range(60):
        run = kept.run(f"goes {n}", experiment)
        kept.client.log_batch(run.run_id, metrics)
    kept.client.delete_experiment(experiment)
    kept.age()
    killed = 0
    for delay in random.Random(7).choices([0.05, 0.08, 0.12, 0.2, 0.3, 0.5], k=12):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        process = subprocess.Popen([PROGRAM, "db", "gc", *map(str, [*kept.place, *NOW])], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        kept.sound()
    assert killed, "never in the middle"
    kept.gc(*NOW)
    assert gone(kept.client.get_experiment, experiment) and len(kept.files()) == 5
    for n, run in enumerate(stays):
        assert mlflow.artifacts.load_text(f"{run.artifact_uri}/a.txt") == f"stays {n}"


def test_a_server_goes_on_logging_meanwhile(kept):
    """The same bytes are deleted, swept and logged again, over and over: what is logged can be read."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    for round_ in range(6):
        old = [kept.run(f"bytes {n}") for n in range(8)]
        for run in old:
            kept.client.delete_run(run.run_id)
        kept.age()
        command = [PROGRAM, "db", "gc", *map(str, [*kept.place, *NOW])]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        new = [kept.run(f"bytes {n}") for n in range(8)]
        assert process.wait(60) == 0, process.stderr.read()
        for n, run in enumerate(new):
            assert mlflow.artifacts.load_text(f"{run.artifact_uri}/a.txt") == f"bytes {n}", round_
            kept.client.delete_run(run.run_id)
        kept.sound()


def test_objects_in_a_bucket_go_as_well(service, tmp_path):  # noqa: F811
    kept = Kept(tmp_path, service.root / "models/lockgate/blobs")
    mlflow.set_tracking_uri(kept.server.address)
    try:
        goes, stays = kept.run("goes"), kept.run("stays")
        kept.client.delete_run(goes.run_id)
        assert kept.gc(*NOW)["young"] == 1
        kept.age()
        wanted = db("gc", *kept.place, "--dry-run")[1]
        assert (wanted["blobs"], wanted["bytes"]) == (1, len("goes")), "its run has gone already"
        went = kept.gc(*NOW)
        assert (went["blobs"], went["bytes"]) == (1, len("goes")) and len(service.objects()) == 1
        assert mlflow.artifacts.load_text(f"{stays.artifact_uri}/a.txt") == "stays"
        (service.root / "models/lockgate/owners/0000").write_text("another")
        kept.age()
        assert "another database" in kept.refused(*NOW)
    finally:
        kept.server.stop()
