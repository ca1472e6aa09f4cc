"""`lockgate db`: checking, bringing forward, backing up and restoring what a server keeps."""

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import engines
import mlflow
import pytest
import requests
from engines import PROGRAM, Server

sqlite_only = pytest.mark.skipif(engines.ENGINE != "sqlite", reason="about the SQLite file")
postgres_only = pytest.mark.skipif(engines.ENGINE != "postgres", reason="about PostgreSQL")


def db(verb, *arguments):
    """Runs `lockgate db`; exit code, JSON output and what is said beside it."""
    command = [PROGRAM, "--json", "db", verb, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert "geheim" not in done.stdout + done.stderr, "a password is shown"
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


class Kept:
    """A server with a run, an artifact and a registered version in it."""

    def __init__(self, folder):
        self.options = engines.database()
        self.server = Server(folder / "home", *self.options).start()
        self.place = ["--home", self.server.home, *self.options]
        self.client = mlflow.MlflowClient(self.server.address)
        self.run = self.client.create_run("0").info
        self.client.log_metric(self.run.run_id, "loss", 0.5)
        self.client.log_text(self.run.run_id, "the bytes of a model", "model/MLmodel")
        self.client.create_registered_model("m")
        self.client.create_model_version("m", f"{self.run.artifact_uri}/model", self.run.run_id)

    @property
    def database(self):
        return self.server.home / "lockgate.db"

    def blobs(self):
        return [path for path in (self.server.home / "blobs/blobs").glob("*/*")]


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path)
    yield kept
    kept.server.stop()


def served(home, check):
    server = Server(home).start()
    try:
        return check(mlflow.MlflowClient(server.address))
    finally:
        server.stop()


def loss(kept):
    return lambda client: client.get_run(kept.run.run_id).data.metrics["loss"]


@pytest.mark.parametrize("running", [True, False])
def test_a_sound_database_passes_with_and_without_a_server(kept, running):
    if not running:
        kept.server.stop()
    for deep in ([], ["--deep"]):
        code, found, _ = db("check", *kept.place, *deep)
        assert (code, found["findings"], found["artifacts"], found["blobs"]) == (0, [], 2, 1)
        assert found["bytes"] == len("the bytes of a model")


def test_missing_changed_and_damaged_bytes_are_findings(kept):
    [blob] = kept.blobs()
    blob.chmod(0o644)
    blob.write_text("THE BYTES OF A MODEL")
    assert db("check", *kept.place)[0] == 0, "only --deep reads"
    code, found, _ = db("check", *kept.place, "--deep")
    assert code == 1 and "is damaged" in found["findings"][0]["what"] and "model/MLmodel" in found["findings"][0]["place"]
    blob.write_text("short")
    code, found, _ = db("check", *kept.place)
    assert code == 1 and "has 5 bytes, not 20" in found["findings"][0]["what"]
    blob.unlink()
    code, found, _ = db("check", *kept.place)
    assert code == 1 and "bytes are missing" in found["findings"][0]["what"] and found["findings"][0]["remedy"]
    assert len(found["findings"]) == 2, "the run's artifact and the version's"
    database = kept.options or ["--database", kept.database]
    code, _, said = db("check", *database)
    assert code == 1 and "--blobs" in said, "what is not looked at is not sound"


@sqlite_only
def test_a_changed_log_is_a_finding(kept, tmp_path):
    kept.server.stop()
    with sqlite3.connect(kept.database) as connection:
        connection.execute("UPDATE head SET next = 1")
    connection.close()
    code, found, _ = db("check", *kept.place)
    assert code == 1 and "head" in found["findings"][0]["what"]
    code, _, said = db("backup", tmp_path / "copy.db", *kept.place)
    assert code == 1 and "lockgate db check" in said and not (tmp_path / "copy.db").exists()


