"""Tracking at 100,000 runs and ten million points of metrics: does anything get worse than the number of runs explains?

    make bench BENCH=tracking_scale

Fills one server in steps (a tenth, then the rest) and measures the same requests after each. Then stock's server (one worker) with as many
runs: filling it by its API would take over half an hour, so its SQLite file is written directly, with a single point of each metric, which
its searches don't read: they read the latest. The results go to benches/results/tracking_scale.json.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import time
import uuid
from pathlib import Path

from harness import CACHE, HERE, PROGRAM, Processes, peers, say
from run import machine, rounded
from tracking import SEARCHES, Server, fill, log_metric, p50


def fill_stock(database, experiment, runs):
    """The runs of `fill`, written as stock 3.17 writes them, with one point of each metric."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    ids = {i: uuid.uuid4().hex for i in runs}
    values = lambda i: [(i * 7919 + k * 104729) % 100003 / 100003 for k in range(10)]  # noqa: E731
    place = f"mlflow-artifacts:/{experiment}"
    rows = {
        "INSERT INTO runs VALUES (?, ?, 'UNKNOWN', '', '', '', 'RUNNING', ?, NULL, '', 'active', ?, ?, NULL)": (
            (run, f"run {i}", 1_700_000_000_000 + i, f"{place}/{run}/artifacts", experiment) for i, run in ids.items()
        ),
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, 0, ?, 0, 0)": (
            (f"m{k}", value, run) for i, run in ids.items() for k, value in enumerate(values(i))
        ),
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, 0, 0, 0, ?)": (
            (f"m{k}", value, run) for i, run in ids.items() for k, value in enumerate(values(i))
        ),
        "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)": (
            (f"p{k}", str((i + k) % 10), run) for i, run in ids.items() for k in range(10)
        ),
        "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)": (
            (key, value, run) for i, run in ids.items() for key, value in [*((f"t{k}", str(i % 7)) for k in range(5)), ("mlflow.runName", f"run {i}")]
        ),
    }  # fmt: skip
    connection.execute("BEGIN")
    for sql, values_of in rows.items():
        connection.executemany(sql, values_of)
    connection.execute("COMMIT")
    # Stock never does this by itself. Without it, SQLite has no answer to the search ordered by a metric within five minutes.
    connection.execute("ANALYZE")
    connection.close()


def stock(processes, scratch, runs):
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    database = scratch / "stock/mlflow.db"
    command = lambda port, folder: [  # noqa: E731
        peers() / "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", folder / "artifacts",
        "--host", "127.0.0.1", "--port", port, "--workers", "1",
    ]  # fmt: skip
    server = Server("stock, 1 worker", processes, scratch / "stock", command, env)
    experiment = server.new_experiment("searched")
    begun = time.monotonic()
    fill_stock(database, int(experiment), range(runs))
    say(f"stock: {runs:,} runs written into its file in {time.monotonic() - begun:.0f} s")
    found = searches(server, experiment, runs, 3)
    return found | {"memory, MB": server.memory(), "database, MB": database.stat().st_size / 1e6}


def searches(server, experiment, runs, times):
    found = {}
    for name, body in SEARCHES.items():
        found[name] = p50(server, "/runs/search", {"experiment_ids": [experiment], **body}, times)
        say(f"{server.name}: {name}: {found[name]:.1f} ms")
    some = {"experiment_ids": [experiment], "filter": f"attributes.run_name = 'run {random.randrange(runs)}'", "max_results": 10}
    return found | {"by its name, p50 ms": p50(server, "/runs/search", some, times)}


def measured(server, scratch, experiment, runs):
    found = searches(server, experiment, runs, 7)
    found["log_metric, 8 clients, /s"] = log_metric(server, scratch, 8, 2.0)
    found["memory, MB"] = server.memory()
    found["database, MB"] = sum(file.stat().st_size for file in (scratch / "lockgate").glob("lockgate.db*")) / 1e6
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=10, help="of each of ten metrics of each run")
    parser.add_argument("--alone", action="store_true", help="without stock")
    parser.add_argument("--out", type=Path, default=HERE / "results/tracking_scale.json")
    args = parser.parse_args()
    scratch = CACHE / "tracking-scale"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    processes, here, cells, filled = Processes(), machine(), {}, 0
    try:
        command = lambda port, home: [PROGRAM, "server", "--trust-loopback", "--listen", f"127.0.0.1:{port}", "--home", home]  # noqa: E731
        server = Server("lockgate", processes, scratch / "lockgate", command)
        experiment = server.new_experiment("searched")
        for runs in (args.runs // 10, args.runs):
            begun = time.monotonic()
            fill(server, experiment, range(filled, runs), args.points)
            took = time.monotonic() - begun
            say(f"{runs:,} runs, {runs * args.points * 10:,} points: {took:.0f} s")
            cells[f"{runs:,} runs, {runs * args.points * 10:,} points"] = measured(server, scratch, experiment, runs) | {"runs filled, /s": (runs - filled) / took}
            filled = runs
        if not args.alone:
            cells[f"stock, 1 worker, after ANALYZE, {args.runs:,} runs"] = stock(processes, scratch, args.runs)
        for name, found in cells.items():
            print(name, {key: float(f"{value:.4g}") for key, value in found.items()})
        result = {"cells": cells, "machine": here, "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())}
        args.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    finally:
        processes.stop()


if __name__ == "__main__":
    main()
