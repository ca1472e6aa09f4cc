"""Which database engine the servers under test use, a private PostgreSQL cluster, and servers that can be killed and started again."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LOCKGATE_BIN") or str(ROOT / "target/debug/lockgate")
ENGINE = os.environ.get("LOCKGATE_TEST_ENGINE") or "sqlite"
assert ENGINE in ("sqlite", "postgres"), f"LOCKGATE_TEST_ENGINE is sqlite or postgres, not {ENGINE}"

NUMBERS = itertools.count(1)
cluster = None



def sqlite_suffices(why):
    """Marks what need not run on each engine: what it shows doesn't reach the database, or is shown on every engine by another test."""
    return pytest.mark.skipif(ENGINE != "sqlite", reason=f"on SQLite alone: {why}")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Cluster:
    """A PostgreSQL server of this run alone. It ends with the run, however that ends. What tests write need not outlive the machine, so
    it is flushed only where `durable` asks for it."""

    def __init__(self, durable=False):
        self.durable = durable
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        assert found, "these tests need PostgreSQL's server programs: apt-get install postgresql"
        self.programs = found[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="lockgate-e2e-pg-"))
        self.port = free_port()
        # PostgreSQL refuses to run as root; and it is to end when its parent does.
        self.drop = ["setpriv", "--pdeathsig", "QUIT"]
        if os.getuid() == 0:
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.drop += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data = self.folder / "data"
        initdb = [self.programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run([*self.drop, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=self.folder)
        self.process = None
        self.start()

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        settings["fsync"] = "on" if self.durable else "off"
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            command = [*self.drop, self.programs / "postgres", "-D", self.folder / "data", *options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        end = time.monotonic() + 60
        while subprocess.run(ready).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def run(self, program, *arguments, **options):
        """Runs one of PostgreSQL's own programs against this cluster."""
        command = [self.programs / program, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, **options)

    def database(self):
        """The address of a new, empty database. Its password is one that must not be shown."""
        name = f"e2e_{next(NUMBERS)}"
        self.run("createdb", name)
        return f"postgres://postgres:geheim@127.0.0.1:{self.port}/{name}"

    def stop(self):
        self.process.send_signal(2)
        self.process.wait(30)
        shutil.rmtree(self.folder)


def postgres():
    """The cluster, started when it is first asked for."""
    global cluster
    cluster = cluster or Cluster()
    return cluster


def stop():
    if cluster:
        cluster.stop()


def database():
    """Options of `lockgate` for a fresh database of the engine under test; none for the SQLite file in the home folder."""
    return ["--database", postgres().database()] if ENGINE == "postgres" else []


class Server:
    """A server that can be killed and started again, over the same folder and database."""

    def __init__(self, home, *options, identity=("--trust-loopback",)):
        self.home, self.port, self.identity = Path(home), free_port(), identity
        self.address = f"http://127.0.0.1:{self.port}"
        self.options = [str(option) for option in options]
        self.process = None

    def start(self):
        self.home.mkdir(parents=True, exist_ok=True)
        command = [PROGRAM, "server", *self.identity, "--listen", self.address.removeprefix("http://"), "--home", str(self.home), *self.options]
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + 30
        while True:
            assert self.process.poll() is None and time.monotonic() < end, (self.home / "log").read_text()[-3000:]
            try:
                if requests.get(f"{self.address}/health", timeout=5).status_code == 200:
                    return self
            except requests.ConnectionError:
                time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0, (self.home / "log").read_text()[-3000:]
