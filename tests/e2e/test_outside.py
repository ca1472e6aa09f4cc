"""Servers that a team has already, in the place of workers: MLServer as a process and at an address, and one of OpenAI's API whose
answers are streamed, asked with OpenAI's stock client.

MLServer and the client live in an environment of their own: OUTSIDE_PYTHON (`make e2e` makes it from tests/outside.txt).
"""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT, Lockgate, free_ports, get, post, repository, wait_for

OUTSIDE = os.environ.get("OUTSIDE_PYTHON")
pytestmark = pytest.mark.skipif(not OUTSIDE, reason="OUTSIDE_PYTHON names no Python with MLServer and OpenAI's client")
ROWS = [[1.0, 2.0], [0.5, 0.0]]
TENSOR = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": ROWS}]}


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    base = tmp_path_factory.mktemp("os")
    folder = base / "p"
    shutil.copytree(Path(__file__).parent / "projects/outside", folder, ignore=shutil.ignore_patterns("__pycache__"))
    place = free_ports(3)
    config = folder / "lockgate.toml"
    text = config.read_text().replace("MLSERVER start", f"{Path(OUTSIDE).parent}/mlserver start")
    config.write_text(text.replace("127.0.0.1:1", f"127.0.0.1:{place}"))
    repository(folder)
    lockgate = Lockgate(folder, base / "s", free_ports(8))
    lockgate.place = place
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    try:
        lockgate.ok("run", timeout=300)
        yield lockgate
        lockgate.verified()
    finally:
        lockgate.ok("up", "--stop")


def released(outside, model):
    release = outside.json("release", "create", model)
    return release["digest"], release["manifest"]


def promoted(outside, model, environment, **kwargs):
    digest, _ = released(outside, model)
    done = outside.run("promote", digest[7:19], "--env", environment, "--wait", "--timeout", "150s", timeout=200)
    assert done.returncode in kwargs.get("codes", (0,)), done.stdout + done.stderr + outside.ok("logs", "worker", environment)[-3000:]
    return digest, done.stdout


def values(url):
    status, headers, body = post(url, TENSOR)
    assert status == 200, (status, body)
    return json.loads(body)["outputs"][0]["data"], {k.lower(): v for k, v in headers.items()}


def listeners(outside, word):
    """The processes of this test's servers whose command line holds a word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_text()
        except OSError:
            continue
        if word in line and str(outside.state) in line and not line.startswith("/bin/sh"):
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def churn(outside):
    """MLServer's scikit-learn runtime, in `staging` through a parity and a benchmark gate."""
    digest, manifest = released(outside, "churn@slope2")
    assert manifest["runtime"]["kind"] == "process", manifest["runtime"]
    plan = outside.ok("plan", digest[7:19], "--env", "staging", codes=(2,))
    assert "not the program" in plan and "mlserver" in plan, plan
    promoted(outside, "churn@slope2", "staging")
    return f"{outside.gateway('staging')}/v2/models/churn"


def test_mlserver_passes_gates_and_answers_in_its_protocol(outside, churn):
    data, headers = values(f"{churn}/infer")
    assert data == pytest.approx([4.0, 1.0], abs=1e-6)
    assert headers["x-lockgate-release"] and headers["x-lockgate-variant"] == "baseline"
    record = outside.json("trace", headers["x-lockgate-prediction-id"], "--env", "staging")
    assert "churn" in json.dumps(record), record
    status, _, body = get(churn)
    assert status == 200 and json.loads(body)["name"] == "churn", body
    status, _, body = post(f"{outside.gateway('staging')}/models/churn/invocations", {"inputs": [[1, 2]]})
    assert status == 404 and "only the Open Inference Protocol" in body.decode(), (status, body)
    assert "Loaded model 'churn'" in outside.ok("logs", "worker", "staging")


def mlserver(outside):
    """MLServer's process in `staging`."""
    [server] = [p for p in listeners(outside, "mlserver") if f"{outside.state}/env/staging" in Path(f"/proc/{p}/cmdline").read_text()]
    return server


def test_a_killed_server_is_started_again(outside, churn):
    before = mlserver(outside)
    os.kill(before, signal.SIGKILL)
    wait_for("it to answer again", lambda: post(f"{churn}/infer", TENSOR)[0] == 200, 60)
    assert mlserver(outside) != before


def test_a_server_is_kept_from_its_agent_s_secrets(outside, churn):
    isolation = outside.json("status")["environments"][0]["isolation"]
    if "Landlock" not in isolation or "no Landlock" in isolation:
        pytest.skip(f"THE FENCE IS NOT TESTED: {isolation}")
    server = Path(f"/proc/{mlserver(outside)}")
    assert "NoNewPrivs:\t1" in (server / "status").read_text()
    variables = (server / "environ").read_text()
    assert "LOCKGATE" not in variables and "MLSERVER_HTTP_PORT" in variables


