"""Stores and servers that want more than to be read: what they name must lead nowhere."""

import json
import os
import sqlite3
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import mlflow
import pytest
from conftest import PROGRAM, http
from engines import sqlite_suffices
from test_mlflow_moving import counts, lockgate, python

RUN = "0123456789abcdef0123456789abcdef"
VICTIM = "fedcba9876543210fedcba9876543210"


class Fake:
    """A server that says what it is told to."""

    def __init__(self):
        self.artifact_uri = f"mlflow-artifacts:/0/{RUN}/artifacts"
        self.files, self.outputs, self.traces, self.put = [], [], 0, []
        self.prompts = 200
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status, body):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                self.answer(*fake.get(urlsplit(self.path)))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.answer(*fake.post(urlsplit(self.path).path, body))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self):
        info = {"run_id": RUN, "experiment_id": "0", "status": "FINISHED", "artifact_uri": self.artifact_uri, "run_name": "x"}
        outputs = {"model_outputs": [{"model_id": one, "step": 1} for one in self.outputs]}
        return {"info": {**info, "lifecycle_stage": "active", "user_id": "u"}, "data": {}, "outputs": outputs}

    def get(self, url):
        query = parse_qs(url.query)
        if url.path.endswith("/runs/get"):
            return 200, {"run": self.run()}
        if url.path.endswith("/registered-models/search"):
            return (self.prompts, {"message": "no"}) if "filter" in query else (200, {})
        if url.path.endswith("/mlflow-artifacts/artifacts"):
            return 200, {"files": self.files if query["path"] == [f"0/{RUN}/artifacts"] else []}
        if url.path == "/api/v1/import/mlflow/files":
            return 200, []
        if "/mlflow-artifacts/artifacts/" in url.path:
            return 200, b"evil"
        return 404, {"message": f"no {unquote(url.path)}"}

    def post(self, path, body):
        if path.endswith("/experiments/search"):
            one = {"experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0", "lifecycle_stage": "active"}
            return 200, {"experiments": [{**one, "creation_time": 5, "last_update_time": 6}]}
        if path.endswith("/runs/search"):
            return 200, {"runs": [self.run()]}
        if path.endswith("/traces/search"):
            return 200, {"traces": [{}] * self.traces}
        return 404, {"message": f"no {path}"}


@pytest.fixture
def fake():
    fake = Fake()
    yield fake
    fake.server.shutdown()


def skipped(report):
    return [one for one in report["findings"] if one["level"] == "skipped"]


def test_paths_of_a_server_write_over_no_other_run(fresh, fake):
    client = mlflow.MlflowClient(fresh)
    victim = client.create_run("0").info
    client.log_text(victim.run_id, "mine", "model.pkl")
    fake.files = [
        {"path": "good.txt", "is_dir": False, "file_size": 4},
        {"path": "..", "is_dir": True},
        {"path": "x/..", "is_dir": False, "file_size": 4},
        {"path": "", "is_dir": True},
    ]
    code, report, _ = lockgate(fresh, "import", "mlflow", fake.address)
    assert code == 1 and not report["whole"] and counts(report, "skipped")["artifacts"] == 3, report
    assert [one.path for one in client.list_artifacts(RUN)] == ["good.txt"]
    assert [one.path for one in client.list_artifacts(victim.run_id)] == ["model.pkl"]


@sqlite_suffices("where things come from")
def test_a_server_names_no_files_of_this_machine(fresh, fake, tmp_path):
    home = tmp_path / "0" / RUN / "artifacts"
    home.mkdir(parents=True)
    (home / "key").write_text("secret")
    fake.artifact_uri = f"file://{home}"
    code, report, _ = lockgate(fresh, "import", "mlflow", fake.address)
    assert code == 1 and f"--artifacts {tmp_path}" in skipped(report)[0]["why"], report
    client = mlflow.MlflowClient(fresh)
    assert client.list_artifacts(RUN) == []
    code, report, _ = lockgate(fresh, "import", "mlflow", fake.address, "--artifacts", tmp_path)
    assert code == 0 and [one.path for one in client.list_artifacts(RUN)] == ["key"], report


def test_what_a_server_has_beside_is_counted_or_said(fresh, fake):
    code, report, _ = lockgate(fresh, "import", "mlflow", fake.address)
    assert code == 0 and "webhooks" in report["not_looked_at"], report
    said = subprocess.run([PROGRAM, "--server", fresh, "import", "mlflow", fake.address], capture_output=True, text=True).stdout
    assert "all that was looked at is there" in said and "not looked at over HTTP: deleted logged models" in said
    fake.traces = 3
    code, _, said = lockgate(fresh, "import", "mlflow", fake.address)
    assert code == 1 and "a trace has no id" in said


