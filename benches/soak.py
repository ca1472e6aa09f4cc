#!/usr/bin/env python3
"""Runs traffic against releases that come and go while workers are killed, and checks that nobody noticed.

    make soak                           or: LOCKGATE_BIN=target/release/lockgate python benches/soak.py --minutes 10

One environment with two workers and a backup gets a steady stream of requests at its gateway. Beside it, over and over: one of two
releases is promoted by a canary (every fourth time aborted in its middle, every fourth time rolled back after its end); every few
seconds a random worker dies by `kill -9`. At the end, all of this must hold:

* No request failed, except for those that were in flight in a worker when it was killed (excused: at most one for each connection,
  within a second of a kill; a gateway sends them again within its retry budget, so there should be few, or none).
* The gateway counted every request, and the prediction log holds every request, each once.
* Memory of server and agent is flat: in the last third it is not above the middle third by more than a tenth and 8 MB.
* Promotions go on, also after aborts and rollbacks, and the audit log verifies.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from harness import CACHE, HERE, Processes, ask, http, load_generator, pss_mb, say, wait_until, write_requests
from project import Project
from run import OIP, fetch_metrics, machine, rounded

ENVIRONMENT = """
[env.soak]
rollout = ["canary 20% for 3s", "50% for 2s", "100%"]
backup = "delay@rules"
workers = 2
probation = "10s"
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rps", type=float, default=600)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=8, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results/soak.json")
    return parser.parse_args()


