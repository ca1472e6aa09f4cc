#!/usr/bin/env python3
"""Sends a large artifact to Lockgate and fetches it again, whole and in parts, and watches the server's memory. Not in CI.

    LOCKGATE_BIN=target/release/lockgate python benches/artifacts_memory.py             1 GB
    python benches/artifacts_memory.py --gb 5 --out benches/results/artifacts_memory.json

Ends with 1 where the server ever held more than --limit MB. Needs three times the size on disk for a while.
"""

import argparse
import hashlib
import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from artifacts import Server, fetch, make_file, send
from harness import CACHE, Processes, say
from run import machine, rounded

PART = 10 << 20  # as the stock client cuts
PIECE = 100 << 20
THREADS = 8


class Watch:
    """The largest resident memory of a process between two moments, from /proc."""

    def __init__(self, pid):
        self.status, self.most, self.over = Path("/proc", str(pid), "status"), 0.0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(0.02):
            self.sample()

    def sample(self):
        line = next(line for line in self.status.read_text().splitlines() if line.startswith("VmRSS:"))
        self.most = max(self.most, int(line.split()[1]) / 1024)

    def __enter__(self):
        self.sample()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.sample()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=200.0, help="MB of resident memory that are too many")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    scratch, size = CACHE / "artifacts-memory", int(args.gb * (1 << 30))
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    free = shutil.disk_usage(scratch).free
    if free < 3 * size + (1 << 30):
        raise SystemExit(f"{free >> 30} GB are free in {scratch}; this needs {(3 * size >> 30) + 1}")
    processes, steps = Processes(), {}
    try:
        file, digest = make_file(scratch / "big.bin", size)
        server = Server.lockgate(processes, scratch)
        root = server.new_root()
        work = {
            "idle": lambda: time.sleep(1),
            "upload, whole": lambda: send(server, f"{root}/whole.bin", file),
            "download, whole": lambda: check(digest, fetch(server, server.path(f"{root}/whole.bin"), hashlib.sha256())[1]),
            "upload, in parts": lambda: in_parts(server, root, file, size),
            "download, in pieces": lambda: in_pieces(server, f"{root}/parts.bin", size, digest),
        }
        for name, step in work.items():
            with Watch(server.child.pid) as watch:
                begun = time.monotonic()
                step()
                took = time.monotonic() - begun
            steps[name] = {"seconds": took, "mb_per_s": size / 1e6 / took, "rss_mb": watch.most}
            if name == "idle":
                steps[name] = {"rss_mb": watch.most}
            say(f"{name}: {rounded(steps[name])}")
    finally:
        processes.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    most = max(step["rss_mb"] for step in steps.values())
    result = {"gb": args.gb, "most_rss_mb": most, "limit_mb": args.limit, "steps": steps, "machine": machine(), "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())}
    text = json.dumps(rounded(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    sys.exit(most > args.limit)


def check(expected, found):
    if found.hexdigest() != expected:
        raise SystemExit("the bytes came back changed")


def in_parts(server, root, file, size):
    count = -(-size // PART)
    begun = server.call("POST", f"/api/2.0/mlflow-artifacts/mpu/create/{root}", {"path": "parts.bin", "num_parts": count})

    def part(credential):
        number = credential["part_number"]
        target = credential["url"].partition(f":{server.port}")[2]
        return {"part_number": number, "etag": send(server, target, file, (number - 1) * PART, min(PART, size - (number - 1) * PART), raw=True)}

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(part, begun["credentials"]))
    begin = time.monotonic()
    server.call("POST", f"/api/2.0/mlflow-artifacts/mpu/complete/{root}", {"path": "parts.bin", "upload_id": begun["upload_id"], "parts": parts})
    say(f"joining {count} parts took {time.monotonic() - begin:.1f} s")


def in_pieces(server, path, size, digest):
    """In the file's order, several at a time; the pieces' bytes are checked where they are."""
    target = server.call("GET", f"/api/2.0/mlflow-artifacts/presigned/{path}")["url"].partition(f":{server.port}")[2]

    def piece(start):
        body = bytearray()
        last = min(start + PIECE, size) - 1
        fetch(server, target, body, f"Range: bytes={start}-{last}\r\n", status=206)
        return body

    whole = hashlib.sha256()
    with ThreadPoolExecutor(4) as pool:
        starts = list(range(0, size, PIECE))
        for first in range(0, len(starts), 4):
            for body in pool.map(piece, starts[first : first + 4]):
                whole.update(body)
    check(digest, whole)


if __name__ == "__main__":
    main()
