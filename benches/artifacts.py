#!/usr/bin/env python3
"""Measures how fast large artifacts go up and down: Lockgate beside stock `mlflow server --workers 1`, and nginx with the same file.

    make bench BENCH=artifacts          or: LOCKGATE_BIN=target/release/lockgate python benches/artifacts.py
    MLFLOW_STOCK=/path/to/mlflow python benches/artifacts.py --gb 1 --rounds 3

Over plain sockets on loopback (sendfile up, one buffer down), so that the client costs little; and with the stock client, as people send
files. Beside them what the machine itself does: SHA-256 of the same bytes, and writing and syncing them. Everything is read from the page
cache. The results go to benches/results/artifacts.json and, as a table, to the screen.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from harness import CACHE, ENV, HERE, PROGRAM, Processes, cpu, cpu_between, free_port, nginx, peers, pss_mb, say, tree, wait_until
from run import machine, rounded

API = "/api/2.0/mlflow-artifacts/artifacts"
BUFFER = 1 << 20


class Server:
    """A server that keeps artifacts."""

    def __init__(self, name, processes, folder, command, ready, env=None):
        self.name, self.port, self.folder = name, free_port(), folder
        folder.mkdir(parents=True)
        self.child = processes.start(*command(self.port, folder), log=folder / "log", env={**ENV, **(env or {})})
        wait_until(f"{name} to answer", lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}{ready}", timeout=5).status == 200, 120, self.child)

    @staticmethod
    def lockgate(processes, scratch):
        def command(port, folder):
            return [PROGRAM, "server", "--trust-loopback", "--listen", f"127.0.0.1:{port}", "--home", folder]

        return Server("lockgate", processes, scratch / "lockgate", command, "/health")

    @staticmethod
    def stock(processes, scratch):
        program = Path(os.environ.get("MLFLOW_STOCK") or peers() / "mlflow")

        def command(port, folder):
            return [program, "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts",
                    "--host", "127.0.0.1", "--port", port, "--workers", "1"]  # fmt: skip

        env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": f"{program.parent}:{os.environ['PATH']}"}
        return Server("stock, 1 worker", processes, scratch / "stock", command, "/health", env)

    @staticmethod
    def nginx(processes, scratch, file):
        folder = scratch / "nginx"

        def command(port, folder):
            www = folder / "www"
            www.mkdir()
            os.link(file, www / "big.bin")
            user = "user root;" if os.getuid() == 0 else ""
            (folder / "nginx.conf").write_text(
                f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off; sendfile on;"
                f" client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4;"
                f" scgi_temp_path {folder}/t5; server {{ listen 127.0.0.1:{port}; root {www}; location = /ready {{ return 200; }} }} }}\n"
            )
            return [nginx(), "-c", folder / "nginx.conf", "-p", folder]

        return Server("nginx", processes, folder, command, "/ready")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read() or b"{}")

    def new_root(self):
        """Where a new run's artifacts lie."""
        run = self.call("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        return run["artifact_uri"].removeprefix("mlflow-artifacts:/")

    def path(self, below):
        return f"/{below}" if self.name == "nginx" else f"{API}/{below}"


def make_file(path, size):
    """A file of bytes that don't repeat soon; its path and digest."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        while (left := size - file.tell()) > 0:
            block = os.urandom(min(8 * BUFFER, left))
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    return path, digest.hexdigest()


def _connect(server, head):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=600)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(f"{head}Host: 127.0.0.1:{server.port}\r\nConnection: close\r\n".encode())
    return connection


def _head(connection, status):
    """The answer's headers, and what was read behind them."""
    got = b""
    while b"\r\n\r\n" not in got:
        block = connection.recv(65536)
        if not block:
            raise SystemExit(f"the connection ended: {got[:500]}")
        got += block
    head, _, rest = got.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if int(first.split()[1]) != status:
        raise SystemExit(f"{first}: {rest[:500]}")
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, rest


def send(server, path, file, start=0, length=None, raw=False):
    """PUTs a file, or a part of it; its ETag where it gets one."""
    length = os.path.getsize(file) - start if length is None else length
    target = path if raw else server.path(path)
    with _connect(server, f"PUT {target} HTTP/1.1\r\n") as connection, open(file, "rb") as source:
        connection.sendall(f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n".encode())
        connection.sendfile(source, start, length)
        return _head(connection, 200)[0].get("etag")


def fetch(server, target, into=None, more="", status=200):
    """GETs something; how many bytes, and `into` with them (a bytearray or a hash)."""
    keep = {bytearray: "extend"}.get(type(into), "update")
    keep = getattr(into, keep) if into is not None else lambda _: None
    with _connect(server, f"GET {target} HTTP/1.1\r\n{more}") as connection:
        connection.sendall(b"\r\n")
        headers, rest = _head(connection, status)
        keep(rest)
        count, buffer = len(rest), bytearray(BUFFER)
        view = memoryview(buffer)
        chunked = headers.get("transfer-encoding") == "chunked"
        wanted = None if chunked else int(headers["content-length"])
        while wanted is None or count < wanted:
            got = connection.recv_into(buffer)
            if not got:
                break
            keep(view[:got])
            count += got
    if wanted is not None and count != wanted:
        raise SystemExit(f"{server.name}: {count} of {wanted} bytes came")
    return count, into


def timed(server, size, work):
    """MB/s, the server's CPU seconds per GB and its memory while it works."""
    pids = tree(server.child.pid)
    before, begun = cpu(pids), time.monotonic()
    work()
    took = time.monotonic() - begun
    return {"mb_per_s": size / 1e6 / took, "cpu_s_per_gb": cpu_between(before, cpu(pids)) / 1e9 / (size / 1e9), "pss_mb": pss_mb(pids)}


CLIENT = """
import sys, time, mlflow, tempfile, pathlib
server, verb, file = sys.argv[1:]
mlflow.set_tracking_uri(server)
client = mlflow.MlflowClient()
run = client.create_run("0").info.run_id
begun = time.monotonic()
client.log_artifact(run, file)
if verb == "download":
    folder = tempfile.mkdtemp(dir=pathlib.Path(file).parent)
    begun = time.monotonic()
    client.download_artifacts(run, pathlib.Path(file).name, folder)
print(time.monotonic() - begun)
"""


def with_the_client(server, verb, file, size, **env):
    """MB/s of the stock client, in a process of its own."""
    command = [sys.executable, "-c", CLIENT, f"http://127.0.0.1:{server.port}", verb, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**ENV, **env})
    if done.returncode != 0:
        raise SystemExit(f"the stock client at {server.name}: {done.stderr[-3000:]}")
    return {"mb_per_s": size / 1e6 / float(done.stdout.split()[-1])}


def bare(scratch, file, size):
    """What the machine does with the same bytes."""
    begun = time.monotonic()
    with open(file, "rb") as source:
        hashlib.file_digest(source, "sha256")
    hashed = time.monotonic()
    with open(file, "rb") as source, open(scratch / "copy", "wb") as target:
        shutil.copyfileobj(source, target, BUFFER)
        target.flush()
        os.fsync(target.fileno())
    written = time.monotonic()
    (scratch / "copy").unlink()
    return {"sha256": {"mb_per_s": size / 1e6 / (hashed - begun)}, "copy and fsync": {"mb_per_s": size / 1e6 / (written - hashed)}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results/artifacts.json")
    args = parser.parse_args()
    scratch, size = CACHE / "artifacts", int(args.gb * (1 << 30))
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    processes, found = Processes(), {}
    here = machine()

    def note(work, who, cell):
        found.setdefault(work, {}).setdefault(who, []).append(cell)
        say(f"{work}, {who}: {rounded(cell)}")

    try:
        file, _ = make_file(scratch / "big.bin", size)
        ours, stock = Server.lockgate(processes, scratch), Server.stock(processes, scratch)
        static = Server.nginx(processes, scratch, file)
        plain = {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}
        for _ in range(args.rounds):
            for server in (ours, stock):
                path = f"{server.new_root()}/big.bin"
                note("upload, one PUT", server.name, timed(server, size, lambda s=server, p=path: send(s, p, file)))
                note("download, one GET", server.name, timed(server, size, lambda s=server, p=path: fetch(s, s.path(p))))
            note("download, one GET", static.name, timed(static, size, lambda: fetch(static, "/big.bin")))
            for verb in ("upload", "download"):
                note(f"stock client, {verb}", "lockgate", with_the_client(ours, verb, file, size))
                note(f"stock client, {verb}", "lockgate, not in parts", with_the_client(ours, verb, file, size, **plain))
                note(f"stock client, {verb}", "stock, 1 worker", with_the_client(stock, verb, file, size))
            for name, cell in bare(scratch, file, size).items():
                note("the machine alone", name, cell)
    finally:
        processes.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    middle = {work: {who: {key: statistics.median(cell[key] for cell in cells) for key in cells[0]} for who, cells in row.items()} for work, row in found.items()}
    table(middle)
    result = {"gb": args.gb, "rounds": args.rounds, "middle": middle, "all": found, "machine": here, "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())}
    args.out.write_text(json.dumps(rounded(result), indent=1) + "\n")


def table(middle):
    print("| work | who | MB/s | server's CPU s/GB | server's memory, MB |\n|---|---|---|---|---|")
    for work, row in middle.items():
        for who, cell in row.items():
            rest = [f"{cell[key]:.3g}" if key in cell else "" for key in ("cpu_s_per_gb", "pss_mb")]
            print(f"| {work} | {who} | {cell['mb_per_s']:,.0f} | {' | '.join(rest)} |")


if __name__ == "__main__":
    main()