def test_a_server_ends_with_its_agent_and_comes_back_with_it(outside, churn):
    server = mlserver(outside)
    group = [p.name for p in Path("/proc").glob("[0-9]*") if "agent" in words(p) and "staging" in words(p)]
    [agent] = [int(pid) for pid in group if str(outside.state) in str(words(Path("/proc") / pid))]
    os.kill(agent, signal.SIGKILL)
    wait_for("the server to end", lambda: not Path(f"/proc/{server}/cmdline").exists(), 10)
    wait_for("the environment to serve again", lambda: post(f"{churn}/infer", TENSOR)[0] == 200, 60)


def words(process):
    try:
        return (process / "cmdline").read_text().split("\0")
    except OSError:
        return []


MODEL = """
import json, joblib, numpy as np
from sklearn.linear_model import LinearRegression
x = np.array([[float(i), float((7 - i) ** 2)] for i in range(8)])
joblib.dump(LinearRegression().fit(x, SLOPE * x[:, 0] + x[:, 1]), "model.joblib")
settings = {"name": "churn", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
open("model-settings.json", "w").write(json.dumps(settings))
"""


class Elsewhere:
    """MLServer as somebody else runs it, with the model of `away@slope2` or another one behind the same name."""

    def __init__(self, outside):
        self.folder, self.port = outside.folder.parent / "elsewhere", outside.place
        self.folder.mkdir()

    def start(self, slope=2):
        subprocess.run([OUTSIDE, "-c", MODEL.replace("SLOPE", str(slope))], cwd=self.folder, check=True)
        env = {"PATH": f"{Path(OUTSIDE).parent}:/usr/bin:/bin", "MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0"}
        ports = {"HTTP": self.port, "GRPC": self.port + 1, "METRICS": self.port + 2}
        env |= {f"MLSERVER_{kind}_PORT": str(port) for kind, port in ports.items()}
        with (self.folder / "log").open("wb") as log:
            command = [Path(OUTSIDE).parent / "mlserver", "start", "."]
            self.child = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        wait_for("MLServer", lambda: get(f"http://127.0.0.1:{self.port}/v2/models/churn/ready")[0] == 200, 60)

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            # MLServer that is told to stop just after its start may say that it has finished, and stay.
            self.child.kill()
            self.child.wait(10)


def test_a_server_that_somebody_else_runs_serves_what_it_is_pinned_to_and_its_loss_is_told(outside):
    digest, manifest = released(outside, "away@slope2")
    assert manifest["runtime"] == {
        "kind": "http",
        "server": {"protocol": "oip", "model": "churn", "stream_ms": 600_000},
        "addresses": ["{PLACE}", "http://127.0.0.1:9"],
    }
    plan = outside.run("plan", digest[7:19], "--env", "dev")
    assert "needs variable PLACE, which `dev` doesn't set" in plan.stdout + plan.stderr, plan.stdout + plan.stderr
    plan = outside.ok("plan", digest[7:19], "--env", "staging", codes=(2,))
    assert "somebody else runs the server" in plan and "proves nothing" in plan, plan
    server = Elsewhere(outside)
    server.start()
    try:
        promoted(outside, "away@slope2", "staging")
        url = f"{outside.gateway('staging')}/v2/models/away/infer"
        assert values(url)[0] == pytest.approx([4.0, 1.0], abs=1e-6)
        # Another model's predictions are not what answers there.
        _, told = promoted(outside, "away@slope3", "staging", codes=(3,))
        assert "largest difference" in told, told
    finally:
        server.stop()
    side = lambda: outside.json("status")["environments"][1]["models"]["away"]["sides"][0]  # noqa: E731
    wait_for("its loss to be told", lambda: side()["workers"] == [0, 2], 60)
    assert post(url, TENSOR)[0] == 503
    server.start()
    try:
        wait_for("it to be back", lambda: post(url, TENSOR)[0] == 200, 60)
        assert values(url)[0] == pytest.approx([4.0, 1.0], abs=1e-6)
        wait_for("that to be told", lambda: side()["workers"] == [1, 2], 10)
        # The second address has been down all the time.
        assert "127.0.0.1:9: it takes no connections" in side()["trouble"], side()
    finally:
        server.stop()
    wait_for("its loss to be told", lambda: side()["workers"] == [0, 2], 60)
    # Another model behind the same name gets no request, and the right one does again.
    server.start(slope=3)
    try:
        wait_for("the other model to be told", lambda: "its golden set" in (side()["trouble"] or ""), 60)
        assert post(url, TENSOR)[0] == 503
    finally:
        server.stop()
    wait_for("its loss to be told", lambda: side()["workers"] == [0, 2], 60)
    server.start()
    try:
        wait_for("it to be back", lambda: post(url, TENSOR)[0] == 200, 60)
        assert values(url)[0] == pytest.approx([4.0, 1.0], abs=1e-6)
    finally:
        server.stop()


class Chat:
    """One request whose answer is streamed, read in a thread."""

    def __init__(self, gateway, text, unit="u", model="llm"):
        address = urlsplit(gateway)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": text}]})
        headers = {"Content-Type": "application/json", "X-Unit": unit}
        self.connection.request("POST", "/v1/chat/completions", body, headers)
        self.reply = self.connection.getresponse()
        self.headers = {k.lower(): v for k, v in self.reply.getheaders()}

    def rest(self):
        """All words, and whether the stream came to its end."""
        try:
            text = self.reply.read().decode()
        except http.client.IncompleteRead as error:
            text = error.partial.decode()
        self.connection.close()
        return re.findall(r'"content": "(\w+) "', text), text.endswith("data: [DONE]\n\n")