@pytest.mark.parametrize("status, code", [(400, 0), (404, 0), (500, 1), (403, 1)])
def test_prompts_that_cant_be_asked_for_are_not_none(fresh, fake, status, code):
    fake.prompts = status
    found, report, said = lockgate(fresh, "import", "mlflow", fake.address)
    assert found == code and (report is not None or "registered-models/search" in said), said


@sqlite_suffices("what the importer itself does")
def test_an_export_writes_nothing_outside_of_its_folder(fake, tmp_path):
    fake.outputs = ["../../../../x", "..", "m-1"]
    place = tmp_path / "deep/er"
    code, report, _ = lockgate(fake.address, "export", "mlflow", place / "out")
    assert code == 1 and counts(report, "skipped")["runs"] == 2, report
    assert [one.name for one in place.iterdir()] == ["out"] and [one.name for one in (tmp_path / "deep").iterdir()] == ["er"]
    assert [one.name for one in (place / "out/0" / RUN / "outputs").iterdir()] == ["m-1"]


def test_links_of_runs_to_models_lead_nowhere(fresh):
    run = mlflow.MlflowClient(fresh).create_run("0").info.run_id
    for verb, id, status in [("outputs", "../../../../x", 400), ("inputs", "..", 400), ("outputs", "any text", 200)]:
        body = json.dumps({"run_id": run, "models": [{"model_id": id, "step": 1}]}).encode()
        path = "runs/outputs" if verb == "outputs" else "runs/log-inputs"
        found = http("POST", f"{fresh}/api/2.0/mlflow/{path}", body, {"content-type": "application/json"})
        assert found[0] == status, found


def store(folder, uri=None, run=RUN):
    """A file store with one finished run, which has one file."""
    home = folder / "7" / run
    for part in ("metrics", "params", "tags", "artifacts"):
        (home / part).mkdir(parents=True)
    (folder / "7/meta.yaml").write_text(
        f"artifact_location: file://{folder}/7\ncreation_time: 5\nexperiment_id: '7'\nlast_update_time: 6\nlifecycle_stage: active\nname: seven\n"
    )
    (home / "meta.yaml").write_text(
        f"artifact_uri: {uri or f'file://{home}/artifacts'}\nend_time: 9\nexperiment_id: '7'\nlifecycle_stage: active\n"
        f"run_id: '{run}'\nrun_name: a\nstart_time: 1\nstatus: 3\ntags: []\nuser_id: ana\n"
    )
    (home / "artifacts/own.txt").write_text("own")
    return home


@sqlite_suffices("where things come from")
def test_a_folder_names_no_files_outside_of_it(fresh, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    home = store(tmp_path / "mlruns")
    (home / "artifacts/data").symlink_to(secret)
    (home / "artifacts/key").symlink_to(secret / "key")
    other = store(tmp_path / "other", uri=f"file://{secret}", run=VICTIM)
    other.joinpath("artifacts/own.txt").unlink()
    client = mlflow.MlflowClient(fresh)
    code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "mlruns")
    assert code == 1 and len(skipped(report)) == 2 and all("out of the store" in one["why"] for one in skipped(report))
    assert [one.path for one in client.list_artifacts(RUN)] == ["own.txt"]
    code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "other")
    assert code == 1 and str(secret) in skipped(report)[0]["why"]
    assert client.list_artifacts(VICTIM) == []


@sqlite_suffices("where things come from")
def test_odd_files_are_skipped_and_the_rest_is_taken(fresh, tmp_path):
    home = store(tmp_path / "mlruns")
    (home / "artifacts/broken").symlink_to(home / "none")
    (home / "artifacts/loop").symlink_to(home / "artifacts/loop")
    (home / "artifacts/circle").symlink_to(home / "artifacts")
    os.mkfifo(home / "artifacts/pipe")
    with open(home / "tags/huge", "wb") as huge:
        for _ in range(300):
            huge.write(b"x" * (1 << 20))
    second = tmp_path / "mlruns/7" / VICTIM
    store(tmp_path / "more", run=VICTIM)
    (tmp_path / "more/7" / VICTIM).rename(second)
    os.mkfifo(second / "params/pipe")
    code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "mlruns")
    assert code == 1, report
    why = [one["why"] for one in skipped(report)]
    assert any("at most" in one and "can be sent" in one for one in why), why
    assert any("no regular file" in one["what"] for one in skipped(report)), report["findings"]
    (home / "tags/huge").unlink()
    (second / "params/pipe").unlink()
    code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "mlruns")
    assert code == 1 and sorted(one["what"].split("/")[1] for one in skipped(report)) == ["broken", "circle", "loop", "pipe"]
    assert [one.path for one in mlflow.MlflowClient(fresh).list_artifacts(RUN)] == ["own.txt"]
    assert counts(report, "compared")["runs"] == 2


def test_a_dry_run_says_what_the_import_says(fresh, tmp_path):
    store(tmp_path / "mlruns", run="myrun")
    for more in (["--dry-run"], []):
        code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "mlruns", *more)
        assert code == 1 and "32 hexadecimal digits" in skipped(report)[0]["why"], (more, report)


