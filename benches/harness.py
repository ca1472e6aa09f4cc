"""What every measurement needs: tools, processes, load, and the CPU time of a tree of processes."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CACHE = Path(os.environ.get("LOCKGATE_BENCH_CACHE") or Path.home() / ".cache/lockgate-bench")
PROGRAM = os.environ.get("LOCKGATE_BIN") or str(ROOT / "target/release/lockgate")
ENV = {
    **{k: v for k, v in os.environ.items() if not k.startswith("LOCKGATE") or k == "LOCKGATE_ORT_LIB"},
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_SYSTEM_CERTS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, **options):
    """Runs a command to its end; its output only shows where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **{"env": ENV, **options})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


# ---- tools ---------------------------------------------------------------------------------------------------------------------


def uv():
    """uv: the one beside this Python, the one on the path, or one of our own."""
    for place in (Path(sys.executable).with_name("uv"), shutil.which("uv"), CACHE / "tools/bin/uv"):
        if place and Path(place).is_file():
            return str(place)
    say("installing uv")
    run(sys.executable, "-m", "venv", CACHE / "tools")
    run(CACHE / "tools/bin/python", "-m", "pip", "install", "--quiet", "uv==0.13.9")
    return str(CACHE / "tools/bin/uv")


def peers():
    """A Python environment with MLServer and MLflow, as locked; its `bin` folder."""
    lock = HERE / "peers.lock"
    place = CACHE / f"peers-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (place / ".complete").is_file():
        say("installing MLServer and MLflow (once)")
        shutil.rmtree(place, ignore_errors=True)
        tool = uv()
        run(tool, "venv", "--quiet", "--python", "3.11", place)
        run(tool, "pip", "sync", "--quiet", "--only-binary", ":all:", "--python", place / "bin/python", lock)
        (place / ".complete").touch()
    return place / "bin"


def nginx():
    """nginx: the installed one, or Debian's unpacked into the cache, so that no service is started."""
    for place in (shutil.which("nginx"), "/usr/sbin/nginx", CACHE / "nginx/usr/sbin/nginx"):
        if place and Path(place).is_file():
            return str(place)
    say("fetching nginx (once)")
    target = CACHE / "nginx"
    target.mkdir(parents=True, exist_ok=True)
    if not run("apt-cache", "policy", "nginx").strip():
        root = [] if os.getuid() == 0 else ["sudo"]
        run(*root, "apt-get", "update", "-qq")
    run("apt-get", "download", "-qq", "nginx", cwd=target)
    run("dpkg-deb", "-x", next(target.glob("nginx_*.deb")), target)
    return str(target / "usr/sbin/nginx")


def load_generator():
    """The load generator, compiled where its source changed."""
    source = HERE / "load.c"
    program = CACHE / f"load-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        run("cc", "-O2", "-Wall", "-o", program, source)
    return program


_given = set()


def free_port(count=1):
    """The first of `count` ports in a row on which nobody listens, and which weren't given before."""
    # Not where another bench that starts at the same time begins.
    start = 21000 + os.getpid() % 100 * 100
    for first in range(start, 32000, 10):
        if first in _given:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(first)
            return first
    raise SystemExit("no free ports")


# ---- processes -----------------------------------------------------------------------------------------------------------------


class Processes:
    """What was started here, and nothing else, is stopped here."""

    def __init__(self):
        self.started = []

    def start(self, *command, log, **options):
        with open(log, "ab") as out:
            child = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                **{"env": ENV, **options},
            )
        child.log = log
        self.started.append(child)
        return child

    def stop(self):
        for child in reversed(self.started):
            pids = tree(child.pid)
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for pid in pids[1:]:
                # Its children, where they outlive it; their parent was ours, and is gone.
                with contextlib.suppress(OSError):
                    if os.getsid(pid) == child.pid:
                        os.kill(pid, 9)
        self.started.clear()


def wait_until(what, ready, seconds=90, child=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child is not None and child.poll() is not None:
            raise SystemExit(f"{what}: ended with {child.returncode}\n{Path(child.log).read_text()[-3000:]}")
        with contextlib.suppress(OSError, ValueError):
            if found := ready():
                return found
        time.sleep(0.05)
    text = "" if child is None else Path(child.log).read_text()[-3000:]
    raise SystemExit(f"{what}: did not happen within {seconds} s\n{text}")


def _parents():
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def tree(root):
    """A process and all below it."""
    parents = _parents()
    found = [root] if root in parents else []
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu(pids):
    """CPU nanoseconds of each thread of these processes, by (process, thread)."""
    spent = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    spent[pid, int(task)] = int(Path("/proc", str(pid), "task", task, "schedstat").read_text().split()[0])
    return spent


def cpu_between(before, after):
    return sum(ns - before.get(thread, 0) for thread, ns in after.items())


def pss_mb(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def machine_busy():
    """Seconds that all cores were busy since boot."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


# ---- requests and load ---------------------------------------------------------------------------------------------------------


def http(path, body, unit):
    """One whole request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Flight-Id: {unit}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def write_requests(path, requests):
    path.write_bytes(b"".join(struct.pack("=I", len(r)) + r for r in requests))
    return path


def ask(address, request, timeout=30):
    """Sends one request, returns status and content."""
    kind, _, where = address.partition(":")
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as sock:
        sock.settimeout(timeout)
        sock.connect(where if kind == "unix" else ("127.0.0.1", int(where)))
        sock.sendall(request)
        with sock.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            length = 0
            while (line := answer.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            return status, answer.read(length)


def first_number(content):
    """The prediction in an answer of either protocol."""
    answer = json.loads(content)
    value = answer["outputs"][0]["data"] if "outputs" in answer else answer["predictions"]
    while not isinstance(value, float | int):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value


def load(address, requests, connections, warm, seconds):
    done = subprocess.run(
        [load_generator(), address, requests, str(connections), str(warm), str(seconds)],
        capture_output=True,
        text=True,
        timeout=warm + seconds + 60,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the load generator ended with {done.returncode} at {address}: {done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    if result["failed"]:
        result["first_failures"] = done.stderr[:2000]
    return result
