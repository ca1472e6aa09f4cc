#!/usr/bin/env python3
"""Measures Lockgate beside other servers on the flight-delays example's model, one row a request, in one interleaved run.

    make bench                          or: LOCKGATE_BIN=target/release/lockgate python benches/run.py
    python benches/run.py --quick       a look, in about three minutes
    python benches/run.py --only gateway,nginx --connections 16

What is measured, and what the numbers mean: docs/benchmarks.md. Everything listens on loopback; what was downloaded and built stays
in ~/.cache/lockgate-bench (LOCKGATE_BENCH_CACHE). The results go to benches/results/latest.json and, as tables, to the screen.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import peers as servers
from harness import CACHE, HERE, PROGRAM, Processes, ask, cpu, cpu_between, first_number, http, load, machine_busy
from harness import peers, pss_mb, run, say, tree, wait_until, write_requests
from project import Project

ROWS = 2000
OIP, MLFLOW = "/v2/models/delay/infer", "/invocations"

# The same release once more, run inside its gateway.
INSIDE = """
[env.inside]
after = "dev"
isolation = "inline"
"""


class Target:
    """A server under load: where it is, what it is asked, and the processes whose CPU time counts, by part."""

    def __init__(self, name, text, address, protocol, parts, child=None):
        self.name, self.text, self.address, self.protocol, self.parts = name, text, address, protocol, parts
        self.child = child

    def pids(self):
        return {part: pids() for part, pids in self.parts.items()}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--connections", default="1,8,16")
    parser.add_argument("--only", help="names of targets, with commas between them")
    parser.add_argument("--quick", action="store_true", help="2 repetitions of 1 second")
    parser.add_argument("--gateway-threads", type=int, help="fewer than there are cores, to compare with one nginx process")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Enter is pressed (to profile)")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/benchmarks.md, too")
    parser.add_argument("--out", type=Path, default=HERE / "results/latest.json")
    args = parser.parse_args()
    if args.quick:
        args.repetitions, args.seconds = 2, 1.0
    args.connections = [int(n) for n in args.connections.split(",")]
    return args


def bodies(folder):
    """The same rows in both protocols, from May's recorded requests."""
    rows = [json.loads(line) for line in (folder / "data/staging-requests.jsonl").read_text().splitlines()[:ROWS]]
    names = json.loads(next(folder.parent.glob("state/env/dev/releases/*/input_example.json")).read_text())["columns"]
    oip = [json.dumps(row, separators=(",", ":")).encode() for row in rows]
    mlflow = [
        json.dumps({"dataframe_split": {"columns": names, "data": [row["inputs"][0]["data"]]}}, separators=(",", ":")).encode()
        for row in rows
    ]
    return {
        OIP: [http(OIP, body, "flight-########") for body in oip],
        MLFLOW: [http(MLFLOW, body, "flight-########") for body in mlflow],
    }


def start_all(args, project, processes, scratch):
    """Every target, started."""
    agent = project.agent("dev")
    (worker, release, socket), *more = project.workers("dev")
    if more:
        raise SystemExit("the environment has more than one worker")
    gateway = f"tcp:{project.gateway_port('dev')}"

    lockgate = {"gateway": lambda: [agent], "worker": lambda: [worker]}
    inside, [(idle, _, _)] = project.agent("inside"), project.workers("inside")
    within = {"gateway": lambda: [inside], "worker": lambda: [idle]}
    lane = f"tcp:{project.gateway_port('inside')}"
    targets = [
        Target("gateway", "lockgate: gateway and worker, /v2/…/infer", gateway, OIP, lockgate),
        Target("gateway-mlflow", "lockgate: gateway and worker, /invocations", gateway, MLFLOW, lockgate),
        Target("inline", "lockgate: the model inside the gateway (isolation = \"inline\"), /v2/…/infer", lane, OIP, within),
        Target("worker", "lockgate worker alone, Unix socket", f"unix:{socket}", OIP, {"worker": lambda: [worker]}),
    ]
    wanted = set(args.only.split(",")) if args.only else None

    def add(name, text, protocol, start, part, extra=None):
        if wanted and name not in wanted:
            return
        address, child = start()
        parts = {part: lambda: tree(child.pid), **(extra or {})}
        targets.append(Target(name, text, address, protocol, parts, child))

    below = {"worker": lambda: [worker]}
    for name, count in (("nginx", 1), ("nginx-2", 2)):
        text = f"nginx ({count} worker process{'es' if count > 1 else ''}), plain proxy of the same lockgate worker"
        folder = scratch / name
        add(name, text, OIP, lambda f=folder, c=count: servers.start_nginx(processes, f, c, socket), "proxy", below)
    add(
        "mlserver-tuned",
        "MLServer, own ONNX runtime class, no pool, no logs, /v2/…/infer",
        OIP,
        lambda: servers.mlserver_tuned(processes, scratch / "mlserver-tuned", release),
        "server",
    )
    add(
        "mlserver",
        "MLServer, mlserver-mlflow, defaults, /invocations",
        MLFLOW,
        lambda: servers.mlserver_default(processes, scratch / "mlserver", release),
        "server",
    )
    add(
        "mlflow",
        "mlflow models serve, defaults, /invocations",
        MLFLOW,
        lambda: servers.mlflow_serve(processes, scratch / "mlflow", release, 1),
        "server",
    )
    add(
        "mlflow-tuned",
        "mlflow models serve, no signature, 2 workers, /invocations",
        MLFLOW,
        lambda: servers.mlflow_serve(
            processes, scratch / "mlflow-tuned", servers.without_signature(release, scratch / "no-signature"), 2
        ),
        "server",
    )
    if wanted:
        targets = [t for t in targets if t.name in wanted]
    return targets


