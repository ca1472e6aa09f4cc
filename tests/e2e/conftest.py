"""Running Lockgates, driven by public commands alone: the breast-cancer example, and a project whose models carry faults.

Every test works on a state folder that nobody else uses, and at the end of each the audit log and its tables are verified.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LOCKGATE_BIN") or str(ROOT / "target/debug/lockgate")
FAULTS = ["good", "good2", "nan", "error", "broken", "constant", "slow", "swapped"]
_first_port = itertools.count(21000 + os.getpid() % 100 * 100, 20)


def free_ports(count):
    """The first of `count` ports in a row that nobody listens on."""
    for first in itertools.islice(_first_port, 300):
        first = 21000 + (first - 21000) % 11000
        sockets = []
        try:
            for port in range(first, first + count):
                sock = socket.socket()
                sockets.append(sock)
                sock.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for sock in sockets:
                sock.close()
    raise RuntimeError("no free ports")


def surroundings():
    """The variables that a program gets: none of Lockgate's own, and this Python first."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LOCKGATE") or k == "LOCKGATE_ORT_LIB"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    if "LOCKGATE_ORT_LIB" not in env:
        # The pinned wheel is among the tests' own packages; without it Lockgate installs it for each state folder.
        for library in Path(sys.prefix).glob("lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0"):
            env["LOCKGATE_ORT_LIB"] = str(library)
    return env


class Lockgate:
    """A project with its state folder, and `lockgate up` for it."""

    program = PROGRAM

    def __init__(self, folder, state, port):
        self.folder, self.state, self.port = Path(folder), Path(state), port
        self.server = f"http://127.0.0.1:{port}"

    def options(self):
        return []

    def run(self, *args, user="alice@example.com", timeout=120, env=None):
        command = [str(self.program), *args, "--project", str(self.folder), "--state", str(self.state), *self.options()]
        command += ["--as", user] if user else []
        env = {**surroundings(), **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)

    def ok(self, *args, codes=(0,), **kwargs):
        done = self.run(*args, **kwargs)
        assert done.returncode in codes, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *args, **kwargs):
        return json.loads(self.ok(*args, "--json", **kwargs))

    def gateway(self, environment):
        return json.loads((self.state / "up.json").read_text())["gateways"][environment]

    def audit(self):
        return [json.loads(line) for line in self.ok("audit", "log", "--json", "--limit", "100000").splitlines() if line]

    def verified(self):
        """The chain holds, the tables are byte for byte what the log leads to, and each agent's entries came in once."""
        view = self.json("audit", "verify")
        assert view["chain_ok"] and view["tables_ok"], view
        for agent, numbers in self.sources().items():
            assert numbers == list(range(len(numbers))), f"entries of {agent}: {numbers}"
        return view

    def sources(self):
        found = {}
        for entry in self.audit():
            if entry.get("source"):
                found.setdefault(entry["source"]["agent"], []).append(entry["source"]["seq"])
        return found

    def promotion(self, promotion):
        return self.json("why", promotion)["promotion"]

    def stage(self, promotion):
        return self.promotion(promotion)["stage_name"]

    def rollout(self, promotion):
        """What happened to a promotion's rollout, in order."""
        events = [e["event"] for e in self.audit() if e["resource"]["id"] == promotion and e.get("event")]
        return [e for e in events if e["kind"] == "rollout"]

    def serves(self, environment):
        """The release that an environment serves, by its history."""
        last = self.json("history", environment)[-1]["serving"]
        return max(last, key=lambda s: s["share"])["release"] if last else None


