"""Whole stores move in from stock MLflow and out to it again: what the stock client sees is the same on both sides."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import PROGRAM, ROOT, http
from engines import sqlite_suffices
from test_mlflow_differential import stock  # noqa: F401  (a fixture)

HERE = Path(__file__).parent


def python():
    """A Python whose MLflow has databases, servers and scikit-learn."""
    program = Path(os.environ.get("MLFLOW_STOCK") or ROOT / ".venv-stock/bin/mlflow").parent / "python"
    assert program.is_file(), f"no stock MLflow at {program}: `make e2e` installs it, MLFLOW_STOCK names another"
    return program


def stock_python(script, *args):
    done = subprocess.run([python(), HERE / script, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def dump(uri, predict="name"):
    return json.loads(stock_python("moving_dump.py", uri, predict).splitlines()[-1])


def lockgate(server, *args):
    command = [PROGRAM, "--server", server, "--as", "ana@example.org", "--json", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1, 2), done.stderr
    report = json.loads(done.stdout) if done.stdout else None
    return done.returncode, report, done.stderr


def counts(report, what):
    return {kind: one[what] for kind, one in report["counts"].items() if one[what]}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Two stores of stock MLflow: a database with its files, and a file store."""
    home = tmp_path_factory.mktemp("worlds")
    stock_python("moving_world.py", f"sqlite:///{home}/mlflow.db", f"file://{home}/art")
    stock_python("moving_world.py", f"file://{home}/mlruns")
    return {"database": f"sqlite:///{home}/mlflow.db", "folder": f"{home}/mlruns"}


def check_move(server, source, uri):
    """Moves a store in, twice, and compares everything."""
    before = dump(server)
    code, report, _ = lockgate(server, "import", "mlflow", source, "--dry-run")
    assert code == 2, report
    wanted = counts(report, "new")
    in_folder = uri.startswith("file:")
    assert wanted["metric_points"] > 12_000 and wanted["versions"] == (7 if in_folder else 8) and wanted["aliases"] == 2, wanted
    # Spans are where they were: in the database, or in a file of each trace. A file store has no links.
    assert wanted["traces"] == (3 if in_folder else 4) and wanted["assessments"] == 8, wanted
    assert (wanted.get("spans", 0), wanted.get("trace_links", 0)) == ((0, 0) if in_folder else (7, 2)), wanted
    assert dump(server) == before, "a dry run changed something"
    code, report, _ = lockgate(server, "import", "mlflow", source)
    assert code == 0 and report["whole"], report["findings"]
    assert counts(report, "new") == wanted
    assert counts(report, "compared") == counts(report, "found")
    assert all(report["digests"][kind]["same"] for kind in ("runs", "traces", "artifacts"))
    theirs, ours = dump(uri, "copy"), dump(server)
    for kind, things in theirs.items():
        assert len(things) >= 1 and sorted(things) == sorted(ours[kind]), kind
        for name, one in things.items():
            assert ours[kind][name] == one, f"{kind} {name}"
    code, report, _ = lockgate(server, "import", "mlflow", source)
    assert code == 0 and counts(report, "new") == {}
    assert counts(report, "same") == wanted
    assert dump(server) == ours, "the second import changed something"
    return report


@pytest.mark.parametrize("kind", ["database", pytest.param("folder", marks=sqlite_suffices("where things come from"))])
def test_a_store_moves_in_whole_and_once(fresh, worlds, kind):
    source = worlds[kind]
    report = check_move(fresh, source, source if kind == "database" else f"file://{source}")
    left = [one for one in report["findings"] if one["level"] == "left"]
    assert any("s3://bucket/far" in one["why"] for one in left), left


@sqlite_suffices("where things come from")
def test_a_running_server_moves_in(fresh, stock):  # noqa: F811
    stock_python("moving_world.py", stock)
    check_move(fresh, stock, stock)


def test_who_imported_is_told_and_numbers_go_on(fresh, worlds):
    import mlflow

    lockgate(fresh, "import", "mlflow", worlds["database"])
    client = mlflow.MlflowClient(fresh)
    assert [v.version for v in client.search_model_versions("name = 'prices'")] in (["3", "1"], [3, 1])
    with pytest.raises(mlflow.MlflowException):
        client.get_model_version("prices", "2")
    champion = client.get_model_version_by_alias("prices", "champion")
    made = client.create_model_version("prices", champion.source, run_id=champion.run_id, model_id=champion.source.split("/")[-1])
    assert int(made.version) == 4