def check(targets, requests):
    """All must give the same answers, else their speeds mean nothing."""
    truth = None
    for target in targets:
        say(f"waiting for {target.name}")

        def answers(target=target):
            status, content = ask(target.address, requests[target.protocol][0])
            return status == 200 and content

        wait_until(f"{target.name} answers", answers, 120, target.child)
        found = []
        for request in requests[target.protocol][:50]:
            status, content = ask(target.address, request)
            if status != 200:
                raise SystemExit(f"{target.name} answers {status}: {content[:500]}")
            found.append(first_number(content))
        truth = truth or found
        worst = max(abs(a - b) for a, b in zip(truth, found, strict=True))
        if worst > 1e-5:
            raise SystemExit(f"{target.name} gives other answers: off by {worst}")


def measure(target, files, connections, seconds):
    """One cell."""
    pids = target.pids()
    before = {part: cpu(p) for part, p in pids.items()}
    busy, own, began = machine_busy(), os.times(), time.monotonic()
    result = load(target.address, files[target.protocol], connections, 0.3, seconds)
    elapsed, own_after = time.monotonic() - began, os.times()
    # What was logged on the side is written a little later; it belongs to these requests.
    time.sleep(0.1)
    after = {part: cpu(p) for part, p in pids.items()}
    spent = {part: cpu_between(before[part], after[part]) for part in pids}
    requests = max(result["total"], 1)
    result["cpu_us"] = {part: ns / 1e3 / requests for part, ns in spent.items()}
    ours = sum(spent.values()) / 1e9 + sum(own_after[i] - own[i] for i in range(4))
    result["others_cores"] = max(0.0, (machine_busy() - busy - ours) / elapsed)
    threads = {}
    for part, at in after.items():
        for (pid, task), ns in at.items():
            name = Path("/proc", str(pid), "task", str(task), "comm")
            spent_ns = ns - before[part].get((pid, task), 0)
            if spent_ns > 0 and name.exists():
                key = f"{part}/{name.read_text().strip()}"
                threads[key] = threads.get(key, 0) + spent_ns / 1e3 / requests
    result["threads_us"] = threads
    return result


def middle(values):
    return statistics.median(values)


def spread(values):
    return {"median": middle(values), "min": min(values), "max": max(values)}


