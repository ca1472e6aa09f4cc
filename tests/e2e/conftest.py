"""One running Lockgate for the whole session, on the breast-cancer example, driven by public commands alone."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LOCKGATE_BIN") or str(ROOT / "target/debug/lockgate")


def free_ports(count):
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(21000, 32000, 50):
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


class Lockgate:
    """A project with its state folder."""

    def __init__(self, folder, state, port):
        self.folder, self.state, self.port = Path(folder), Path(state), port
        self.server = f"http://127.0.0.1:{port}"

    def run(self, *args, user="alice@example.com", timeout=300):
        command = [PROGRAM, *args, "--project", str(self.folder), "--state", str(self.state), "--as", user]
        env = {k: v for k, v in os.environ.items() if not k.startswith("LOCKGATE") or k == "LOCKGATE_ORT_LIB"}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)

    def ok(self, *args, **kwargs):
        done = self.run(*args, **kwargs)
        assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *args, codes=(0,), **kwargs):
        done = self.run(*args, "--json", **kwargs)
        assert done.returncode in codes, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def gateway(self, environment):
        return json.loads((self.state / "up.json").read_text())["gateways"][environment]

    def audit(self):
        return [json.loads(line) for line in self.ok("audit", "log", "--json", "--limit", "100000").splitlines() if line]


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
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    base = tmp_path_factory.mktemp("lg")
    folder = base / "tumour"
    shutil.copytree(ROOT / "examples/breast-cancer", folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    git = ["git", "-C", str(folder), "-c", "user.email=alice@example.com", "-c", "user.name=Alice"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(folder)], check=True)
    subprocess.run([*git, "config", "user.email", "alice@example.com"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The example"], check=True)
    lockgate = Lockgate(folder, base / "state", free_ports(8))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    yield lockgate
    lockgate.run("up", "--stop")


@pytest.fixture(scope="session")
def released(project):
    """The example, trained and released."""
    project.ok("run")
    return project.json("release", "create", "tumour@candidate")["digest"]


@pytest.fixture(scope="session")
def serving(project, released):
    """The release, in production."""
    project.ok("promote", released[7:19], "--env", "production", "--wait")
    return released
