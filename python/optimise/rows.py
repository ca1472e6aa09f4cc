"""The rows on which a graph is compared: those that are given, and others made from them."""

import numpy as np

# How many rows are made beside those that are given, and in how many places the answer's jumps are looked for.
NEIGHBOURS, JUMPS = 400, 256
UNSEEN = ["", "\x01 never seen", "None", "nan"]


def usable(original, given):
    """Rows in the signature's order and types; None for a source that lacks a column."""
    names = given["columns"]
    if names is None or original.matrix:
        # A matrix has no names for its columns.
        order = list(range(len(original.names)))
        if any(len(row) != len(order) for row in given["rows"]):
            return None
    elif all(name in names for name in original.names):
        order = [names.index(name) for name in original.names]
    else:
        return None
    rows = []
    for row in given["rows"]:
        cells = [cell(kind, row[i]) for kind, i in zip(original.types, order)]
        # A client can't leave these out either.
        if not any(c is None and kind not in ("FP32", "FP64") for c, kind in zip(cells, original.types)):
            rows.append(cells)
    return rows


def cell(kind, value):
    if value is None:
        return None
    if kind == "BYTES":
        return str(value)
    if kind == "BOOL":
        return bool(value)
    if kind in ("FP32", "FP64"):
        value = float(value)
        return float(np.float32(value)) if kind == "FP32" else value
    return int(value)


def column_values(rows, i):
    return [row[i] for row in rows if row[i] is not None and row[i] == row[i]]


def put(row, i, value):
    return [*row[:i], value, *row[i + 1 :]]


def neighbours(original, rows, rng):
    """Rows with other values in some columns: others' values, the seen ranges' ends and what lies beyond them."""
    choices = []
    for i, kind in enumerate(original.types):
        seen = column_values(rows, i) or [0 if kind != "BYTES" else ""]
        if kind in ("BYTES", "BOOL"):
            choices.append(seen + ([True, False] if kind == "BOOL" else []))
            continue
        low, high = min(seen), max(seen)
        span = (high - low) or abs(high) or 1
        values = [low, high, low - span, high + span, high + 1000 * span, 0, -1, 1]
        choices.append([fitting(kind, v) for v in values + seen[:50]])
    made = []
    for _ in range(NEIGHBOURS):
        row = list(rows[rng.integers(len(rows))])
        for i in rng.choice(len(row), size=rng.integers(1, min(4, len(row)) + 1), replace=False):
            row[i] = choices[i][rng.integers(len(choices[i]))]
        made.append(row)
    return made


def fitting(kind, value):
    if kind in ("FP32", "FP64"):
        return cell(kind, value)
    info = np.iinfo(kind.lower())
    return int(min(max(value, info.min), info.max))


def specials(original, rows):
    """Each float column missing, infinite and huge; each column of text unseen and empty."""
    found = []
    for i, kind in enumerate(original.types):
        values = {"FP32": [np.nan, np.inf, -np.inf], "FP64": [np.nan, np.inf, -np.inf, 1e39, -1e39, 1e300], "BYTES": UNSEEN}
        found += [(i, value, put(rows[0], i, value)) for value in values.get(kind, [])]
    return found


def jumps(original, rows, rng, exact):
    """Rows on both sides of places where the answer jumps, found by halving between two values of one column.

    `exact` goes on to neighbouring floats: the thresholds of trees. Elsewhere the sides are a billionth of the range apart: the
    order of a sum decides what is nearer than that.
    """
    floats = [i for i, kind in enumerate(original.types) if kind in ("FP32", "FP64")]
    pairs = []
    for _ in range(JUMPS if floats else 0):
        i, base = floats[rng.integers(len(floats))], rows[rng.integers(len(rows))]
        seen = column_values(rows, i)
        if seen:
            low, high = min(seen), max(seen)
            other = seen[rng.integers(len(seen))] if rng.random() < 0.5 else low + (high - low) * (rng.random() * 1.5 - 0.25)
            pairs.append([base, i, base[i], cell(original.types[i], other), (high - low) or 1.0])
    pairs = [p for p in pairs if p[2] is not None and np.isfinite(p[2]) and p[2] != p[3]]
    if not pairs:
        return []
    first, last = ask(original, [p[0] for p in pairs]), ask(original, [put(p[0], p[1], p[3]) for p in pairs])
    if first is None or last is None:
        return []
    differ = [k for k in range(len(pairs)) if not equal(first[k], last[k])]
    pairs, first = [pairs[k] for k in differ], first[differ]
    for _ in range(64 if pairs else 0):
        middles = [cell(original.types[i], low + (high - low) / 2) for _, i, low, high, _ in pairs]
        answers = ask(original, [put(p[0], p[1], m) for p, m in zip(pairs, middles)])
        if answers is None:
            return []
        moved = False
        for pair, middle, answer, start in zip(pairs, middles, answers, first):
            if middle in pair[2:4] or (not exact and abs(pair[3] - pair[2]) <= 1e-9 * pair[4]):
                continue
            pair[2 if equal(answer, start) else 3] = middle
            moved = True
        if not moved:
            break
    return [put(base, i, value) for base, i, low, high, _ in pairs for value in (low, high)]


def equal(one, other):
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def ask(original, rows):
    found = original.ask(rows)
    return None if found is None else found[0][2]


def guard_of(original, special):
    """For each float column of which the model refuses something: whether it may not be missing, not be infinite,
    and not be larger than a 32-bit float."""
    found = {}
    for i, value, row in special:
        if original.types[i] != "BYTES" and original.ask([row]) is None:
            now = (bool(np.isnan(value)), bool(np.isinf(value)), abs(value) == 1e39)
            found[i] = tuple(a or b for a, b in zip(found.get(i, now), now))
    return found
