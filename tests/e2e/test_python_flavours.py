"""Models without ONNX, from MLflow's log_model to answers: each in a Python process of its own packages, inside a fence.

All of them need the same packages, so one Python environment is made for all.
"""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from conftest import Lockgate, free_ports, post, repository, wait_for

ROWS = [["AA", 7, 900.0], ["CC", 22, 10.5]]
SPLIT = {"dataframe_split": {"columns": ["carrier", "hour", "distance"], "data": ROWS}}


@pytest.fixture(scope="module")
def flavours(tmp_path_factory):
    base = tmp_path_factory.mktemp("fl")
    folder = base / "p"
    shutil.copytree(Path(__file__).parent / "projects/flavours", folder)
    repository(folder)
    lockgate = Lockgate(folder, base / "s", free_ports(6))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    try:
        lockgate.ok("run", timeout=300)
        yield lockgate
        lockgate.verified()
    finally:
        lockgate.ok("up", "--stop")


@pytest.fixture(scope="module")
def delays(flavours):
    """A scikit-learn pipeline that reads text, in `dev` with two workers; while its packages are installed `status` says so."""
    release = flavours.json("release", "create", "delays")
    assert release["manifest"]["runtime"]["kind"] == "python"
    promotion = flavours.json("promote", release["digest"][7:19], "--env", "dev")["id"]

    def doing():
        dev = flavours.json("status")["environments"][0]
        return dev.get("doing") or dev["models"] or None

    said = wait_for("the installation to be told", doing, 120)
    assert said[0].startswith("installing the Python packages of release"), said
    wait_for("delays to serve", lambda: flavours.stage(promotion) != "gating" and flavours.stage(promotion) != "rolling", 300)
    assert flavours.serves("dev") == release["digest"], flavours.ok("why", promotion)
    return flavours.gateway("dev")


@pytest.fixture(scope="module")
def picky(flavours, delays):
    release = flavours.json("release", "create", "picky")["digest"]
    flavours.ok("promote", release[7:19], "--env", "dev", "--wait", "--timeout", "120s")
    return f"{flavours.gateway('dev')}/models/picky/invocations"


def right(body):
    """The answers are those of the pipeline: late by distance, and by carrier AA."""
    first, second = json.loads(body)["predictions"]
    assert first[1] > 0.9 and second[1] < 0.1, body
    return [first, second]


def test_rows_in_every_form_get_the_same_answers(delays):
    url = f"{delays}/models/delays/invocations"
    status, headers, body = post(url, SPLIT)
    assert status == 200, body
    want = right(body)
    records = [dict(zip(SPLIT["dataframe_split"]["columns"], row)) for row in ROWS]
    csv = "carrier,hour,distance\nAA,7,900\nCC,22,10.5\n"
    others = [
        post(url, {"dataframe_records": records}),
        post(url, csv.encode(), {"Content-Type": "text/csv"}),
        post(url, {"inputs": {"carrier": ["AA", "CC"], "hour": [7, 22], "distance": [900, 10.5]}}),
    ]
    for status, _, body in others:
        assert status == 200, body
        assert right(body) == want
    lower = {name.lower(): value for name, value in headers.items()}
    assert lower["x-lockgate-release"] and lower["x-lockgate-prediction-id"]
    columns = [("carrier", "BYTES", ["AA", "CC"]), ("hour", "INT64", [7, 22]), ("distance", "FP64", [900, 10.5])]
    inputs = [{"name": n, "shape": [2], "datatype": d, "data": v} for n, d, v in columns]
    status, _, body = post(f"{delays}/v2/models/delays/infer", {"inputs": inputs})
    assert status == 200, body
    [output] = json.loads(body)["outputs"]
    assert (output["shape"], output["data"]) == ([2, 2], [*want[0], *want[1]])


@pytest.mark.parametrize(
    "row, words",
    [
        (["AA", "late", 900.0], "hour"),
        (["AA", 7.5, 900.0], "hour"),
        ([None, 7, 900.0], "carrier"),
        (["AA", 7], "3 column names"),
    ],
)
def test_wrong_input_is_refused_with_its_column(delays, row, words):
    wrong = {"dataframe_split": {"columns": ["carrier", "hour", "distance"], "data": [row]}}
    status, _, body = post(f"{delays}/models/delays/invocations", wrong)
    assert status == 400 and words in json.loads(body)["message"], (status, body)


def rows(*rows):
    return {"dataframe_split": {"columns": ["x", "what", "path", "day"], "data": list(rows)}}


def test_text_moments_and_missing_values_reach_the_model_and_come_back_typed(picky):
    status, _, body = post(picky, rows([1.5, "go", "/", "2026-03-04T05:06:07"], [2, None, "/", "1999-01-01"]))
    assert status == 200, body
    wanted = [{"twice": 3.0, "year": 2026, "what": "go"}, {"twice": 4.0, "year": 1999, "what": "none"}]
    assert json.loads(body)["predictions"] == wanted
    status, _, body = post(picky, rows([1.5, "go", "/", "yesterday"]))
    assert status == 400 and "day" in json.loads(body)["message"], body