class Apart(Lockgate):
    """The same roles, each started by hand as `lockgate up` starts them: so each can be killed and stay away."""

    def __init__(self, folder, state, environments):
        super().__init__(folder, state, free_ports(1 + len(environments)))
        self.ports = {name: self.port + 1 + i for i, name in enumerate(environments)}
        self.children = {}
        accounts = []
        for name in environments:
            (self.state / "env" / name).mkdir(parents=True, exist_ok=True)
            (self.state / "env" / name / "token").write_text(f"secret-of-{name}")
            accounts.append(f"agent {name} {hashlib.sha256(f'secret-of-{name}'.encode()).hexdigest()}\n")
        (self.state / "server").mkdir(exist_ok=True)
        (self.state / "logs").mkdir(exist_ok=True)
        (self.state / "accounts").write_text("".join(accounts))

    def options(self):
        return ["--server", self.server]

    def gateway(self, environment):
        return f"http://127.0.0.1:{self.ports[environment]}"

    def spawn(self, name, args, env, health):
        with (self.state / f"logs/{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**surroundings(), **env}
            )
        self.children[name] = child
        if health:
            wait_for(f"{name} to answer", lambda: child.poll() is not None or get(health)[0] == 200, 60)
            assert child.poll() is None, (self.state / f"logs/{name}.log").read_text()[-2000:]
        return child

    def start_server(self, **env):
        args = ["server", "--trust-loopback", "--listen", f"127.0.0.1:{self.port}", "--home", str(self.state / "server")]
        return self.spawn("server", [*args, "--tokens", str(self.state / "accounts")], env, f"{self.server}/health")

    def start_agent(self, environment, wait=True, more=(), name=None, **env):
        home = self.state / "env" / environment
        args = ["agent", "--environment", environment, "--home", str(home), "--fence", str(self.state)]
        args += ["--listen", f"127.0.0.1:{self.ports[environment]}", "--token-file", str(home / "token")]
        args += ["--data", str(self.folder), "--server", self.server, *more]
        health = f"{self.gateway(environment)}/v2/health/live" if wait else None
        return self.spawn(name or f"agent-{environment}", args, env, health)

    def end(self, name, how=signal.SIGTERM):
        child = self.children.pop(name)
        child.send_signal(how)
        child.wait(30)

    def stop(self):
        for name in sorted(self.children):
            self.end(name)


def wait_for(what, condition, seconds=60):
    """Polls until the condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def post(url, body, headers=None):
    """POSTs JSON (or bytes) and returns status, headers and body, also for errors."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return get(url, data, {"Content-Type": "application/json", **(headers or {})})


def get(url, data=None, headers=None, method=None):
    """The same for GET; status 0 where nobody answers."""
    request = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except OSError:
        return 0, {}, b""


def rows(number):
    """The request of a number: 30 in 100 have a first value above 0.7, and no two are the same."""
    first = number * 0.6180339887498949 % 1
    return [round(first, 6), number % 7 / 7, number % 1000 / 1000, 1.0]


class Traffic:
    """Keep-alive connections that each send a share of `rps`, every request as a unit of its own. A context manager."""

    def __init__(self, gateway, rps=240, threads=6):
        self.address = urlsplit(gateway)
        self.rps, self.threads = rps, threads
        self.answers, self.lock, self.over = [], threading.Lock(), threading.Event()
        self.salt = f"{os.getpid()}-{id(self)}"

    def __enter__(self):
        self.workers = [threading.Thread(target=self.send, args=(i,), daemon=True) for i in range(self.threads)]
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for worker in self.workers:
            worker.join(30)

    def send(self, offset):
        connection, pause = None, self.threads / self.rps
        due = time.monotonic() + offset / self.rps
        for number in itertools.count(offset, self.threads):
            if self.over.wait(max(0.0, due - time.monotonic())):
                return
            # A machine that is too busy gets fewer requests, never a burst.
            due = max(due + pause, time.monotonic())
            values = rows(number)
            body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": values}]})
            headers = {"Content-Type": "application/json", "X-Unit": f"{self.salt}-{number}"}
            try:
                connection = connection or http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=20)
                connection.request("POST", "/v2/models/toy/infer", body, headers)
                reply = connection.getresponse()
                content = reply.read()
                if reply.will_close:
                    connection.close()
                    connection = None
                self.note(number, values, reply, content)
            except (OSError, http.client.HTTPException) as error:
                connection = None
                self.add({"status": 0, "variant": None, "release": None, "good": False, "why": repr(error)})

    def note(self, number, values, reply, content):
        right = sum(w * v for w, v in zip((1, 2, 3, 4), values))
        try:
            answer = json.loads(content)["outputs"][0]["data"][0] if reply.status == 200 else None
        except (ValueError, LookupError, TypeError):
            answer = None
        good = isinstance(answer, float | int) and abs(answer - right) < 1e-3
        variant, release = reply.getheader("x-lockgate-variant"), reply.getheader("x-lockgate-release")
        why = "" if good else f"{number}: {reply.status} {content[:200]!r}"
        self.add({"status": reply.status, "variant": variant, "release": release, "good": good, "why": why})

    def add(self, answer):
        with self.lock:
            self.answers.append({"at": time.time(), **answer})

    def since(self, at=0.0):
        with self.lock:
            return [a for a in self.answers if a["at"] >= at]

    def bad(self, variant=..., at=0.0):
        return [a for a in self.since(at) if not a["good"] and (variant is ... or a["variant"] == variant)]