def summary(targets, connections, cells):
    """Medians of every cell, and ratios to the gateway within each repetition."""
    out = {"cells": {}, "ratios": {}}
    for target in targets:
        for count in connections:
            runs = cells[target.name, count]
            cell = {key: spread([r[key] for r in runs]) for key in ("rps", "p50_us", "p99_us", "others_cores")}
            cell["failed"] = sum(r["failed"] for r in runs)
            cell["requests"] = sum(r["requests"] for r in runs)
            for part in runs[0]["cpu_us"]:
                cell[f"cpu_us_{part}"] = spread([r["cpu_us"][part] for r in runs])
            cell["cpu_us"] = spread([sum(r["cpu_us"].values()) for r in runs])
            names = sorted({name for r in runs for name in r["threads_us"]})
            cell["threads_us"] = {name: middle([r["threads_us"].get(name, 0) for r in runs]) for name in names}
            out["cells"][f"{target.name}@{count}"] = cell
    names = {t.name for t in targets}

    def ratio(title, top, bottom, value, each=None):
        for count in connections if top in names and bottom in names else []:
            pairs = zip(cells[top, count], cells[bottom, count], strict=True)
            values = [value(a) / value(b) if each is None else each(a, b) for a, b in pairs]
            out["ratios"][f"{title}@{count}"] = spread(values)

    # Like beside like: the same protocol.
    for base, others in (("gateway", ["mlserver-tuned"]), ("gateway-mlflow", ["mlserver", "mlflow", "mlflow-tuned"])):
        for other in others:
            ratio(f"{base} / {other}: requests per second", base, other, lambda r: r["rps"])
            ratio(f"{base} / {other}: p99", base, other, lambda r: r["p99_us"])
            ratio(f"{other} / {base}: CPU per request", other, base, lambda r: sum(r["cpu_us"].values()))
    for other in ("nginx", "nginx-2"):
        ratio(f"gateway / {other}: requests per second", "gateway", other, lambda r: r["rps"])
        ratio(f"gateway / {other}: p50", "gateway", other, lambda r: r["p50_us"])
        ratio(f"gateway / {other}: p99", "gateway", other, lambda r: r["p99_us"])
        ratio(f"gateway / {other}: CPU of the proxy", "gateway", other, lambda r: r["cpu_us"].get("gateway", r["cpu_us"].get("proxy")))
        ratio(
            f"gateway's own threads / {other}: CPU of the proxy",
            "gateway",
            other,
            None,
            lambda a, b: sum(us for name, us in a["threads_us"].items() if name.startswith("gateway/gateway-")) / b["cpu_us"]["proxy"],
        )
    ratio("inline / gateway: requests per second", "inline", "gateway", lambda r: r["rps"])
    ratio("inline / gateway: p50", "inline", "gateway", lambda r: r["p50_us"])
    ratio("inline / gateway: CPU of the whole", "inline", "gateway", lambda r: sum(r["cpu_us"].values()))
    ratio("gateway / worker alone: requests per second", "gateway", "worker", lambda r: r["rps"])
    ratio("gateway / worker alone: CPU of the whole", "gateway", "worker", lambda r: sum(r["cpu_us"].values()))
    ratio("gateway - worker alone: p50 in µs", "gateway", "worker", None, lambda a, b: a["p50_us"] - b["p50_us"])
    return out


def tables(targets, connections, result):
    """The results as Markdown."""
    lines = ["| server | connections | requests/s | p50 ms | p99 ms | CPU µs/request (of which) |", "|---|---|---|---|---|---|"]
    for target in targets:
        for count in connections:
            cell = result["cells"][f"{target.name}@{count}"]
            parts = [f"{k[7:]} {v['median']:.1f}" for k, v in cell.items() if k.startswith("cpu_us_")]
            rps = cell["rps"]
            lines.append(
                f"| {target.text} | {count} | {rps['median']:,.0f} ({rps['min']:,.0f}–{rps['max']:,.0f}) "
                f"| {cell['p50_us']['median'] / 1000:.3f} | {cell['p99_us']['median'] / 1000:.2f} "
                f"| {cell['cpu_us']['median']:.1f} ({', '.join(parts)}) |"
            )
            if cell["failed"]:
                lines.append(f"| … **{cell['failed']} failed** | | | | | |")
    heads = " | ".join(f"{n} connection{'s' if n > 1 else ''}" for n in connections)
    lines += ["", f"| ratio, median (range) | {heads} |", "|---|" + "---|" * len(connections)]
    for title in dict.fromkeys(name.rpartition("@")[0] for name in result["ratios"]):
        found = [result["ratios"][f"{title}@{n}"] for n in connections]
        text = " | ".join(f"{figure(v['median'])} ({figure(v['min'])}–{figure(v['max'])})" for v in found)
        lines.append(f"| {title} | {text} |")
    return "\n".join(lines)


def write_docs(text, result):
    """Puts the tables between the marks of the page."""
    page = HERE.parent / "docs/benchmarks.md"
    before, mark, rest = page.read_text().partition("<!-- results: benches/run.py --docs writes between these marks -->\n")
    _, end, after = rest.partition("<!-- end of results -->")
    if not mark or not end:
        raise SystemExit(f"{page} has no marks for the results")
    here, found, settings = result["machine"], result["versions"], result["settings"]
    others = max(cell["others_cores"]["median"] for cell in result["cells"].values())
    head = (
        f"Measured {result['when']} on {here['cores']} cores of {here['cpu']}, Linux {here['kernel']}: {settings['repetitions']} repetitions of "
        f"{settings['seconds']:g} s for each number, in shuffled order; median, and range in brackets. Other programs took up to {others:.2f} cores meanwhile. "
        f"Lockgate {found['lockgate'].split()[-1]}, nginx {found['nginx']}, MLServer {found['mlserver']}, MLflow {found['mlflow']}, "
        f"ONNX Runtime {found['onnxruntime']}, Python {found['python']}.\n\n"
    )
    page.write_text(before + mark + "\n" + head + text + "\n\n" + end + after)


