"""Tracking at 100,000 runs and ten million points of metrics: does anything get worse than the number of runs explains?

    make bench BENCH=tracking_scale

Fills one server in steps (a tenth, then the rest) and measures the same requests after each. Stock's server would take hours to fill: its
numbers at 10,000 runs are in benches/results/tracking.json. The results go to benches/results/tracking_scale.json.
"""

import argparse
import json
import random
import shutil
import time
from pathlib import Path

from harness import CACHE, HERE, PROGRAM, Processes, say
from run import machine, rounded
from tracking import SEARCHES, Server, fill, log_metric, p50


def measured(server, scratch, experiment, runs):
    found = {name: p50(server, "/runs/search", {"experiment_ids": [experiment], **body}, 7) for name, body in SEARCHES.items()}
    some = {"experiment_ids": [experiment], "filter": f"attributes.run_name = 'run {random.randrange(runs)}'", "max_results": 10}
    found["by its name, p50 ms"] = p50(server, "/runs/search", some, 7)
    found["log_metric, 8 clients, /s"] = log_metric(server, scratch, 8, 2.0)
    found["memory, MB"] = server.memory()
    found["database, MB"] = sum(file.stat().st_size for file in (scratch / "lockgate").glob("lockgate.db*")) / 1e6
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=10, help="of each of ten metrics of each run")
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
        for name, found in cells.items():
            print(name, {key: float(f"{value:.4g}") for key, value in found.items()})
        result = {"cells": cells, "machine": here, "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())}
        args.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    finally:
        processes.stop()


if __name__ == "__main__":
    main()
