"""Replays flights of June to December through a gateway, one Open Inference request per flight, at a steady rate.

    python traffic.py http://127.0.0.1:8443 --rps 100 --seconds 60 --progress

The pace is open-loop: a request is due at its time, however slow the answers are; what no connection could take in time is sent
late and shows in `behind_ms`. Seconds 0 means until SIGINT or SIGTERM. A summary ends the output; the exit code is 0 where every
answer was good, else 1. Only sending is this program's business: which side of a rollout answers is the gateway's.
"""

import argparse
import http.client
import json
import math
import signal
import sys
import threading
import time
from collections import Counter
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pyarrow.parquet as pq

ID = "flight_id"
LABEL = "arr_delayed"
KEPT_LATENCIES = 1_000_000


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url", help="the gateway, such as http://127.0.0.1:8443")
    parser.add_argument("--model", default="delay")
    parser.add_argument("--data", type=Path, default=Path("data/production-traffic.parquet"))
    parser.add_argument("--header", default="X-Flight-Id", help="carries the flight's id (the unit of a rollout)")
    parser.add_argument("--rps", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="0: until a signal")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds for one answer")
    parser.add_argument("--rotate-months", action="store_true", help="a flight of each month in turn, instead of day by day")
    parser.add_argument("--seed", type=int, help="shuffle the flights (within each month, where months rotate)")
    parser.add_argument("--skip", type=int, default=0, help="leave out this many flights first")
    parser.add_argument("--progress", action="store_true", help="a line every second")
    parser.add_argument("--json", action="store_true", help="lines of JSON")
    args = parser.parse_args()
    if not (args.rps > 0 and math.isfinite(args.rps)) or args.seconds < 0 or args.connections < 1 or args.skip < 0:
        parser.error("--rps and --connections must be positive, --seconds and --skip not negative")
    if urlsplit(args.url).scheme != "http" or not urlsplit(args.url).hostname:
        parser.error("the gateway's address must look like http://host:port")
    return args


def in_order(months: list[int], rotate: bool, seed: int | None) -> list[int]:
    """The positions of the flights, in the order in which they are sent."""
    random = Random(seed)
    groups = [list(range(len(months)))]
    if rotate:
        groups = [[at for at, month in enumerate(months) if month == wanted] for wanted in sorted(set(months))]
    if seed is not None:
        for group in groups:
            random.shuffle(group)
    return [at for at in chain.from_iterable(zip_longest(*groups)) if at is not None]


def load(args: argparse.Namespace) -> list[tuple[str, bytes]]:
    """Ids and encoded bodies, as many as will be sent: encoding beforehand leaves the sender little to do."""
    table = pq.read_table(args.data)
    ids = table.column(ID).to_pylist()
    order = in_order([int(name[5:7]) for name in ids], args.rotate_months, args.seed)
    wanted = math.ceil(args.rps * args.seconds) if args.seconds else len(order)
    order = list(islice(order, args.skip, args.skip + wanted))
    columns = [column for column in table.column_names if column not in (ID, LABEL)]
    rows = zip(*(map(str, table.column(name).take(order).to_numpy()) for name in columns), strict=True)
    shape = f'{{"inputs":[{{"name":"features","shape":[1,{len(columns)}],"datatype":"FP32","data":['
    return [(ids[at], f"{shape}{','.join(row)}]}}]}}".encode()) for at, row in zip(order, rows, strict=True)]


def is_finite(body: bytes) -> bool:
    """Whether an answer holds outputs, and nothing but finite numbers."""
    try:
        numbers = [number for output in json.loads(body)["outputs"] for number in output["data"]]
        return bool(numbers) and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    except (ValueError, KeyError, TypeError):
        return False


