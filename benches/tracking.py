#!/usr/bin/env python3
"""Measures Lockgate's tracking server beside stock `mlflow server`, on one engine, in one run.

    make bench BENCH=tracking           or: LOCKGATE_BIN=target/release/lockgate python benches/tracking.py
    python benches/tracking.py --runs 1000      fewer runs to search (stock needs minutes to take 10,000 in)
    python benches/tracking.py --engine postgres    all on one PostgreSQL, as it comes and flushing its commits

Stock is measured in both ways: as it comes (4 worker processes, whose keep-alive answers wait 40 ms for an acknowledgement) and with one
worker, which avoids that. Everything is asked by HTTP/1.1 over kept-open connections on loopback. Beside them: how many durable commits of
one row bare SQLite does on the same disk. The results go to benches/results/tracking.json (tracking_postgres.json) and, as a table, to
the screen.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import CACHE, HERE, PROGRAM, Processes, free_port, load, peers, pss_mb, say, tree, wait_until, write_requests
from run import machine, rounded

sys.path.append(str(HERE.parent / "tests/mlflow"))
from engines import Cluster

API = "/api/2.0/mlflow"


class Server:
    """A tracking server under measurement."""

    def __init__(self, name, processes, folder, command, env=None):
        self.name, self.port, self.folder = name, free_port(), folder
        folder.mkdir(parents=True)
        begun = time.monotonic()
        options = {"env": env} if env else {}
        self.child = processes.start(*command(self.port, folder), log=folder / "log", **options)
        wait_until(f"{name} to answer", lambda: self.call("GET", "/health", raw=True), 120, self.child)
        self.ready = time.monotonic() - begun

    def call(self, method, path, body=None, raw=False, connection=None):
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        text = json.dumps(body) if body is not None else None
        own.request(method, path if raw else API + path, text, {"Content-Type": "application/json"} if text else {})
        reply = own.getresponse()
        content = reply.read()
        if not connection:
            own.close()
        if reply.status != 200:
            raise SystemExit(f"{self.name}: {method} {path}: {reply.status} {content[:500]}")
        return content if raw else json.loads(content)

    def new_run(self, connection=None):
        body = {"experiment_id": "0", "start_time": 1, "run_name": "bench"}
        return self.call("POST", "/runs/create", body, connection=connection)["run"]["info"]["run_id"]

    def new_experiment(self, name):
        return self.call("POST", "/experiments/create", {"name": name})["experiment_id"]

    def memory(self):
        return pss_mb(tree(self.child.pid))


def address(cluster):
    """A new database as SQLAlchemy calls it."""
    return cluster.database().replace("postgres://", "postgresql+psycopg2://")


def start(processes, scratch, cluster):
    stock_env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    mlflow = peers() / "mlflow"

    def stock(*more):
        return lambda port, folder: [
            mlflow, "server", "--backend-store-uri", address(cluster) if cluster else f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", folder / "artifacts", "--host", "127.0.0.1", "--port", port, *more,
        ]  # fmt: skip

    def ours(port, folder):
        database = ["--database", cluster.database()] if cluster else []
        return [PROGRAM, "server", "--trust-loopback", "--listen", f"127.0.0.1:{port}", "--home", folder, *database]

    return [
        Server("lockgate", processes, scratch / "lockgate", ours),
        Server("stock, 1 worker", processes, scratch / "stock-1", stock("--workers", "1"), stock_env),
        Server("stock, defaults", processes, scratch / "stock", stock(), stock_env),
    ]


def post(server, path, body):
    text = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    head = f"POST {API}{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def under_load(server, scratch, requests, connections, seconds):
    """Requests per second and latencies."""
    found = load(f"tcp:{server.port}", write_requests(scratch / "requests", requests), connections, 0.3, seconds)
    if found["failed"]:
        raise SystemExit(f"{server.name}: {found}")
    return found


def log_metric(server, scratch, connections, seconds):
    # Every request is another point: the load generator puts a number of its own into the timestamp.
    body = b'{"run_id":"%s","key":"loss","value":0.5,"timestamp":17########,"step":1}' % server.new_run().encode()
    return under_load(server, scratch, [post(server, "/runs/log-metric", body)], connections, seconds)["rps"]


def log_batch(server, scratch, connections, seconds):
    run = server.new_run()
    bodies = []
    for _ in range(8):
        points = [{"key": f"m{i}", "value": random.random(), "timestamp": 1_700_000_000_000, "step": random.randrange(10**9)} for i in range(1000)]
        bodies.append(post(server, "/runs/log-batch", {"run_id": run, "metrics": points}))
    return under_load(server, scratch, bodies, connections, seconds)["rps"] * 1000


def together(count, work):
    """Runs `work(i)` in so many threads; what goes wrong in one goes wrong here."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def clients(count, seconds, work):
    """How often per second `work(connection)` is done by so many clients."""
    done, end = [0] * count, time.monotonic() + seconds

    def client(i):
        connection = None
        while time.monotonic() < end:
            connection = work(connection)
            done[i] += 1

    begun = time.monotonic()
    together(count, client)
    return sum(done) / (time.monotonic() - begun)


def whole_run(server, count, seconds):
    """create_run, ten params and ten tags in one batch, end."""

    def work(connection):
        connection = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        run = server.new_run(connection)
        pairs = [{"key": f"k{i}", "value": str(i)} for i in range(10)]
        server.call("POST", "/runs/log-batch", {"run_id": run, "params": pairs, "tags": pairs}, connection=connection)
        server.call("POST", "/runs/update", {"run_id": run, "status": "FINISHED", "end_time": 2}, connection=connection)
        return connection

    return clients(count, seconds, work)