class Soak:
    """The loops, and what they saw."""

    def __init__(self, args, project, releases):
        self.args, self.project, self.releases = args, project, releases
        self.random = random.Random(args.seed)
        self.stop = threading.Event()
        self.number, self.outcomes, self.trouble = 0, Counter(), []
        self.kills, self.memory = [], []
        self.began = time.monotonic()

    def promote(self, which):
        """One promotion to its end."""
        self.number += 1
        command = ["promote", self.releases[which][7:19], "--env", "soak"]
        done = self.project.call(*command)
        if "quarantine" in done.stdout + done.stderr:
            done = self.project.call(*command, "--lift-quarantine", "the soak goes on")
        if "already, with the same configuration" in done.stderr:
            # What a rollback or an abort went back to: the other one's turn.
            self.number -= 1
            self.outcomes["served already"] += 1
            return
        if done.returncode not in (0, 2, 4, 6):
            self.trouble.append(f"promote {which}: {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
            self.outcomes["refused"] += 1
            self.stop.wait(2)
            return
        if self.number % 4 == 2:
            self.stop.wait(2)
            taken = self.project.call("abort", "--env", "soak", "--reason", "the soak takes it back")
            self.outcomes["abort " + ("done" if taken.returncode in (0, 5) else "too late")] += 1
        done = self.project.call("watch", "--env", "soak", "--timeout", "90s")
        named = {0: "confirmed", 5: "rolled back", 6: "held", 3: "gate failed"}
        self.outcomes[named.get(done.returncode, f"watch {done.returncode}")] += 1
        if done.returncode not in (0, 5):
            self.trouble.append(f"watch: {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
            self.project.call("abort", "--env", "soak", "--reason", "the soak does not wait longer")
        if done.returncode == 0 and self.number % 4 == 0:
            done = self.project.call("rollback", "soak", "--wait", "--reason", "the soak goes back")
            self.outcomes["rollback " + ("done" if done.returncode in (0, 5) else "refused")] += 1
            if done.returncode not in (0, 5):
                self.trouble.append(f"rollback: {done.returncode}: {(done.stdout + done.stderr)[-600:]}")

    def promotions(self):
        self.project.call("watch", "--env", "soak", "--timeout", "90s")
        turn = 1
        while not self.stop.is_set():
            self.promote(turn % 2)
            turn += 1

    def killing(self):
        while not self.stop.wait(self.args.kill_every * self.random.uniform(0.5, 1.5)):
            workers = self.project.workers("soak")
            if len(workers) < 2:
                continue
            pid = self.random.choice(workers)[0]
            at = time.time() * 1000
            try:
                # Only children of the agent that this bench started are in that list.
                fd = os.pidfd_open(pid)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.close(fd)
            except ProcessLookupError:
                continue
            self.kills.append(at)

    def watching(self):
        server = next(p for p in self.project.pids() if "server" in Path(f"/proc/{p}/cmdline").read_text().split("\0")[1:2])
        agent = self.project.agent("soak")
        while not self.stop.wait(2):
            self.memory.append((time.monotonic() - self.began, pss_mb([server]), pss_mb([agent])))
            if self.project.agent("soak") != agent:
                self.trouble.append("the agent was started anew")
                agent = self.project.agent("soak")


def flat(samples):
    """Whether memory stopped growing: last third beside the middle one."""
    third = len(samples) // 3
    if third < 3:
        return True, 0, 0
    middle, last = statistics.median(samples[third : 2 * third]), statistics.median(samples[2 * third :])
    return last <= middle * 1.1 + 8, middle, last


def excused(failures, kills, connections):
    """Failures that a kill explains, and the others."""
    left = {kill: connections for kill in kills}
    good, bad = [], []
    for at, text in failures:
        kill = next((k for k in kills if k - 50 <= at <= k + 1000 and left[k] > 0), None)
        if kill is None:
            bad.append(text)
        else:
            left[kill] -= 1
            good.append(text)
    return good, bad


def logged(project):
    """Rows and different ids in the prediction log."""
    python = next(p for p in (CACHE / "venvs").iterdir() if (p / ".lockgate-complete").is_file()) / "bin/python"
    code = (
        "import sys,glob,pyarrow.parquet as p\n"
        "ids=[i for f in glob.glob(sys.argv[1]+'/**/*.parquet',recursive=True) for i in p.ParquetFile(f).read(['id']).column(0).to_pylist()]\n"
        "print(len(ids),len(set(ids)))"
    )
    done = subprocess.run([python, "-c", code, project.state / "env/soak/predictions"], capture_output=True, text=True, check=True)
    rows, ids = map(int, done.stdout.split())
    return rows, ids


def main():
    args = arguments()
    project, processes = Project("soak", ENVIRONMENT), Processes()
    try:
        project.up()
        project.train()
        first = project.release("delay@candidate")
        params = project.folder / "params.toml"
        params.write_text(params.read_text().replace("max_iter = 100", "max_iter = 90"))
        project.commit("Fewer trees")
        project.train()
        second = project.release("delay@candidate")
        project.release("delay@rules")
        # Without traffic nothing is proven, so nothing is promoted: the backup answers meanwhile.
        project.ok("promote", first[7:19], "--env", "soak", codes=(0, 2))
        lines = (project.folder / "data/staging-requests.jsonl").read_text().splitlines()
        path = write_requests(CACHE / "soak/requests", [http(OIP, line.encode(), "flight-########") for line in lines])
        port = project.gateway_port("soak")
        sample = b"GET /v2/models/delay/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        wait_until("the backup answers", lambda: ask(f"tcp:{port}", sample)[0] == 200, 60)
        soak = Soak(args, project, [first, second])
        say(f"{args.rps:.0f} requests per second for {args.minutes:g} minutes")
        command = [load_generator(), f"tcp:{port}", path, args.connections, 0, args.minutes * 60, args.rps]
        traffic = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threads = [threading.Thread(target=t, daemon=True) for t in (soak.promotions, soak.killing, soak.watching)]
        for thread in threads:
            thread.start()
        out, errors = traffic.communicate(timeout=args.minutes * 60 + 120)
        soak.stop.set()
        for thread in threads:
            thread.join(120)
        result = judge(args, project, soak, json.loads(out), errors, port)
    finally:
        processes.stop()
        project.down()
    rows, ids = logged(project)
    result["log"] |= {"rows": rows, "ids": ids}
    if not rows == ids == result["traffic"]["total"] - result["log"]["dropped"] - len(result["failures"]["not_excused"]):
        result["broken"].append(f"the prediction log holds {rows} rows with {ids} ids of {result['traffic']['total']} requests")
    result["broken"] += [] if result["log"]["dropped"] == 0 else [f"{result['log']['dropped']:.0f} log records were dropped"]
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(rounded(result), indent=1) + "\n")
    print(json.dumps(rounded({k: v for k, v in result.items() if k != "memory_samples"}), indent=1))
    print("BROKEN: " + "; ".join(result["broken"]) if result["broken"] else "all held")
    sys.exit(1 if result["broken"] else 0)


def judge(args, project, soak, traffic, errors, port):
    """Everything that must hold while it still runs."""
    broken = []
    failures = [(int(line.split()[0]), line[:400]) for line in errors.splitlines() if line[:1].isdigit()]
    good, bad = excused(failures, soak.kills, args.connections)
    if bad or traffic["failed"] > len(failures):
        broken.append(f"{max(len(bad), traffic['failed'] - len(good))} requests failed without an excuse")
    metrics = fetch_metrics(port)
    counted = sum(v for k, v in metrics.items() if k.startswith("lockgate_requests_total"))
    if counted < traffic["total"]:
        broken.append(f"the gateway counted {counted:.0f} of {traffic['total']} requests")
    memory = {}
    for at, name in ((1, "server"), (2, "agent")):
        fine, middle, last = flat([m[at] for m in soak.memory])
        memory[name] = {"middle_third_mb": middle, "last_third_mb": last, "flat": fine}
        if not fine:
            broken.append(f"the {name}'s memory grew from {middle:.0f} to {last:.0f} MB")
    if soak.outcomes["confirmed"] == 0:
        soak.trouble.append(project.ok("why", "--env", "soak"))
    for outcome in ("gate failed", "refused", "rollback refused"):
        # One may meet a rollback of the guards, or its own release; a row of them means that nothing can be promoted any more.
        if soak.outcomes[outcome] > 2:
            broken.append(f"{soak.outcomes[outcome]} promotions ended as: {outcome}")
    audit = project.json("audit", "verify")
    if not (audit.get("chain_ok") and audit.get("tables_ok")):
        broken.append(f"audit verify: {audit}")
    if soak.outcomes["confirmed"] == 0:
        broken.append("no promotion was confirmed")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
        "minutes": args.minutes,
        "rps": args.rps,
        "machine": machine(),
        "broken": broken,
        "traffic": traffic,
        "kills": len(soak.kills),
        "promotions": dict(soak.outcomes),
        "failures": {"excused": good[:50], "excused_count": len(good), "not_excused": bad[:50], "not_excused_count": len(bad)},
        "trouble": soak.trouble[:8],
        "memory": memory,
        "memory_samples": [[round(x, 1) for x in m] for m in soak.memory[:: max(1, len(soak.memory) // 60)]],
        "log": {"dropped": sum(v for k, v in metrics.items() if "dropped" in k), "counted": counted},
        "counts": {k: v for k, v in metrics.items() if v and k.startswith(("lockgate_requests_total", "lockgate_retries", "lockgate_failovers", "lockgate_errors"))},
    }


if __name__ == "__main__":
    main()