@pytest.fixture(scope="module")
def llm(outside):
    promoted(outside, "llm@none", "production")
    return outside.gateway("production")


def test_openai_s_stock_client_finds_everything_that_it_asks_for(llm):
    command = [OUTSIDE, ROOT / "tests/clients/openai_chat.py", llm, "llm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert len(outcome) == 16 and {name: error for name, error in outcome.items() if error} == {}


def test_a_stream_is_recorded_with_its_text_when_it_has_ended(outside, llm):
    chat = Chat(llm, "go")
    words, done = chat.rest()
    assert done and words == [f"w{i}" for i in range(10)]
    prediction = chat.headers["x-lockgate-prediction-id"]

    def record():
        found = outside.run("trace", prediction, "--env", "production", "--json")
        return found.returncode == 0 and found.stdout

    text = wait_for("the record", record, 20)
    assert "w9" in text and "openai" in text, text


def test_a_client_that_goes_away_ends_the_work(outside, llm):
    chat = Chat(llm, "something long and slowly")
    chat.reply.read(10)
    chat.reply.close()
    chat.connection.close()
    wait_for("the server to notice", lambda: "the client went away" in outside.ok("logs", "worker", "production"), 20)


@pytest.mark.parametrize("fault", ["break", "error"])
def test_a_candidate_whose_streams_break_goes_back_and_what_is_under_way_comes_to_its_end(outside, llm, fault):
    before = outside.serves("production")
    digest, _ = released(outside, f"llm@{fault}")
    promotion = outside.json("promote", digest[7:19], "--env", "production")["id"]
    over, met = threading.Event(), {"baseline": [], "candidate": []}

    def ask(offset):
        for number in range(offset, 100_000, 4):
            if over.is_set():
                return
            chat = Chat(llm, "go", f"{fault}-{number}")
            met[chat.headers["x-lockgate-variant"]].append(chat.rest())

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for("the rollback", lambda: outside.stage(promotion) == "rolled-back", 120)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert outside.serves("production") == before
    assert met["candidate"] and met["baseline"] and all(done for _, done in met["baseline"])


def test_a_stream_of_a_release_that_is_replaced_goes_on_as_long_as_streams_may(outside, llm):
    begun = time.monotonic()
    # 30 s of words, and a stream may take 20 s.
    old = Chat(llm, "something slowly, and long")
    release = old.headers["x-lockgate-release"]
    digest, _ = released(outside, "llm@better")
    promotion = outside.json("promote", digest[7:19], "--env", "production")["id"]
    over = threading.Event()

    def ask(offset):
        for number in range(offset, 100_000, 4):
            if over.is_set():
                return
            Chat(llm, "go", f"better-{number}").rest()

    threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for("the promotion", lambda: outside.stage(promotion) == "confirmed", 120)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    replaced = time.monotonic() - begun
    assert Chat(llm, "go").headers["x-lockgate-release"] not in (release, "")
    words, done = old.rest()
    lasted = time.monotonic() - begun
    assert not done and 19 < lasted < 30 and 55 < len(words) < 80, (lasted, len(words))
    assert replaced < 17, f"the promotion took {replaced} s, so nothing is proven"


def test_a_client_that_reads_nothing_keeps_no_way_back_open_beyond_the_limit(outside, llm):
    before = outside.serves("production")
    [digest] = {released(outside, f"llm@{fault}")[0] for fault in ("none", "better")} - {before}
    promotion = outside.json("promote", digest[7:19], "--env", "production")["id"]
    happened = lambda what: any(e["what"] == what for e in outside.rollout(promotion))  # noqa: E731
    wait_for("its first step", lambda: happened("step_settled"), 60)
    silent = None
    for number in range(100):
        # A hundred megabytes, of which nobody takes any.
        chat = Chat(llm, "something long and verbosely", f"silent-{number}")
        if chat.headers["x-lockgate-variant"] == "candidate":
            silent = chat
            break
        chat.reply.close()
        chat.connection.close()
    begun = time.monotonic()
    assert silent, "no request was drawn into the candidate"
    outside.ok("abort", promotion, "--reason", "to see it")
    # A stream may take 20 s.
    wait_for("the seal", lambda: happened("rolled_back"), 60)
    lasted = time.monotonic() - begun
    assert 15 < lasted < 30, lasted
    assert outside.serves("production") == before
    _, done = silent.rest()
    assert not done


def test_a_gate_that_asks_rows_is_refused_where_only_texts_are_answered(outside, llm):
    digest, _ = released(outside, "llm@none")
    done = outside.run("promote", digest[7:19], "--env", "staging", "--wait", "--timeout", "20s")
    assert done.returncode != 0 and "can't be asked of `llm`" in done.stdout + done.stderr, done.stdout + done.stderr
    check = outside.run("check")
    assert "gate `golden` of `staging` can't be asked of `llm`" in check.stdout + check.stderr