def test_nothing_is_written_over(fresh, worlds):
    import mlflow

    client = mlflow.MlflowClient(fresh)
    taken = client.create_experiment("mine, under the number of another")
    named = client.create_experiment("naïve 実験")
    client.create_registered_model("prices", description="mine")
    code, report, _ = lockgate(fresh, "import", "mlflow", worlds["database"])
    assert code == 1 and not report["whole"]
    told = {(one["kind"], one["what"]): one["why"] for one in report["findings"] if one["level"] == "skipped"}
    assert "made at another time" in told["experiments", "naïve 実験"]
    assert "prices" in {what for kind, what in told if kind == "registered_models"}
    assert all("not taken" in why for (kind, _), why in told.items() if kind == "runs")
    assert counts(report, "skipped")["runs"] == 6 and counts(report, "skipped")["traces"] == 4
    # `gone` had the number that is taken here: it has a new one, and its run is in it.
    note = next(one for one in report["findings"] if one["level"] == "note")
    gone = client.get_experiment_by_name("gone")
    assert note["what"] == "gone" and gone.experiment_id not in (taken, named)
    assert len(client.search_runs([gone.experiment_id], run_view_type=3)) == 1
    assert client.get_experiment(taken).name.startswith("mine") and client.get_registered_model("prices").description == "mine"
    assert client.search_runs([named], run_view_type=3) == []


@sqlite_suffices("where things come from")
def test_files_behind_a_server_are_asked_for(fresh, stock, tmp_path):  # noqa: F811
    """A database knows `mlflow-artifacts:` addresses; the folder behind them has to be named."""
    import mlflow

    client = mlflow.MlflowClient(stock)
    run = client.create_run("0").info.run_id
    client.log_text(run, "here", "a.txt")
    client.create_registered_model("late")
    client.create_model_version("late", f"mlflow-artifacts:/0/{run}/artifacts", run_id=run)
    arguments = Path(f"/proc/{listener(stock)}/cmdline").read_bytes().decode().split("\0")
    database = arguments[arguments.index("--backend-store-uri") + 1]
    artifacts = arguments[arguments.index("--artifacts-destination") + 1]
    code, report, _ = lockgate(fresh, "import", "mlflow", database)
    assert code == 1 and any("--artifacts DIR" in one["why"] for one in report["findings"])
    # A folder that is there, but is not theirs, is not taken for one without files.
    code, report, _ = lockgate(fresh, "import", "mlflow", database, "--artifacts", tmp_path)
    assert code == 1 and any("none of the runs and models" in one["why"] for one in report["findings"])
    assert any("no files are here" in one["why"] for one in report["findings"] if one["kind"] == "artifacts")
    code, report, _ = lockgate(fresh, "import", "mlflow", database, "--artifacts", artifacts)
    assert code == 0 and counts(report, "new") == {"artifacts": 1, "artifact_bytes": 4}
    # The version has its own list now: what becomes of the run's file is nothing to it.
    client_of(fresh).log_text(run, "other", "a.txt")
    location = client_of(fresh).get_model_version_download_uri("late", "1").removeprefix("mlflow-artifacts:")
    assert http("GET", f"{fresh}/api/2.0/mlflow-artifacts/artifacts{location}/a.txt")[2] == b"here"
    client_of(fresh).log_text(run, "here", "a.txt")
    mlflow.set_tracking_uri(fresh)
    assert mlflow.artifacts.load_text(f"runs:/{run}/a.txt") == "here"


def client_of(address):
    import mlflow

    return mlflow.MlflowClient(address)


def listener(address):
    """The process that was started as the server at an address."""
    port = address.rsplit(":", 1)[1]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "--backend-store-uri" in words and port in words:
                return entry.name
    raise AssertionError(f"no server at {address}")


RUNS = 600


def large(folder, runs=None):
    """A file store of many runs, written as MLflow would."""
    experiment = folder / "7"
    experiment.mkdir(parents=True)
    meta = "artifact_location: file://{0}/7\ncreation_time: 5\nexperiment_id: '7'\nlast_update_time: 6\nlifecycle_stage: active\nname: large\n"
    (experiment / "meta.yaml").write_text(meta.format(folder))
    for i in range(runs or RUNS):
        id = f"{i:032x}"
        run = experiment / id
        for name in ("metrics", "params", "tags", "artifacts/deep"):
            (run / name).mkdir(parents=True)
        (run / "meta.yaml").write_text(
            f"artifact_uri: file://{folder}/7/{id}/artifacts\nend_time: {i + 9}\nexperiment_id: '7'\nlifecycle_stage: active\n"
            f"run_id: '{id}'\nrun_name: run {i}\nstart_time: {i}\nstatus: 3\ntags: []\nuser_id: ana\n"
        )
        (run / "metrics/loss").write_text("".join(f"{step} {i / (step + 1)} {step}\n" for step in range(100)))
        (run / "params/i").write_text(str(i))
        (run / "tags/mlflow.runName").write_text(f"run {i}")
        (run / "artifacts/deep/file").write_text(f"bytes of {i}" * 1000)
        trace = folder / f"7/traces/tr-{i:032x}"
        for name in ("tags", "request_metadata", "assessments", "artifacts"):
            (trace / name).mkdir(parents=True)
        (trace / "trace_info.yaml").write_text(f"request_time: '2026-11-26T21:26:52.098Z'\nstate: OK\ntrace_id: {trace.name}\n")
        (trace / "tags/i").write_text(str(i))
        (trace / "artifacts/traces.json").write_text('{"spans": []}')
    return folder


