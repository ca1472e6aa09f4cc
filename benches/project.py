"""The example, trained and served by a real Lockgate: `up`, `run`, `release create`, `promote`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from harness import CACHE, ENV, PROGRAM, ROOT, free_port, run, say, tree

AUTHOR = "alice@example.com"


class Project:
    """The flight-delays example in a folder of its own. What was downloaded stays for the next time; all else starts anew."""

    def __init__(self, name, settings=""):
        base = CACHE / name
        self.folder, self.state = base / "flight-delays", base / "state"
        self.stop_old()
        shutil.rmtree(self.folder, ignore_errors=True)
        for old in ("server", "env", "pipeline", "logs"):
            shutil.rmtree(self.state / old, ignore_errors=True)
        self.state.mkdir(parents=True, exist_ok=True)
        # Both benches share what is large.
        for shared in ("venvs", "lib"):
            (CACHE / shared).mkdir(exist_ok=True)
            if not (self.state / shared).exists():
                (self.state / shared).symlink_to(CACHE / shared)
        ignored = shutil.ignore_patterns("data", "models", "__pycache__", ".pytest_cache")
        shutil.copytree(ROOT / "examples/flight-delays", self.folder, ignore=ignored)
        if settings:
            with open(self.folder / "lockgate.toml", "a") as file:
                file.write(settings)
        self.commit("The flight-delays example", first=True)
        self.port = free_port(8)

    def stop_old(self):
        """Stops what an interrupted run of this bench left behind."""
        if (self.state / "up.json").is_file():
            self.call("up", "--stop")
            (self.state / "up.json").unlink(missing_ok=True)

    def commit(self, message, first=False):
        git = ["git", "-C", self.folder]
        if first:
            run("git", "init", "--quiet", "--initial-branch=main", self.folder)
            run(*git, "config", "user.email", AUTHOR)
            run(*git, "config", "user.name", "Alice")
        run(*git, "add", "--all")
        run(*git, "commit", "--quiet", "--message", message)

    def call(self, *args, user=AUTHOR, timeout=300):
        command = [PROGRAM, *args, "--project", str(self.folder), "--state", str(self.state), "--as", user]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENV, check=False)

    def ok(self, *args, codes=(0,), **options):
        done = self.call(*args, **options)
        if done.returncode not in codes:
            raise SystemExit(f"lockgate {' '.join(args)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *args, **options):
        return json.loads(self.ok(*args, "--json", **options))

    def up(self, gateway_threads=None):
        """Starts server and agents. A gateway has a thread for each core that it finds: with fewer, it finds fewer for a moment."""
        say("starting lockgate up")
        cores = os.sched_getaffinity(0)
        try:
            if gateway_threads:
                os.sched_setaffinity(0, sorted(cores)[:gateway_threads])
            self.ok("up", "--detach", "--port", str(self.port))
        finally:
            os.sched_setaffinity(0, cores)
        for pid in self.pids() if gateway_threads else []:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), cores)

    def down(self):
        self.call("up", "--stop")

    def train(self, *args):
        say("running the example's pipeline (about a minute; longer where its packages are not there yet)")
        self.ok("run", *args, timeout=900)

    def release(self, model):
        return self.json("release", "create", model)["digest"]

    def pids(self):
        return tree(json.loads((self.state / "up.json").read_text())["pid"])

    def gateway_port(self, environment):
        url = json.loads((self.state / "up.json").read_text())["gateways"][environment]
        return int(url.rpartition(":")[2])

    def lane(self, environment, model):
        """Which way requests take to a model that may run inside the gateway."""
        found = next(e for e in self.json("status")["environments"] if e["name"] == environment)
        return next((side.get("lane") for side in found["models"][model]["sides"] if side["role"] == "baseline"), None)

    def agent(self, environment):
        """The process of an environment's agent."""
        home = str(self.state / "env" / environment)
        return next(pid for pid in self.pids() if (a := arguments(pid))[1:2] == ["agent"] and home in a)

    def workers(self, environment):
        """Processes and sockets of an environment's workers, by the model's folder."""
        found = []
        for pid in tree(self.agent(environment)):
            args = arguments(pid)
            if args[1:2] == ["worker"]:
                found.append((pid, args[args.index("--model-dir") + 1], args[args.index("--socket") + 1]))
        return found


def arguments(pid):
    try:
        return Path("/proc", str(pid), "cmdline").read_text().split("\0")
    except OSError:
        return []
