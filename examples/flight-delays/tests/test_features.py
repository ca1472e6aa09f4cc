"""The features: their order, their values, and that they know nothing of the future."""

import numpy as np
import pytest

from pipeline.features import (
    FEATURES,
    KNOWN_TOO_LATE,
    STRONGEST_WIND,
    USUAL_WEATHER,
    build,
    encode,
    flight_id,
    label,
    load_categories,
    routes_known_on,
)
from pipeline.prepare import SOURCE_COLUMNS, request, shortest, split


def test_rows_have_the_features_in_order_as_finite_float32(flights, weather):
    rows = build(flights, weather, load_categories())
    assert list(rows.columns) == FEATURES
    assert set(rows.dtypes) == {np.dtype(np.float32)}
    assert np.isfinite(rows.to_numpy()).all()


def test_rows_keep_the_flights_order(flights, weather):
    backwards = build(flights.iloc[::-1], weather, load_categories())
    forwards = build(flights, weather, load_categories())
    assert (backwards.to_numpy()[::-1] == forwards.to_numpy()).all()


def test_what_happens_after_departure_changes_no_feature(flights, weather):
    before = build(flights, weather, load_categories())
    after = build(flights.assign(**dict.fromkeys(KNOWN_TOO_LATE, 999.0)), weather, load_categories())
    assert before.equals(after)
    assert set(FEATURES).isdisjoint(KNOWN_TOO_LATE)
    assert set(SOURCE_COLUMNS) & set(KNOWN_TOO_LATE) == {"arr_delay"}, "only the label's source may be read"


def test_the_schedule_gives_time_and_congestion(flights, weather):
    rows = build(flights, weather, load_categories())
    assert rows["weekday"].tolist() == [1, 1, 1, 1]  # four Tuesdays
    assert rows["arrival_hour"].tolist() == [8, 8, 19, 0]
    assert rows["departures"].tolist() == [2, 2, 1, 1]


def test_missing_weather_is_usual_and_impossible_wind_is_capped(flights, weather):
    rows = build(flights, weather, load_categories())
    assert rows["pressure"].tolist() == [1012.0, 1012.0, USUAL_WEATHER["pressure"], USUAL_WEATHER["pressure"]]
    assert rows["wind_speed"].tolist()[2:] == [STRONGEST_WIND, USUAL_WEATHER["wind_speed"]]


def test_delayed_means_more_than_fifteen_minutes(flights):
    assert label(flights).tolist()[:3] == [0, 0, 1]


def test_flight_ids_tell_day_number_and_origin(flights):
    assert flight_id(flights)[0] == "2013-01-01-UA1545-EWR"


def test_the_months_part_the_files(flights):
    parts = split(flights["month"], flights["day"])
    assert parts.tolist() == ["train", "train", "train", "production-traffic"]
    later = split(flights["month"].replace({1: 3, 2: 4, 12: 5}), flights["day"].replace({1: 16}))
    assert later.tolist() == ["validation", "validation", "testing", "staging"]


def test_codes_are_positions_in_the_table(flights):
    table = load_categories()["carrier"]
    codes = encode(flights["carrier"], table)
    assert [list(table)[code] for code in codes] == flights["carrier"].tolist()


def test_a_value_without_a_code_is_an_error(flights):
    with pytest.raises(ValueError, match=r"categories\.json lacks .*XX"):
        encode(flights["carrier"].replace("AA", "XX"), load_categories()["carrier"])


@pytest.mark.parametrize(("name", "size"), [("origin", 3), ("carrier", 16), ("dest", 105), ("route", 439)])
def test_code_tables_only_grow_at_their_end(name, size):
    table = load_categories()[name]
    assert len(table) >= size
    days = list(table.values())
    assert days == sorted(days)


def test_every_route_is_made_of_known_parts():
    categories = load_categories()
    for route in categories["route"]:
        for part, name in zip(route.split("-"), ["carrier", "origin", "dest"], strict=True):
            assert part in categories[name]


def test_routes_known_on_a_day_have_the_codes_below_their_number():
    categories = load_categories()
    known = routes_known_on("2013-05-31", categories)
    days = list(categories["route"].values())
    assert 0 < known < len(days)
    assert days[known - 1] <= "2013-05-31" < days[known]


def test_requests_carry_the_row_exactly():
    row = np.array([5, 39.02, 1 / 3], np.float32)
    sent = request(row)["inputs"][0]
    assert sent["shape"] == [1, 3]
    assert (np.array(sent["data"], np.float32) == row).all()
    assert shortest(row)[1] == 39.02
