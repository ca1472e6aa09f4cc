"""What people and scripts rely on: exit codes, whose process is stopped, what a release may be made from, calm output."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import PROGRAM, Lockgate, Traffic, free_ports, get, repository, surroundings, wait_for


def promote(faults, name, *args, environment="production", **how):
    release = faults.releases[name][7:19]
    return faults.json("promote", release, "--env", environment, *args, **how)


def test_a_rollout_that_waits_for_a_person_ends_the_waiting_with_a_code_of_its_own(faults):
    held = promote(faults, "good2", "--wait", "--timeout", "2s", codes=(6,))
    assert held["stage_name"] == "rolling"
    faults.ok("pause", held["id"], "--reason", "lunch")
    # Both stop at once: a person, not time, is what is missing.
    for command in (["watch", held["id"]], ["watch", "--env", "production", "--timeout", "60s"]):
        wait_for("the pause", lambda: "paused" in str(faults.promotion(held["id"])["stage"]))
        done = faults.run(*command, timeout=20)
        assert done.returncode == 6 and "lunch" in done.stdout, done.stdout + done.stderr
    faults.ok("abort", held["id"], "--reason", "enough")
    assert faults.run("watch", held["id"], "--timeout", "30s").returncode == 5


def test_a_persons_no_is_an_error_and_a_wanted_rollback_is_none(faults):
    waiting = promote(faults, "good2", environment="approved", codes=(4,))
    faults.ok("reject", waiting["id"], "--reason", "not today", user="bob@example.com")
    done = faults.run("watch", waiting["id"])
    assert done.returncode == 1 and "not today" in done.stdout
    with Traffic(faults.gateway("production"), 360) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        promote(faults, "good2", "--wait", "--timeout", "180s")
        done = faults.run("rollback", "production", "--reason", "a drill", "--wait")
        assert done.returncode == 0, done.stdout + done.stderr
        assert traffic.bad() == []
    # There is nothing to go back from now, and no second way back to what was left.
    assert faults.run("rollback", "production", "--reason", "again", "--wait").returncode == 1


def test_output_for_programs_is_json_and_nothing_else(faults):
    for args in (["status"], ["env", "list"], ["release", "list"], ["history", "production"], ["check"]):
        done = faults.run(*args, "--json")
        assert done.returncode in (0, 4) and "\x1b" not in done.stdout, args
        json.loads(done.stdout)
    entries = [json.loads(line) for line in faults.ok("audit", "log", "--json", "--limit", "2").splitlines()]
    everything = faults.audit()
    assert [e["seq"] for e in entries] == [e["seq"] for e in everything][-2:]
    log = faults.json("logs", "run")
    assert "train" in json.dumps(log)


def test_an_agents_token_opens_no_door_for_people(faults):
    token = (faults.state / "env/quick/token").read_text()
    door = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    latest = faults.releases["good"]
    body = json.dumps({"release": latest, "environment": "production"}).encode()
    for path, data in (("promotions", body), ("environments/production/rollback", b'{"reason": "x"}')):
        status, _, answer = get(f"{faults.server}/api/v1/{path}", data, door)
        assert status == 403, (path, status, answer)
    status, _, answer = get(f"{faults.server}/api/2.0/mlflow/experiments/create", b'{"name": "mine"}', door)
    assert status == 403, answer


def test_rows_in_any_form_are_predicted_from_the_command_line(faults):
    names = ["a", "b", "c", "d"]
    row, values = dict(zip(names, [0.5, 0.25, 1.0, 2.0])), [0.5, 0.25, 1.0, 2.0]
    tensor = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": values}]}
    for form in (tensor, {"instances": [values]}, [values], {"inputs": [values]}):
        answer = faults.json("predict", "--env", "production", json.dumps(form))
        assert answer["status"] == 200 and "12" in answer["answer"], (form, answer)
    # The toy's columns have no names, so a row by name is the client's mistake, and is told so by the model.
    done = faults.run("predict", "--env", "production", json.dumps(row))
    assert done.returncode == 1 and "status 400" in done.stdout and "trace" not in done.stdout, done.stdout + done.stderr


def test_nobody_passes_for_lockgate_itself_in_the_record(faults):
    for name in ("system", "System ", "agent of production", "lockgate"):
        done = faults.run("plan", faults.releases["good2"][7:19], "--env", "production", user=name)
        assert done.returncode == 1 and "record" in done.stderr, (name, done.stdout, done.stderr)


def test_what_is_not_there_is_called_so(faults):
    done = faults.run("rollback", "nowhere", "--reason", "x")
    assert done.returncode == 1 and "no environment `nowhere`" in done.stderr
    done = faults.run("rollback", "production", "--model", "other", "--reason", "x")
    assert done.returncode == 1 and "no model `other`" in done.stderr
    done = faults.run("history", "production", "--at", "2999-01-01T00:00:00Z")
    assert done.returncode == 1 and "not come yet" in done.stderr
    url = f"{faults.server}/api/2.0/mlflow/registered-models/delete"
    body, kind = b'{"name": "toy"}', {"Content-Type": "application/json", "X-Lockgate-User": "alice@example.com"}
    status, _, answer = get(url, body, kind, method="DELETE")
    assert status == 400 and b"serves version" in answer, (status, answer)


def test_nobody_agrees_unseen_to_other_terms_than_what_serves_came_by(faults):
    first = promote(faults, "good", environment="approved", codes=(4,), user="carol@example.com")
    faults.ok("approve", first["id"], user="bob@example.com")
    assert faults.run("watch", first["id"], "--timeout", "60s").returncode == 0
    weak = ["--set", "env.approved.probation=1s", "--set", "guard.errors.worse_by=10000%"]
    view = promote(faults, "good2", *weak, environment="approved", codes=(4,), user="carol@example.com")
    assert any(change.startswith("guard errors") for change in view["changed_terms"]), view["changed_terms"]
    shown = next(p for p in faults.json("status", codes=(0, 4))["promotions"] if p["id"] == view["id"])
    assert shown["changed_terms"] == view["changed_terms"]
    done = faults.run("approve", view["id"], user="bob@example.com")
    assert done.returncode == 1 and "guard errors" in done.stderr and "probation" in done.stderr and "--plan" in done.stderr
    assert faults.stage(view["id"]) == "awaiting-approval"
    text = faults.ok("why", view["id"])
    assert "its plan's terms" in text and "was: rate" in text
    faults.ok("reject", view["id"], "--reason", "too loose", user="bob@example.com")
    # The same terms as before need no second look.
    view = promote(faults, "good2", environment="approved", codes=(4,), user="carol@example.com")
    assert view["changed_terms"] == []
    faults.ok("abort", view["id"], "--reason", "enough")


def test_a_gate_that_asked_for_less_once_is_no_evidence_for_what_it_asks_now(edited):
    path = edited.folder / "lockgate.toml"
    text = path.read_text()
    strict = text.replace("[env.quick]\nafter = \"dev\"\n", "[env.quick]\nafter = \"dev\"\ngates = { later = {} }\n")
    strict = strict.replace('run = "true"', 'run = "false"').replace("[env.approved]\nafter = \"dev\"", "[env.approved]\nafter = \"quick\"")
    assert strict.count("later") > text.count("later") and 'after = "quick"' in strict
    path.write_text(strict)
    release = template_release(edited, "good")
    straight = ["--set", 'env.quick.rollout=["100%"]']
    # Whoever asks brings an easier question along, which passes and serves.
    edited.ok("promote", release, "--env", "quick", *straight, "--set", "gate.later.run=true", "--wait", "--timeout", "60s")
    done = edited.run("plan", release, "--env", "approved", "--json")
    assert any("gate `later` of `quick` as it is now" in sentence for sentence in json.loads(done.stdout)["obstacles"])
    assert edited.run("promote", release, "--env", "approved").returncode == 1
    # Where the easier question comes along here, too, the plan says it to those who are asked to agree.
    view = edited.json("promote", release, "--env", "approved", "--set", "gate.later.run=true", codes=(4,), user="carol@example.com")
    terms = {term["name"]: term["text"] for term in view["terms"]}
    assert "run true" in terms["quick gate later"], terms


def test_a_gate_that_was_added_later_is_missing_before_anybody_approves_and_can_be_made_up_for(faults):
    release = faults.releases["good"][7:19]
    new = ["--set", "env.quick.gates={ later = {} }"]
    plan = ["plan", release, "--env", "production", *new, "--set", "env.production.after=quick", "--json"]
    lacks = json.loads(faults.run(*plan).stdout)["obstacles"]
    assert any("gate `later` of `quick`" in sentence for sentence in lacks), lacks
    straight = ["--set", 'env.quick.rollout=["100%"]']
    view = promote(faults, "good", *new, *straight, "--wait", "--timeout", "60s", environment="quick")
    assert [g["outcome"] for g in view["gates"]] == ["pass"]
    lacks = json.loads(faults.run(*plan).stdout)["obstacles"]
    assert not any("later" in sentence for sentence in lacks), lacks


def test_what_an_up_that_was_killed_left_behind_stops_nobody_else(faults):
    note = faults.state / "up.json"
    written = json.loads(note.read_text())
    os.kill(written["pid"], signal.SIGKILL)
    # Everything that it started ends with it.
    wait_for("silence", lambda: get(f"{faults.server}/health")[0] == 0 and get(f"{faults.gateway('production')}/v2")[0] == 0)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        note.write_text(json.dumps({**written, "pid": stranger.pid}))
        done = faults.run("up", "--stop")
        assert "nothing is running" in done.stdout + done.stderr
        assert stranger.poll() is None
        note.write_text(json.dumps({**written, "pid": stranger.pid}))
        faults.ok("up", "--detach", "--port", str(faults.port))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    # What served before serves again.
    wait_for("the gateway", lambda: get(f"{faults.gateway('production')}/v2/models/toy/ready")[0] == 200)


@pytest.fixture
def edited(template, tmp_path):
    """A copy of the project that may be changed, on a copy of its state, under a server of its own."""
    folder = tmp_path / "edited"
    subprocess.run(["git", "clone", "--quiet", str(template.folder), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "user.email", "Alice@Example.com"], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "user.name", "Alice"], check=True)
    lockgate = Lockgate(folder, template.copy(tmp_path / "state"), free_ports(8))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


def template_release(lockgate, name):
    """The release of a fault, by its version's alias."""
    releases = {r["manifest"]["model_version"]: r["digest"] for r in lockgate.json("release", "list")}
    url = f"{lockgate.server}/api/2.0/mlflow/registered-models/alias?name=toy&alias={name}"
    _, _, answer = get(url, headers={"X-Lockgate-User": "alice@example.com"})
    return releases[int(json.loads(answer)["model_version"]["version"])][7:19]