def damage(path):
    """Makes pages unreadable behind the first ones, which hold the schema."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle:] = b"\xa5" * (len(data) - middle)
    path.write_bytes(data)


@sqlite_only
def test_a_damaged_file_is_named_and_neither_backed_up_nor_restored(kept, tmp_path):
    assert db("backup", tmp_path / "good.db", *kept.place)[0] == 0
    shutil.copy(tmp_path / "good.db", tmp_path / "bad.db")
    damage(tmp_path / "bad.db")
    kept.server.stop()
    code, _, said = db("restore", tmp_path / "bad.db", *kept.place, "--force")
    assert code == 1 and "damaged" in said
    assert served(kept.server.home, loss(kept)) == 0.5, "nothing was changed"
    damage(kept.database)
    code, found, said = db("check", *kept.place)
    assert code == 1 and ("damaged" in said or "damaged" in found["findings"][0]["what"])
    assert db("backup", tmp_path / "copy.db", *kept.place)[0] == 1
    assert not list(tmp_path.glob("copy.db*"))
    code, done, _ = db("restore", tmp_path / "good.db", *kept.place, "--force")
    assert code == 0 and Path(done["aside"]).exists()
    assert served(kept.server.home, loss(kept)) == 0.5


@sqlite_only
def test_a_backup_beside_a_running_server_is_restored(kept, tmp_path):
    code, done, _ = db("backup", tmp_path / "copy.db", *kept.place)
    assert code == 0 and done["blobs"] is None
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"], "nothing else is left behind"
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert db("backup", tmp_path / "copy.db", *kept.place)[0] == 1, "a backup is not overwritten"
    kept.client.log_metric(kept.run.run_id, "loss", 0.9, step=1)

    code, _, said = db("restore", tmp_path / "copy.db", *kept.place, "--force")
    assert code == 1 and "in use by pid" in said
    kept.server.stop()
    code, _, said = db("restore", tmp_path / "copy.db", *kept.place)
    assert code == 1 and "--force" in said
    assert served(kept.server.home, loss(kept)) == 0.9
    code, done, _ = db("restore", tmp_path / "copy.db", *kept.place, "--force")
    assert code == 0
    assert served(kept.server.home, loss(kept)) == 0.5
    # What was there is whole, with what was committed last.
    assert db("check", "--database", done["aside"], "--blobs", kept.server.home / "blobs")[0] == 0
    with sqlite3.connect(done["aside"]) as connection:
        assert connection.execute("SELECT COUNT(*) FROM metrics").fetchone() == (2,)


@sqlite_only
def test_a_backup_with_artifacts_is_a_server_of_its_own(kept, tmp_path):
    copy = tmp_path / "copy"
    code, done, _ = db("backup", copy, *kept.place, "--with-blobs")
    assert (code, done["blobs"]) == (0, 1)
    [blob] = kept.blobs()
    assert blob.stat().st_nlink == 2, "linked, not copied"
    assert db("check", "--home", copy, "--deep")[0] == 0
    home = tmp_path / "elsewhere"
    code, done, _ = db("restore", copy, "--home", home)
    assert (code, done["aside"], done["new_blobs"]) == (0, None, 1)
    assert db("check", "--home", home, "--deep")[0] == 0

    def read(client):
        path = client.get_run(kept.run.run_id).info.artifact_uri.removeprefix("mlflow-artifacts:")
        return requests.get(f"{client.tracking_uri}/api/2.0/mlflow-artifacts/artifacts{path}/model/MLmodel").text

    assert served(home, read) == "the bytes of a model"
    # A damaged blob in the backup is not taken over.
    [blob] = [path for path in (copy / "blobs/blobs").glob("*/*")]
    blob.unlink()
    blob.write_text("THE BYTES OF A MODEL")
    code, _, said = db("restore", copy, "--home", tmp_path / "third")
    assert code == 1 and "damaged" in said and not (tmp_path / "third/lockgate.db").exists()


@sqlite_only
def test_a_lost_blob_is_named_and_the_rest_is_backed_up(kept, tmp_path):
    kept.client.log_text(kept.run.run_id, "another", "other.txt")
    lost = next(path for path in kept.blobs() if path.read_text() != "another")
    lost.unlink()
    copy = tmp_path / "copy"
    code, done, said = db("backup", copy, *kept.place, "--with-blobs")
    assert (code, done["blobs"], len(done["lost"])) == (1, 1, 2) and "lockgate db check" in said
    assert any("model/MLmodel" in one["place"] for one in done["lost"])
    assert served(copy, loss(kept)) == 0.5
    assert list(tmp_path.glob("copy.partial*")) == []


@sqlite_only
def test_a_backup_deletes_nothing_of_others(kept, tmp_path):
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial/thesis").write_text("years")
    for blobs in ([], ["--with-blobs"]):
        assert db("backup", tmp_path / f"mine{len(blobs)}", *kept.place, *blobs)[0] == 0
    assert db("backup", tmp_path / "mine", *kept.place)[0] == 0
    assert (tmp_path / "mine.partial/thesis").read_text() == "years"
    assert db("backup", tmp_path / "no/folder", *kept.place)[0] == 1


@sqlite_only
def test_a_backup_holds_no_key(kept, tmp_path):
    path = kept.run.artifact_uri.removeprefix("mlflow-artifacts:")
    presigned = lambda address: requests.get(f"{address}/api/2.0/mlflow-artifacts/presigned{path}/model/MLmodel").json()["url"]
    url = presigned(kept.server.address)
    with sqlite3.connect(kept.database) as connection:
        [key] = connection.execute("SELECT value FROM settings WHERE key = 'artifact-url-key'").fetchone()
    connection.close()
    assert db("backup", tmp_path / "copy", *kept.place, "--with-blobs")[0] == 0
    assert key.encode() not in (tmp_path / "copy/lockgate.db").read_bytes()
    assert [one.name for one in (tmp_path / "copy").iterdir() if one.is_file()] == ["lockgate.db"]

    def read(client):
        old = requests.get(client.tracking_uri + url.removeprefix(kept.server.address)).status_code
        return old, requests.get(presigned(client.tracking_uri)).text

    assert served(tmp_path / "copy", read) == (403, "the bytes of a model")


@sqlite_only
def test_backups_during_writes_are_whole(kept, tmp_path):
    run = kept.run.run_id
    for number in range(5):
        kept.client.log_batch(run, metrics=[mlflow.entities.Metric(f"k{i}", number, number, number) for i in range(50)])
        kept.client.log_text(run, f"text {number}", f"{number}.txt")
        copy = tmp_path / f"copy{number}"
        assert db("backup", copy, *kept.place, "--with-blobs")[0] == 0
        code, found, _ = db("check", "--home", copy, "--deep")
        assert (code, found["artifacts"]) == (0, number + 3)


@sqlite_only
def test_a_live_database_is_no_backup(kept, tmp_path):
    code, _, said = db("restore", kept.database, "--home", tmp_path / "other")
    assert code == 1 and "in use, not a backup" in said
    assert loss(kept)(kept.client) == 0.5


@sqlite_only
def test_a_newer_schema_is_refused_by_every_command(kept, tmp_path):
    assert db("backup", tmp_path / "copy.db", *kept.place)[0] == 0
    kept.server.stop()
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        connection.execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99999, 'future', 1, x'', 0)")
    connection.close()
    for verb in (["check"], ["migrate"]):
        code, _, said = db(*verb, "--database", tmp_path / "copy.db")
        assert code == 1 and "schema version 99999" in said and "newer lockgate" in said
    code, _, said = db("restore", tmp_path / "copy.db", *kept.place, "--force")
    assert code == 1 and "schema version 99999" in said
    assert db("check", *kept.place)[0] == 0


def test_the_schema_is_brought_forward_once(kept):
    if engines.ENGINE == "sqlite":
        code, _, said = db("migrate", *kept.place)
        assert code == 1 and "in use by pid" in said
    kept.server.stop()
    code, done, _ = db("migrate", *kept.place)
    assert code == 0 and done["from"] == done["to"] >= 2


def test_what_is_not_there_is_said(tmp_path):
    for verb in (["check"], ["migrate"], ["backup", tmp_path / "copy.db"]):
        code, _, said = db(*verb, "--home", tmp_path / "nothing")
        assert code == 1 and "nothing/lockgate.db" in said
    code, _, said = db("restore", tmp_path / "none.db", "--home", tmp_path / "home")
    assert code == 1 and "no such file" in said
    assert db("check")[0] == 64, "a database must be named"
    assert list(tmp_path.iterdir()) == [], "nothing is made by looking"


@postgres_only
def test_postgres_is_backed_up_and_restored_by_the_commands_that_are_printed(kept, tmp_path):
    code, found, said = db("backup", tmp_path / "a copy.dump", *kept.place, "--with-blobs")
    assert code == 1 and found["done"] is False and "nothing was done" in said
    dump = shlex.split(found["commands"][0])
    assert dump[0] == "pg_dump" and found["commands"][1].startswith("rsync ")
    environment = {**os.environ, "PGPASSWORD": "geheim", "PATH": f"{engines.postgres().programs}:{os.environ['PATH']}"}
    subprocess.run(dump, check=True, env=environment)
    kept.client.log_metric(kept.run.run_id, "loss", 0.9, step=1)
    kept.server.stop()
    code, found, _ = db("restore", tmp_path / "a copy.dump", *kept.place)
    assert code == 1
    subprocess.run(shlex.split(found["commands"][0]), check=True, env=environment)
    kept.server.start()
    assert loss(kept)(kept.client) == 0.5
    assert db("check", *kept.place, "--deep")[0] == 0
