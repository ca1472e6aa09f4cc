"""Comparing answers, row by row."""

import json
import time

import numpy as np
from original import Refused

BATCH = 512


class Comparison:
    """What the rows showed so far."""

    def __init__(self, tolerance):
        self.tolerance, self.largest, self.rows, self.refused = tolerance, 0.0, {}, 0

    def batch(self, source, rows, wanted, got):
        """Raises where one row's answers differ."""
        if wanted.shape != got.shape:
            raise Refused(f"its answers have the shape {list(wanted.shape)}, the graph's {list(got.shape)}")
        if wanted.dtype.kind == "f":
            # Where both are NaN, or the same infinity, they are the same.
            same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
            with np.errstate(invalid="ignore", over="ignore"):
                off = np.where(same, 0.0, np.abs(wanted.astype("f8") - got.astype("f8")))
                bound = self.tolerance * (1.0 + np.abs(wanted.astype("f8")))
            bad = ~(same | (off <= bound))
            finite = off[np.isfinite(off) & ~bad]
            self.largest = max(self.largest, float(finite.max(initial=0.0)))
        else:
            bad = wanted != got
        by_row = bad.reshape(len(rows), -1).any(axis=1)
        if by_row.any():
            row = int(np.argmax(by_row))
            raise Refused(
                f"{int(by_row.sum())} of {len(rows)} rows differ ({source}): {shown(rows[row])} is answered "
                f"{shown(wanted[row].tolist())} by the model and {shown(got[row].tolist())} by the graph"
            )
        self.rows[source] = self.rows.get(source, 0) + len(rows)

    def all(self, source, rows, original, graph):
        for at in range(0, len(rows), BATCH):
            part = rows[at : at + BATCH]
            wanted, got = original.ask(part), graph.ask(part)
            if wanted is not None and got is not None:
                self.batch(source, part, wanted[0][2], got)
                continue
            # A row that is refused fails the batch.
            for row in part:
                self.one(source, row, original.ask([row]), graph.ask([row]))

    def one(self, source, row, wanted, got):
        if wanted is not None and got is not None:
            return self.batch(source, [row], wanted[0][2], got)
        if wanted is None and got is None:
            self.refused += 1
            return None
        one, other = ("answers", "the graph refuses it") if got is None else ("refuses", "the graph answers it")
        raise Refused(f"the model {one} {shown(row)} ({source}), and {other}")


def shown(value):
    text = json.dumps(value, default=str)
    return text if len(text) <= 300 else text[:300] + "…"


def micros(asked, row):
    """The quickest of some calls with one row, in microseconds."""
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        asked.ask([row])
        best = min(best, time.perf_counter() - begun)
    return best * 1e6