def commit(folder, message):
    git = ["git", "-C", str(folder), "commit", "--quiet", "--all", "--message", message]
    subprocess.run(git, check=True)


def test_a_release_of_other_code_than_the_models_own_needs_somebody_who_insists(edited):
    train = edited.folder / "train.py"
    edited.ok("run", "-p", "FAULT=good", timeout=300)
    made = edited.json("release", "create", "toy@good")["digest"]
    text = train.read_text()
    train.write_text(text + "\n# A change after the training.\n")
    for changed in ("the file", "the commit"):
        done = edited.run("release", "create", "toy@good")
        assert done.returncode == 1 and "--anyway" in done.stderr, (changed, done.stdout, done.stderr)
        if changed == "the file":
            assert "train" in done.stderr
            commit(edited.folder, "A change after the training\n\nCo-authored-by: Bob <BOB@Example.com>")
    insisted = edited.json("release", "create", "toy@good", "--anyway=only a comment")
    assert insisted["digest"] != made
    entry = next(e for e in reversed(edited.audit()) if e["resource"]["id"] == insisted["digest"])
    assert "only a comment" in entry["reason"]

    # Who wrote it with others is an author, too, however the name is spelt: bob may not approve his own work.
    view = edited.json("promote", insisted["digest"][7:19], "--env", "approved", codes=(4,), user="carol@example.com")
    for author in ("alice@example.com", "bob@example.com", "Bob@example.com"):
        done = edited.run("approve", view["id"], user=author)
        assert done.returncode == 1 and "author" in done.stderr, (author, done.stdout, done.stderr)
    assert edited.stage(view["id"]) == "awaiting-approval"