def figure(value):
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def versions():
    found = {"lockgate": run(PROGRAM, "--version").strip(), "binary": PROGRAM, "python": platform.python_version()}
    listed = run(peers() / "python", "-c", "import importlib.metadata as m; print(*[f'{n}={m.version(n)}' for n in "
                 "('mlserver','mlflow','onnxruntime','uvicorn','uvloop','fastapi','pandas','numpy')])")  # fmt: skip
    found.update(pair.split("=") for pair in listed.split())
    done = subprocess.run([servers.nginx(), "-v"], capture_output=True, text=True, check=False)
    found["nginx"] = (done.stderr + done.stdout).strip().rpartition("/")[2]
    return found


def machine():
    model = next((x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?")
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "system": platform.platform(), "load": os.getloadavg()}


def main():
    args = arguments()
    began = time.monotonic()
    found = versions()
    say(", ".join(f"{k} {v}" for k, v in found.items()))
    project, processes = Project("run", INSIDE), Processes()
    scratch = CACHE / "run/scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        project.up(args.gateway_threads)
        project.train()
        project.release("delay@candidate")
        for environment in ("dev", "inside"):
            project.ok("promote", "latest", "--env", environment, "--wait")
        wait_until("the model to be inside the gateway", lambda: project.lane("inside", "delay") == "inline", 60)
        requests = bodies(project.folder)
        files = {p: write_requests(scratch / f"requests-{i}", r) for i, (p, r) in enumerate(requests.items())}
        targets = start_all(args, project, processes, scratch)
        check(targets, requests)
        memory = {t.name: {part: round(pss_mb(p), 1) for part, p in t.pids().items()} for t in targets}
        cells = {(t.name, n): [] for t in targets for n in args.connections}
        here = machine()
        say(f"ready after {time.monotonic() - began:.0f} s; load {here['load'][0]:.1f}")
        # Everything once, uncounted: lazy imports, first connections, the gateway's first look at the model's cost.
        for target in targets:
            load(target.address, files[target.protocol], 4, 0, 0.5)
        shuffled = random.Random(7)
        for repetition in range(args.repetitions):
            order = [(t, n) for n in args.connections for t in targets]
            shuffled.shuffle(order)
            for target, count in order:
                cells[target.name, count].append(measure(target, files, count, args.seconds))
            say(f"repetition {repetition + 1} of {args.repetitions} done after {time.monotonic() - began:.0f} s")
        result = summary(targets, args.connections, cells)
        check_inside(project)
        result["memory_pss_mb"] = memory
        result["memory_pss_mb_after"] = {t.name: {part: round(pss_mb(p), 1) for part, p in t.pids().items()} for t in targets}
        metrics = fetch_metrics(project.gateway_port("dev"))
        result["log_dropped"] = {k: v for k, v in metrics.items() if "drop" in k}
        result["machine"], result["versions"] = here, found
        result["settings"] = {"repetitions": args.repetitions, "seconds": args.seconds, "connections": args.connections, "gateway_threads": args.gateway_threads}
        result["when"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        args.out.parent.mkdir(exist_ok=True)
        args.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
        text = tables(targets, args.connections, result)
        print(text)
        if args.docs:
            write_docs(text, result)
        print(f"\nlog records dropped: {result['log_dropped']}\nwritten to {args.out} after {time.monotonic() - began:.0f} s")
        if args.keep:
            for target in targets:
                print(target.name, target.address, files[target.protocol], target.pids())
            input("Enter ends it ")
    finally:
        processes.stop()
        project.down()


def check_inside(project):
    """A model that was taken out of the gateway meanwhile would have been measured as a worker's."""
    counts = {k: v for k, v in fetch_metrics(project.gateway_port("inside")).items() if k.startswith("lockgate_inline")}
    outside = {k: v for k, v in counts.items() if v and ("answered" not in k)}
    if outside or project.lane("inside", "delay") != "inline":
        raise SystemExit(f"not all was answered inside the gateway: {counts}, {project.lane('inside', 'delay')}")


def fetch_metrics(port):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and not line.startswith("#")}


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
