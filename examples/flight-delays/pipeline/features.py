"""What the model sees: one row of numbers per flight, all known before departure.

`FEATURES` is the model's signature. Its order is the order of the ONNX input's columns, of the Parquet files and of every request.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

FEATURES = [
    "hour",  # scheduled departure, local time
    "minute",
    "weekday",  # Monday is 0
    "arrival_hour",  # scheduled arrival, local time
    "distance",  # miles
    "departures",  # flights scheduled to leave this airport in this hour
    "origin",  # codes from categories.json, from here ...
    "carrier",
    "dest",
    "route",  # ... to here; a route is carrier-origin-dest
    "temp",  # weather at the origin in the scheduled hour, from here ...
    "dewp",
    "humid",
    "wind_speed",
    "precip",
    "visib",
    "pressure",  # ... to here
]
CATEGORICAL = ["origin", "carrier", "dest", "route"]
TARGET = "arr_delayed"
ID = "flight_id"
DELAYED_MINUTES = 15

# Used where the weather station reported nothing: an unremarkable hour.
USUAL_WEATHER = {"temp": 45.0, "dewp": 28.0, "humid": 58.0, "wind_speed": 10.0, "precip": 0.0, "visib": 10.0, "pressure": 1018.0}
# The data set holds one hour with a wind of 1048 mph (EWR, 12 February); no observation is above this.
STRONGEST_WIND = 60.0

# Columns that are known only after departure. No feature may come from them; a test holds us to it.
KNOWN_TOO_LATE = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]

CATEGORIES = Path(__file__).resolve().parent.parent / "categories.json"


def load_categories(path: Path = CATEGORIES) -> dict[str, dict[str, str]]:
    """Each category's values, in the order of their codes, with the day on which each was first scheduled."""
    return json.loads(path.read_text())


def routes_known_on(day: str, categories: dict[str, dict[str, str]]) -> int:
    """How many routes had been scheduled by a day (ISO): their codes are 0 up to this number."""
    return sum(first <= day for first in categories["route"].values())


def encode(values: pd.Series, table: dict[str, str]) -> pd.Series:
    """Codes of the values. A value that the table lacks is an error: it must be appended to the table first."""
    codes = values.map({value: code for code, value in enumerate(table)})
    if codes.isna().any():
        missing = sorted(values[codes.isna()].unique())
        raise ValueError(f"categories.json lacks {missing[:5]}: append them at the end of the table, never in between")
    return codes


def day_of(flights: pd.DataFrame) -> pd.Series:
    """The day of each flight, as ISO text."""
    return pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")


def with_route(flights: pd.DataFrame) -> pd.DataFrame:
    """The flights with their route."""
    return flights.assign(route=flights["carrier"] + "-" + flights["origin"] + "-" + flights["dest"])


def build(flights: pd.DataFrame, weather: pd.DataFrame, categories: dict[str, dict[str, str]]) -> pd.DataFrame:
    """One row of features per flight, in the flights' order."""
    known = with_route(flights.drop(columns=KNOWN_TOO_LATE, errors="ignore").reset_index(drop=True))
    rows = pd.DataFrame(
        {
            "hour": known["hour"],
            "minute": known["minute"],
            "weekday": pd.to_datetime(day_of(known)).dt.day_of_week,
            "arrival_hour": known["sched_arr_time"] // 100,
            "distance": known["distance"],
            "departures": known.groupby(["origin", "time_hour"])["flight"].transform("size"),
        }
    )
    for name in CATEGORICAL:
        rows[name] = encode(known[name], categories[name])
    hourly = weather[["origin", "time_hour", *USUAL_WEATHER]].drop_duplicates(["origin", "time_hour"])
    joined = known[["origin", "time_hour"]].merge(hourly, on=["origin", "time_hour"], how="left", validate="many_to_one")
    for name, usual in USUAL_WEATHER.items():
        rows[name] = joined[name].fillna(usual)
    rows["wind_speed"] = rows["wind_speed"].clip(upper=STRONGEST_WIND)
    return rows[FEATURES].astype(np.float32)


def label(flights: pd.DataFrame) -> pd.Series:
    """1 where the flight arrived more than 15 minutes late."""
    return (flights["arr_delay"] > DELAYED_MINUTES).astype(np.int64).reset_index(drop=True)


def flight_id(flights: pd.DataFrame) -> pd.Series:
    """A name of each flight, unique in the year: day, carrier and number, origin."""
    return (day_of(flights) + "-" + flights["carrier"] + flights["flight"].astype(str) + "-" + flights["origin"]).reset_index(
        drop=True
    )
