"""Writes categories.json: the code table of airports, carriers and routes.

The table is kept with the code and only grows at its end, so that a code never changes its meaning. Codes are given by the day
on which a value first appears in the schedule, then by name. Run it only when the schedule brings new values:

    python -m pipeline.categories
"""

import json

import pandas as pd

from pipeline.features import CATEGORICAL, CATEGORIES, day_of, with_route
from pipeline.prepare import read_source


def first_days(flights: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Each category's values with their first day, earliest first."""
    flights, day = with_route(flights), day_of(flights)
    tables = {}
    for name in CATEGORICAL:
        first = day.groupby(flights[name]).min()
        tables[name] = dict(sorted(first.items(), key=lambda item: (item[1], item[0])))
    return tables


if __name__ == "__main__":
    flights, _ = read_source()
    CATEGORIES.write_text(json.dumps(first_days(flights), indent=0) + "\n")
    print(f"wrote {CATEGORIES.name}")