def test_a_model_s_own_errors_tell_no_paths_and_whose_fault_they_are(flavours, picky):
    status, _, body = post(picky, rows([1, "fail", "/", "2026-01-01"]))
    message = json.loads(body)["message"]
    assert status == 500 and "ValueError: this row can't be answered" in message and "secret" not in message, body
    status, _, body = post(picky, rows([1, "refuse", "/", "2026-01-01"]))
    assert status == 400 and "may not be refuse" in json.loads(body)["message"], body
    status, _, body = post(picky, rows([1, "much", "/", "2026-01-01"]))
    assert status == 500 and "MemoryError" in json.loads(body)["message"], body
    log = flavours.ok("logs", "worker", "dev")
    assert "asked for ['fail']" in log and "Traceback" in log, log[-2000:]


def test_a_bad_row_among_many_callers_fails_nobody_else(picky):
    answers = {}

    def ask(i):
        answers[i] = post(picky, rows([i, "fail" if i % 8 == 0 else "go", "/", "2026-01-01"]))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i, (status, _, body) in answers.items():
        assert status == (500 if i % 8 == 0 else 200), body
        if status == 200:
            assert json.loads(body)["predictions"][0]["twice"] == 2.0 * i


def test_a_model_can_not_read_its_agent_s_key_token_and_database(flavours, picky):
    isolation = flavours.json("status")["environments"][0]["isolation"]
    if "Landlock" not in isolation or "no Landlock" in isolation:
        pytest.skip(f"THE FENCE IS NOT TESTED: {isolation}")
    home = flavours.state / "env/dev"
    secrets = [home / "key.pem", home / "token", home / "agent.db", home, flavours.state / "server/lockgate.db"]
    found = [path for path in secrets if path.exists()]
    assert len(found) >= 4, found
    paths = ["/etc/hostname", *map(str, found)]
    status, _, body = post(picky, rows(*[[1, "peek", path, "2026-01-01"] for path in paths]))
    assert status == 200, body
    assert json.loads(body)["predictions"] == [1.0] + [0.0] * len(found)


def words(pid):
    """A process's command line; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def family():
    """Every process's children."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        found.setdefault(parent, []).append(int(entry.name))
    return found


def workers(flavours):
    """The workers of all models: the folder of each one's release, its process, and its Pythons."""
    children = family()
    agents = [p for p in sum(children.values(), []) if words(p)[1:2] == ["agent"] and str(flavours.state) in str(words(p))]
    found = [(worker, words(worker)) for agent in agents for worker in children.get(agent, [])]
    return [(w[w.index("--model-dir") + 1], worker, children.get(worker, [])) for worker, w in found if "--model-dir" in w]


def test_killed_pythons_fail_no_request_and_are_started_again(flavours, delays):
    url = f"{delays}/models/delays/invocations"
    before = workers(flavours)
    assert before and all(len(pythons) == 1 for _, _, pythons in before), before
    # One of each model's two.
    victims = {folder: pythons[0] for folder, _, pythons in before}
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            answers.append(post(url, SPLIT))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for python in victims.values():
        os.kill(python, signal.SIGKILL)

    def all_back():
        now = workers(flavours)
        alive = {python for _, _, pythons in now for python in pythons}
        return len(alive) == len(before) and not alive & set(victims.values()) and ready(flavours)

    wait_for("the Pythons to be started again", all_back, 60)
    over.set()
    for thread in threads:
        thread.join(60)
    bad = [a for a in answers if a[0] != 200]
    assert len(answers) > 10 and not bad, (len(answers), bad[:3])


def ready(flavours):
    models = flavours.json("status")["environments"][0]["models"]
    return all(side["workers"] == [2, 2] for model in models.values() for side in model["sides"])


def test_a_python_ends_with_its_worker(flavours, picky):
    _, worker, [python] = workers(flavours)[0]
    os.kill(worker, signal.SIGKILL)
    wait_for("its Python to end", lambda: not words(python), 20)
    wait_for("all workers to be ready", lambda: ready(flavours), 60)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        # The installer's own words.
        ("broken", ["can't install the packages", "pytz==0.0.1"]),
        ("astray", ["leads to something else than a package of a registry", "gone-1.0"]),
    ],
)
def test_packages_that_can_not_be_installed_end_the_promotion_with_the_reason(flavours, model, said):
    release = flavours.json("release", "create", model)["digest"]
    done = flavours.run("promote", release[7:19], "--env", "dev", "--wait", "--timeout", "120s")
    assert done.returncode == 3, done.stdout + done.stderr
    assert all(words in done.stdout for words in said), done.stdout


def test_a_model_without_a_signature_is_refused_with_what_to_do(flavours):
    path = flavours.folder / "lockgate.toml"
    path.write_text(path.read_text() + '\n[model.unsigned]\ntask = "binary"\n')
    done = flavours.run("release", "create", "unsigned")
    assert done.returncode != 0 and "no signature" in done.stderr and "infer_signature" in done.stderr, done.stderr