def test_the_demo_leaves_folders_alone_that_it_did_not_make(tmp_path):
    for name in ("flight-delays", "state"):
        base = tmp_path / f"with-{name}"
        (base / name).mkdir(parents=True)
        (base / name / "thesis.txt").write_text("three years of work")
        command = [PROGRAM, "demo", "--dir", str(base), "--port", str(free_ports(8))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=surroundings(), check=False)
        assert done.returncode == 1 and "left alone" in done.stderr, done.stdout + done.stderr
        assert [str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()] == [f"{name}/thesis.txt"]


def test_a_first_project_of_somebody_who_has_read_nothing(tmp_path):
    """`init` in a folder with a model's code writes a file that passes `check`, and each command says what comes next."""
    (tmp_path / "train.py").write_text("print('training')\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_model.py").write_text("def test_it():\n    assert True\n")
    repository(tmp_path)
    lockgate = Lockgate(tmp_path, tmp_path / ".state", free_ports(8))
    assert "lockgate check" in lockgate.ok("init")
    # Nothing of it is running, whatever else may listen at the usual address.
    for args in (["status"], ["rollback", "production"], ["approve", "--env", "production"]):
        done = lockgate.run(*args)
        assert done.returncode == 1 and "lockgate up" in done.stderr, done.stderr
    assert "is right" in lockgate.ok("check")
    done = lockgate.run("init")
    assert done.returncode == 1 and "--force" in done.stderr