def fill(server, experiment, runs, points=1):
    """Runs of these numbers, each of ten metrics with so many points, ten params and five tags."""
    numbers, lock = iter(runs), threading.Lock()

    def client(_):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        while True:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            body = {"experiment_id": experiment, "start_time": 1_700_000_000_000 + i, "run_name": f"run {i}"}
            run = server.call("POST", "/runs/create", body, connection=connection)["run"]["info"]["run_id"]
            values = [(i * 7919 + k * 104729) % 100003 / 100003 for k in range(10)]
            body = {
                "run_id": run,
                "metrics": [
                    {"key": f"m{k}", "value": value, "timestamp": step, "step": step} for k, value in enumerate(values) for step in range(points)
                ],
                "params": [{"key": f"p{k}", "value": str((i + k) % 10)} for k in range(10)],
                "tags": [{"key": f"t{k}", "value": str(i % 7)} for k in range(5)],
            }
            server.call("POST", "/runs/log-batch", body, connection=connection)

    together(4, client)


SEARCHES = {
    "newest 1,000": {"max_results": 1000, "order_by": ["start_time DESC"]},
    "ordered by a metric, first 10": {"max_results": 10, "order_by": ["metrics.m0 DESC"]},
    "param and metric, ordered, first 100": {
        "max_results": 100, "filter": "params.p1 = '3' AND metrics.m1 < 0.5", "order_by": ["metrics.m2 ASC"],
    },
}  # fmt: skip


def p50(server, path, body, times):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    took = []
    for _ in range(times):
        begun = time.monotonic()
        server.call("POST" if body is not None else "GET", path, body, connection=connection)
        took.append(time.monotonic() - begun)
    return statistics.median(took) * 1000


def history(server, points):
    run = server.new_run()
    for at in range(0, points, 1000):
        body = {"run_id": run, "metrics": [{"key": "m", "value": i, "timestamp": i, "step": i} for i in range(at, at + 1000)]}
        server.call("POST", "/runs/log-batch", body)
    return p50(server, f"/metrics/get-history?run_id={run}&metric_key=m", None, 3)


def bare_commits(folder, seconds):
    """Durable commits of one row a second: SQLite alone, write-ahead log, every commit flushed."""
    conn = sqlite3.connect(folder / "bare.db", isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute("CREATE TABLE points (run TEXT, key TEXT, at INTEGER, step INTEGER, value REAL, PRIMARY KEY (run, key, at, step, value))")
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        conn.execute("INSERT INTO points VALUES ('r', 'loss', ?, 1, 0.5)", (count,))
        count += 1
    conn.close()
    return count / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = args.out or HERE / ("results/tracking_postgres.json" if args.engine == "postgres" else "results/tracking.json")
    scratch = CACHE / "tracking"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    processes, cells = Processes(), {}
    here = machine()
    cluster = Cluster(durable=True) if args.engine == "postgres" else None
    try:
        servers = start(processes, scratch, cluster)
        work = {
            "start-up, s": lambda s: s.ready,
            "memory idle, MB": lambda s: s.memory(),
            "log_metric, 1 client, /s": lambda s: log_metric(s, scratch, 1, args.seconds),
            "log_metric, 8 clients, /s": lambda s: log_metric(s, scratch, 8, args.seconds),
            "log_metric, 64 clients, /s": lambda s: log_metric(s, scratch, 64, args.seconds),
            "log_batch of 1,000, metrics/s": lambda s: log_batch(s, scratch, 1, args.seconds),
            "whole run, 1 client, /s": lambda s: whole_run(s, 1, args.seconds),
            "whole run, 8 clients, /s": lambda s: whole_run(s, 8, args.seconds),
            f"history of {args.points:,} points, p50 ms": lambda s: history(s, args.points),
        }
        for name, measure in work.items():
            cells[name] = {s.name: measure(s) for s in servers}
            say(f"{name}: {cells[name]}")
        cells["bare SQLite commits, /s"] = {"sqlite": bare_commits(scratch, args.seconds)}
        for server in servers:
            begun = time.monotonic()
            experiment = server.new_experiment("searched")
            fill(server, experiment, range(args.runs))
            say(f"{server.name}: {args.runs} runs in {time.monotonic() - begun:.0f} s")
            for name, body in SEARCHES.items():
                took = p50(server, "/runs/search", {"experiment_ids": [experiment], **body}, 7)
                cells.setdefault(f"search of {args.runs:,} runs: {name}, p50 ms", {})[server.name] = took
        table(cells, [s.name for s in servers])
        result = {"cells": cells, "machine": here, "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()), "runs": args.runs, "engine": args.engine}
        out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    finally:
        processes.stop()
        if cluster:
            cluster.stop()


def table(cells, names):
    print("| work | " + " | ".join(names) + " | beside stock at its best |\n|" + "---|" * (len(names) + 2))
    for work, found in cells.items():
        values = [found.get(name) for name in names]
        shown = [f"{v:,.4g}" if v is not None and v < 1000 else f"{v:,.0f}" if v is not None else "" for v in values]
        ratio = ""
        if all(v is not None for v in values):
            small = work.endswith((" ms", " s", " MB"))
            best = min(values[1:]) if small else max(values[1:])
            ratio = f"{best / values[0] if small else values[0] / best:.3g} times"
        else:
            shown[0] = f"{next(iter(found.values())):,.0f}"
        print(f"| {work} | " + " | ".join(shown) + f" | {ratio} |")


if __name__ == "__main__":
    main()
