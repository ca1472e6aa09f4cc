"""Small made-up flights: the tests need neither data files nor a server."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def flights() -> pd.DataFrame:
    """Four flights: two in one hour at EWR, one at LGA, one that was cancelled."""
    return pd.DataFrame(
        {
            "year": 2013,
            "month": [1, 1, 2, 12],
            "day": [1, 1, 12, 31],
            "hour": [5, 5, 17, 20],
            "minute": [15, 40, 0, 30],
            "time_hour": ["2013-01-01T10:00:00Z", "2013-01-01T10:00:00Z", "2013-02-12T22:00:00Z", "2014-01-01T01:00:00Z"],
            "sched_arr_time": [819, 830, 1955, 15],
            "carrier": ["UA", "B6", "AA", "UA"],
            "flight": [1545, 725, 301, 1],
            "origin": ["EWR", "EWR", "LGA", "EWR"],
            "dest": ["IAH", "FLL", "ORD", "IAH"],
            "distance": [1400, 1065, 733, 1400],
            "arr_delay": [11.0, 15.0, 16.0, np.nan],
        }
    )


@pytest.fixture
def weather() -> pd.DataFrame:
    """One calm hour, one with an impossible wind and no air pressure; none for the last flight."""
    return pd.DataFrame(
        {
            "origin": ["EWR", "LGA"],
            "time_hour": ["2013-01-01T10:00:00Z", "2013-02-12T22:00:00Z"],
            "temp": [39.02, 39.92],
            "dewp": [26.06, 24.98],
            "humid": [59.37, 54.81],
            "wind_speed": [12.66, 1048.36],
            "precip": [0.0, 0.0],
            "visib": [10.0, 10.0],
            "pressure": [1012.0, np.nan],
        }
    )