def repository(folder):
    git = ["git", "-C", str(folder), "-c", "user.email=alice@example.com", "-c", "user.name=Alice"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(folder)], check=True)
    subprocess.run([*git, "config", "user.email", "alice@example.com"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The project"], check=True)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    base = tmp_path_factory.mktemp("lg")
    folder = base / "tumour"
    shutil.copytree(ROOT / "examples/breast-cancer", folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    repository(folder)
    lockgate = Lockgate(folder, base / "state", free_ports(8))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


@pytest.fixture(scope="session")
def released(project):
    """The example, trained and released."""
    project.ok("run", timeout=300)
    return project.json("release", "create", "tumour@candidate")["digest"]


@pytest.fixture(scope="session")
def serving(project, released):
    """The release, in production."""
    project.ok("promote", released[7:19], "--env", "production", "--wait")
    return released


class Template:
    """The project of faulty models with its releases; `good` serves environment `quick`. To be copied."""

    def __init__(self, base):
        self.folder = base / "faults"
        shutil.copytree(Path(__file__).parent / "projects/faults", self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        repository(self.folder)
        made = Apart(self.folder, base / "t", ["quick"])
        made.start_server()
        try:
            made.ok("run", "-p", f"FAULT={','.join(FAULTS)}", timeout=300)
            self.releases = {f: made.json("release", "create", f"toy@{f}")["digest"] for f in FAULTS}
            made.start_agent("quick")
            made.ok("promote", self.releases["good"][7:19], "--env", "quick", "--wait")
        finally:
            made.stop()
        self.state = made.state

    def copy(self, state):
        shutil.copytree(self.state, state, symlinks=True, ignore=shutil.ignore_patterns("run", "*.sock"))
        return state


@contextlib.contextmanager
def grown(template, base, environments, names):
    """The template's project with more environments: a server, and the agents of those named, which serve nothing yet."""
    folder = base / "p"
    shutil.copytree(template.folder, folder)
    with (folder / "lockgate.toml").open("a") as file:
        file.write(environments)
    lockgate = Apart(folder, template.copy(base / "s"), names)
    lockgate.releases = template.releases
    try:
        lockgate.start_server()
        lockgate.ok("apply")
        for name in names:
            lockgate.start_agent(name)
        yield lockgate
        lockgate.verified()
    finally:
        lockgate.stop()


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("tp"))


@pytest.fixture(scope="module")
def faults(template, tmp_path_factory):
    """`lockgate up` with the faulty models; `good` serves production."""
    state = template.copy(tmp_path_factory.mktemp("lg") / "state")
    lockgate = Lockgate(template.folder, state, free_ports(8))
    lockgate.releases = template.releases
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    lockgate.ok("promote", template.releases["good"][7:19], "--env", "production", "--wait", "--timeout", "60s")
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


@pytest.fixture
def apart(template, tmp_path_factory):
    """A server and the agent of `quick`, which serves `good`, not started yet."""
    lockgate = Apart(template.folder, template.copy(tmp_path_factory.mktemp("ap") / "s"), ["quick"])
    lockgate.releases = template.releases
    yield lockgate
    if "server" in lockgate.children:
        lockgate.verified()
    lockgate.stop()