@sqlite_suffices("what the importer itself does")
def test_a_password_is_not_repeated(fresh):
    _, report, said = lockgate(fresh, "import", "mlflow", "postgresql://u:geheim@h/mlflow")
    assert report is None and "geheim" not in said and "http://HOST:PORT" in said


@sqlite_suffices("where things come from")
def test_what_stock_cannot_read_of_a_file_store_is_told(fresh, tmp_path):
    post = lambda path, body: json.loads(http("POST", f"{fresh}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"content-type": "application/json"})[2])
    run = mlflow.MlflowClient(fresh).create_run("0").info.run_id
    model = post("logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run})["model"]["info"]["model_id"]
    metric = {"value": 1.5, "timestamp": 7, "step": 2, "model_id": model, "dataset_digest": "abc"}
    for key, dataset in (("good", "iris"), ("bad", "my iris")):
        post("runs/log-batch", {"run_id": run, "metrics": [{**metric, "key": key, "dataset_name": dataset}]})
    code, report, _ = lockgate(fresh, "export", "mlflow", tmp_path / "out")
    assert code == 1 and ["metric `bad`" in one["why"] for one in skipped(report)] == [True], report["findings"]
    script = "import mlflow, sys; print([m.key for m in mlflow.MlflowClient(sys.argv[1]).get_logged_model(sys.argv[2]).metrics])"
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    command = [python(), "-c", script, f"file://{tmp_path}/out", model]
    assert subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip() == "['good']"


def test_a_run_that_went_on_after_the_first_import_goes_on_here(fresh, tmp_path):
    home = store(tmp_path / "mlruns")
    meta = (home / "meta.yaml").read_text()
    (home / "meta.yaml").write_text(meta.replace("status: 3", "status: 1").replace("end_time: 9", "end_time: null"))
    (home / "metrics/loss").write_text("1 0.5 1\n")
    assert lockgate(fresh, "import", "mlflow", tmp_path / "mlruns")[0] == 0
    (home / "meta.yaml").write_text(meta)
    (home / "metrics/loss").write_text("1 0.5 1\n2 0.25 2\n")
    (home / "params/late").write_text("x")
    (home / "artifacts/late.txt").write_text("late")
    code, report, _ = lockgate(fresh, "import", "mlflow", tmp_path / "mlruns")
    assert code == 0 and report["digests"]["runs"]["same"], report["findings"]
    run = mlflow.MlflowClient(fresh).get_run(RUN)
    assert (run.info.status, run.info.end_time, run.data.metrics, run.data.params) == ("FINISHED", 9, {"loss": 0.25}, {"late": "x"})
    assert [one.path for one in mlflow.MlflowClient(fresh).list_artifacts(RUN)] == ["late.txt", "own.txt"]


@sqlite_suffices("where things come from")
def test_a_database_names_only_folders_of_runs(fresh, tmp_path):
    """What lies beside it is taken without a word; so is a run's folder elsewhere; nothing else is."""
    place = tmp_path / "server"
    homes = {"a" * 32: place / "mlruns/3" / ("a" * 32) / "artifacts", "b" * 32: tmp_path / "art/3" / ("b" * 32) / "artifacts"}
    for run, home in homes.items():
        home.mkdir(parents=True)
        (home / "own.txt").write_text(run)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    homes["c" * 32] = tmp_path / "secret"
    homes["d" * 32] = tmp_path / "links/3" / ("d" * 32) / "artifacts"
    homes["d" * 32].parent.mkdir(parents=True)
    homes["d" * 32].symlink_to(tmp_path / "secret")
    with sqlite3.connect(place / "mlflow.db") as connection:
        connection.executescript("""
            CREATE TABLE experiments (experiment_id INTEGER, name TEXT, artifact_location TEXT, lifecycle_stage TEXT);
            CREATE TABLE runs (run_uuid TEXT, name TEXT, user_id TEXT, status TEXT, start_time BIGINT, end_time BIGINT,
                lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER);
            CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);
            INSERT INTO experiments VALUES (3, 'three', './mlruns/3', 'active');
        """)
        for run, home in homes.items():
            uri = "./mlruns/3/" + run + "/artifacts" if run[0] == "a" else f"file://{home}"
            row = (run, "r", "u", "FINISHED", 1, 2, "active", uri, 3)
            connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    code, report, _ = lockgate(fresh, "import", "mlflow", f"sqlite:///{place}/mlflow.db")
    client = mlflow.MlflowClient(fresh)
    found = {run[0]: [one.path for one in client.list_artifacts(run)] for run in homes}
    assert found == {"a": ["own.txt"], "b": ["own.txt"], "c": [], "d": []}
    assert code == 1 and len(skipped(report)) == 2 and all("--artifacts" in one["why"] for one in skipped(report)), report