class Tally:
    """What came of the requests so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent = self.ok = self.not_finite = self.connection_errors = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.fresh: list[float] = []  # since the last progress line
        self.behind = 0.0

    def add(self, status: int | None, finite: bool, seconds: float, behind: float) -> None:
        """One request; no status means that no answer came."""
        with self.lock:
            self.sent += 1
            self.behind = max(self.behind, behind)
            if status is None:
                self.connection_errors += 1
                return
            if status != 200:
                self.statuses[status] += 1
            elif finite:
                self.ok += 1
            else:
                self.not_finite += 1
            self.fresh.append(seconds)
            if len(self.latencies) < KEPT_LATENCIES:
                self.latencies.append(seconds)

    def report(self, elapsed: float, final: bool) -> dict:
        """The numbers: of the whole, with the latencies of the whole or of what is fresh."""
        with self.lock:
            times = sorted(self.latencies if final else self.fresh)
            self.fresh.clear()
            return {
                "seconds": round(elapsed, 1),
                "sent": self.sent,
                "ok": self.ok,
                "bad": self.sent - self.ok,
                "failed_by_status": {str(status): count for status, count in sorted(self.statuses.items())},
                "not_finite": self.not_finite,
                "connection_errors": self.connection_errors,
                "p50_ms": quantile(times, 0.5),
                "p99_ms": quantile(times, 0.99),
                "behind_ms": round(self.behind * 1000, 1),
            }


def quantile(times: list[float], q: float) -> float | None:
    """A quantile of sorted seconds, in milliseconds."""
    return round(times[min(len(times) - 1, int(q * len(times)))] * 1000, 2) if times else None


class Sender:
    """Threads that share one schedule."""

    def __init__(self, args: argparse.Namespace, flights: list[tuple[str, bytes]]) -> None:
        self.args, self.flights = args, flights
        self.tally, self.stop = Tally(), threading.Event()
        self.next, self.lock = 0, threading.Lock()
        self.start = time.monotonic()

    def take(self) -> int | None:
        """The next request's number; none after the last."""
        with self.lock:
            number = self.next
            if self.stop.is_set() or (self.args.seconds and number >= self.args.rps * self.args.seconds):
                return None
            self.next += 1
            return number

    def run(self) -> None:
        """One connection: waits until a request is due, sends it, waits for the answer."""
        address = urlsplit(self.args.url)
        connection = http.client.HTTPConnection(address.hostname, address.port or 80, timeout=self.args.timeout)
        path = f"{address.path.rstrip('/')}/v2/models/{self.args.model}/infer"
        while (number := self.take()) is not None:
            due = self.start + number / self.args.rps
            if self.stop.wait(max(0.0, due - time.monotonic())):
                break
            flight, body = self.flights[number % len(self.flights)]
            began = time.monotonic()
            status, finite = None, False
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json", self.args.header: flight})
                answer = connection.getresponse()
                content = answer.read()
                status, finite = answer.status, answer.status == 200 and is_finite(content)
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens a new one
            self.tally.add(status, finite, time.monotonic() - began, max(0.0, began - due))
        connection.close()


def show(report: dict, as_json: bool) -> None:
    """One line."""
    if as_json:
        print(json.dumps(report), flush=True)
        return
    failed = ", ".join(f"{count} with status {status}" for status, count in report["failed_by_status"].items())
    others = [
        f"{report[name]} {text}"
        for name, text in [("not_finite", "not finite"), ("connection_errors", "without an answer")]
        if report[name]
    ]
    bad = f" ({', '.join([*([failed] if failed else []), *others])})" if report["bad"] else ""
    times = "" if report["p50_ms"] is None else f", p50 {report['p50_ms']} ms, p99 {report['p99_ms']} ms"
    print(f"{report['seconds']:6.1f} s: {report['sent']} sent, {report['ok']} good, {report['bad']} bad{bad}{times}", flush=True)


def main() -> int:
    """Sends until the end or a signal."""
    args = arguments()
    flights = load(args)
    if not flights:
        raise SystemExit(f"{args.data} has no flights left after --skip {args.skip}")
    sender = Sender(args, flights)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sender.stop.set())
    threads = [threading.Thread(target=sender.run, daemon=True) for _ in range(args.connections)]
    sender.start = time.monotonic()
    for thread in threads:
        thread.start()
    shown = 1
    while any(thread.is_alive() for thread in threads):
        if sender.stop.wait(0.05):
            for thread in threads:
                thread.join(args.timeout + 1)
            break
        if args.progress and (elapsed := time.monotonic() - sender.start) >= shown:
            shown += 1
            show(sender.tally.report(elapsed, final=False), args.json)
    report = sender.tally.report(time.monotonic() - sender.start, final=True)
    show(report, args.json)
    return 0 if report["bad"] == 0 and report["sent"] else 1


if __name__ == "__main__":
    sys.exit(main())