def killed(server, *args, when):
    """Starts a command and ends it with SIGKILL as soon as `when` holds."""
    process = subprocess.Popen([PROGRAM, "--server", server, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not when():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


def traces_at(server):
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "7"}}
    body = json.dumps({"locations": [place], "max_results": 500}).encode()
    _, _, answer = http("POST", f"{server}/api/3.0/mlflow/traces/search", body, {"content-type": "application/json"})
    return json.loads(answer).get("traces", [])


def runs_at(server):
    body = json.dumps({"experiment_ids": ["7"], "max_results": 1000}).encode()
    _, _, answer = http("POST", f"{server}/api/2.0/mlflow/runs/search", body, {"content-type": "application/json"})
    return json.loads(answer).get("runs", [])


def test_an_import_and_an_export_that_were_killed_go_on(fresh, tmp_path):
    source = large(tmp_path / "mlruns")
    killed(fresh, "import", "mlflow", source, when=lambda: len(runs_at(fresh)) >= 200)
    begun = len(runs_at(fresh))
    assert 0 < begun < RUNS
    killed(fresh, "import", "mlflow", source, when=lambda: traces_at(fresh))
    assert 0 < len(traces_at(fresh)) < RUNS
    code, report, _ = lockgate(fresh, "import", "mlflow", source)
    assert code == 0, report["findings"]
    total = {"runs": RUNS, "params": RUNS, "tags": RUNS, "metric_points": RUNS * 100, "traces": RUNS, "artifacts": 2 * RUNS}
    assert {kind: count for kind, count in counts(report, "compared").items() if kind in total} == total
    # What was there is not sent again; nothing is there twice.
    assert counts(report, "same")["runs"] == RUNS and RUNS <= counts(report, "same")["artifacts"] < 2 * RUNS
    assert 0 < counts(report, "same")["traces"] < RUNS and len(traces_at(fresh)) == min(RUNS, 500)
    assert len({run["info"]["run_id"] for run in runs_at(fresh)}) == len(runs_at(fresh)) == RUNS

    out = tmp_path / "out"
    killed(fresh, "export", "mlflow", out, when=lambda: len(list(out.glob("7/*/meta.yaml"))) >= 100)
    assert 0 < len(list(out.glob("7/*/meta.yaml"))) < RUNS
    written = "7/traces/*/trace_info.yaml"
    killed(fresh, "export", "mlflow", out, when=lambda: len(list(out.glob(written))) >= 20)
    assert 0 < len(list(out.glob(written))) < RUNS
    code, report, _ = lockgate(fresh, "export", "mlflow", out)
    assert code == 0, report["findings"]
    assert {kind: count for kind, count in counts(report, "compared").items() if kind in total} == total
    assert counts(report, "same")["runs"] == RUNS and 0 < counts(report, "same")["traces"] < RUNS
    assert not list(out.rglob("*.lockgate-part"))


@sqlite_suffices("what stock makes of what was written; the killed export reads from each engine")
def test_what_moved_in_moves_out_to_stock_mlflow(fresh, worlds, tmp_path, tmp_path_factory):
    lockgate(fresh, "import", "mlflow", worlds["database"])
    ours = dump(fresh)
    code, report, _ = lockgate(fresh, "export", "mlflow", tmp_path / "mlruns")
    # Links of traces are all that a file store can't keep: they are told, one by one, and stay where they are.
    told = sorted((one["kind"], one["what"].split(" to ")[1].split()[0]) for one in report["findings"] if one["kind"] == "trace_links")
    assert code == 0 and told == [("trace_links", "prompt"), ("trace_links", "run")], report["findings"]
    assert counts(report, "found")["traces"] == counts(report, "compared")["traces"] == 4
    assert all(report["digests"][kind]["same"] for kind in ("runs", "traces", "artifacts")), report["digests"]
    theirs = dump(f"file://{tmp_path}/mlruns")
    ours["links"] = {what: [id for id in ids if what in f"run_id = '{ours['traces'][id]['metadata'].get('mlflow.sourceRun')}'"] for what, ids in ours["links"].items() if what.startswith("run_id")}
    for kind, things in ours.items():
        assert sorted(things) == sorted(theirs[kind]), kind
        for name, one in things.items():
            assert theirs[kind][name] == one, f"{kind} {name}"
    assert theirs["versions"]["prices 3"]["guess"] == [pytest.approx(13.0)]
    # Said again, it writes nothing over what is finished.
    code, again, said = lockgate(fresh, "export", "mlflow", tmp_path / "mlruns")
    assert code == 1 and again is None and "a finished export" in said
    # And in again, with the same digests.
    second = __import__("conftest").serve(tmp_path_factory)
    server = next(second)
    code, again, _ = lockgate(server, "import", "mlflow", tmp_path / "mlruns")
    # A folder can't say whose files a copy had, where the name that it was copied from means another model by now: that is told.
    told = [(one["what"], one["why"]) for one in again["findings"] if one["kind"] == "versions"]
    assert code == 1 and told == [("from reused 1", "its files are those that models:/classic/1 has here")], again["findings"]
    found = dump(server)
    assert found["versions"].pop("from reused 1") != ours["versions"].pop("from reused 1")
    assert found == ours
    assert next(second, None) is None


