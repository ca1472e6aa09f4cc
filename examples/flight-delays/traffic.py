"""Replays flights of June to December through a gateway, one Open Inference request per flight, at a steady rate.

    python traffic.py http://127.0.0.1:8443 --rps 100 --seconds 60 --progress

The pace is open-loop: a request is due at its time, however slow the answers are; what no connection could take in time is sent
late and shows in `behind_ms`. Seconds 0 means until SIGINT or SIGTERM. A summary ends the output; the exit code is 0 where every
answer was good, else 1. Only sending is this program's business: which side of a rollout answers is the gateway's.
"""

import argparse
import json
import math
import signal
import socket
import sys
import threading
import time
from collections import Counter
from itertools import chain, zip_longest
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


class Flights:
    """Ids and encoded requests, in the order in which they are sent."""

    def __init__(self, args: argparse.Namespace) -> None:
        table = pq.read_table(args.data)
        months = [int(name[5:7]) for name in table.column(ID).to_pylist()]
        order = in_order(months, args.rotate_months, args.seed)[args.skip :]
        if not order:
            raise SystemExit(f"{args.data} has no flights left after --skip {args.skip}")
        table = table.take(order)
        self.ids = table.column(ID).to_pylist()
        self.columns = [table.column(name).to_numpy() for name in table.column_names if name not in (ID, LABEL)]

    def body(self, at: int) -> bytes:
        """One row as an Open Inference request; float32 prints as the shortest number that means the same float32."""
        row = ",".join(str(column[at]) for column in self.columns)
        shape = f"[1,{len(self.columns)}]"
        return f'{{"inputs":[{{"name":"features","shape":{shape},"datatype":"FP32","data":[{row}]}}]}}'.encode()


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


class Connection:
    """One kept-open HTTP/1.1 connection; nothing is ever sent twice. `http.client` would do, but its own work takes longer than
    a gateway's answer, and would be most of the latency that is shown."""

    def __init__(self, args: argparse.Namespace) -> None:
        url = urlsplit(args.url)
        self.address, self.timeout = (url.hostname, url.port or 80), args.timeout
        path = f"{url.path.rstrip('/')}/v2/models/{args.model}/infer"
        self.head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n{args.header}: "
        self.socket = self.answers = None

    def ask(self, flight: str, body: bytes) -> tuple[int, bytes]:
        """Status and content of the answer. An OSError or ValueError if there is none."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.answers = self.socket.makefile("rb")
        self.socket.sendall(f"{self.head}{flight}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        _, status, *_ = self.answers.readline().split()
        headers = {}
        while (line := self.answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        content = self.answers.read(length := int(headers.get(b"content-length", b"none")))
        if len(content) < length:
            raise ConnectionError("the answer ends too early")
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return int(status), content

    def close(self) -> None:
        """The next request opens a new one."""
        if self.socket is not None:
            self.answers.close()
            self.socket.close()
            self.socket = None


class Sender:
    """Threads that share one schedule."""

    def __init__(self, args: argparse.Namespace, flights: Flights) -> None:
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
        connection = Connection(self.args)
        while (number := self.take()) is not None:
            at = number % len(self.flights.ids)
            flight, body = self.flights.ids[at], self.flights.body(at)
            due = self.start + number / self.args.rps
            if self.stop.wait(max(0.0, due - time.monotonic())):
                break
            began = time.monotonic()
            try:
                status, content = connection.ask(flight, body)
            except (OSError, ValueError):
                connection.close()
                status, content = None, b""
            seconds = time.monotonic() - began
            self.tally.add(status, status == 200 and is_finite(content), seconds, max(0.0, began - due))
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
    sender = Sender(args, Flights(args))
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