@sqlite_suffices("where things come from")
def test_what_is_no_store_is_told_apart(fresh, tmp_path):
    (tmp_path / "x.db").write_bytes(b"no database")
    (tmp_path / "empty").mkdir()
    for source, words in [
        (tmp_path / "none", "no folder"), (tmp_path / "empty", "no file store"), (tmp_path / "x.db", "not"),
        ("https://127.0.0.1:1", "no server answers"), ("postgres://x/y", "not read directly"), ("ftp://x/y", "no place"), ("http://127.0.0.1:9", "no server answers"),
    ]:  # fmt: skip
        code, report, error = lockgate(fresh, "import", "mlflow", source)
        assert code == 1 and report is None and words in error, (source, error)


def test_traces_that_are_broken_are_told_and_hold_up_no_other(fresh, tmp_path):
    """A folder of somebody else: ids that lead elsewhere, wrong YAML, bytes that are no text, spans that are missing."""
    store = large(tmp_path / "mlruns", runs=8)
    trace = [store / f"7/traces/tr-{i:032x}" for i in range(8)]
    (trace[1] / "artifacts/traces.json").unlink()
    (trace[2] / "trace_info.yaml").write_text("trace_id: [")
    (trace[3] / "trace_info.yaml").write_text("trace_id: ../../x\nrequest_time: '2026-11-26T21:26:52Z'\nstate: OK\n")
    (trace[4] / "tags/i").write_bytes(b"\xff\xfe")
    (trace[5] / "assessments/a.yaml").write_text("assessment_id: ../a\nfeedback: {value: 1}\ncreate_time: '2026-11-26T21:26:52Z'\n")
    (trace[6] / "trace_info.yaml").write_text("a: &x [1]\nb: *x\n")
    (trace[7] / "artifacts/traces.json").write_text('{"spans": [{"attributes": {"x": NaN, "y": 1e999}}, ')
    code, report, _ = lockgate(fresh, "import", "mlflow", store)
    told = " ".join(f"{one['what']}: {one['why']}" for one in report["findings"] if one["level"] == "skipped")
    assert code == 1 and all(one.name in told for one in trace[1:7]), told
    assert "traces.json" in told and trace[0].name not in told and trace[7].name not in told
    assert sorted(one["trace_id"] for one in traces_at(fresh)) == sorted(trace[i].name for i in (0, 1, 7))


def test_a_trace_of_another_workspace_is_not_touched(fresh, tmp_path):
    store = large(tmp_path / "mlruns", runs=2)
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}}
    json_body = {"content-type": "application/json"}
    elsewhere = {**json_body, "x-mlflow-workspace": "other"}
    assert http("POST", f"{fresh}/api/3.0/mlflow/workspaces", json.dumps({"name": "other"}).encode(), json_body)[0] < 300
    _, _, made = http("POST", f"{fresh}/api/2.0/mlflow/experiments/create", json.dumps({"name": "e"}).encode(), elsewhere)
    place["mlflow_experiment"]["experiment_id"] = json.loads(made)["experiment_id"]
    info = {"trace_id": f"tr-{1:032x}", "trace_location": place, "state": "OK", "request_time": "2026-01-01T00:00:00Z"}
    body = json.dumps({"trace": {"trace_info": info}}).encode()
    assert http("POST", f"{fresh}/api/3.0/mlflow/traces", body, elsewhere)[0] == 200
    code, report, _ = lockgate(fresh, "import", "mlflow", store)
    told = [(one["what"], one["why"]) for one in report["findings"] if one["kind"] == "traces"]
    assert code == 1 and told == [(info["trace_id"], "a trace of another workspace has this id")], report["findings"]
    assert [one["trace_id"] for one in traces_at(fresh)] == [f"tr-{0:032x}"]
