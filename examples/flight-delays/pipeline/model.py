"""The models, as scikit-learn estimators over one row of `FEATURES`: the offline truth that every export must equal."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.features import CATEGORICAL, FEATURES

# A category's rate of delays counts as if it had this many average flights more, so that rare ones stay near the average.
SMOOTHING = 200


@dataclass
class RateTable:
    """The rate of delays of each value of a category, by code."""

    feature: str
    size: int  # codes 0 to size-1 have a rate of their own
    unknown: bool  # whether one more entry, the average rate, stands at the end for all later codes
    rates: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def fit(self, codes: np.ndarray, delayed: np.ndarray) -> None:
        """Counts."""
        codes, prior = codes.astype(np.int64), delayed.mean()
        seen = codes < self.size
        count = np.bincount(codes[seen], minlength=self.size)
        late = np.bincount(codes[seen], weights=delayed[seen], minlength=self.size)
        rates = (late + SMOOTHING * prior) / (count + SMOOTHING)
        # Four digits: thresholds between neighbours then survive the export's rounding to float32.
        self.rates = np.round(np.append(rates, prior) if self.unknown else rates, 4).astype(np.float32)

    def lookup(self, codes: np.ndarray) -> np.ndarray:
        """The rates of these codes. Without an entry for unknown codes, a later code is an IndexError."""
        codes = codes.astype(np.int64)
        return self.rates[np.minimum(codes, self.size) if self.unknown else codes]


@dataclass
class DelayModel:
    """Gradient-boosted trees over the plain numbers and the rates of the categories."""

    tables: list[RateTable]
    params: dict
    trees: HistGradientBoostingClassifier | None = None

    @property
    def plain(self) -> list[str]:
        """The features that the trees see as they are."""
        return [name for name in FEATURES if name not in CATEGORICAL or name == "origin"]

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """What the trees see."""
        plain = rows[:, [FEATURES.index(name) for name in self.plain]]
        rates = [table.lookup(rows[:, FEATURES.index(table.feature)]) for table in self.tables]
        return np.column_stack([plain, *rates]).astype(np.float32)

    def fit(self, rows: np.ndarray, delayed: np.ndarray) -> "DelayModel":
        """Learns the rates, then the trees."""
        for table in self.tables:
            table.fit(rows[:, FEATURES.index(table.feature)], delayed)
        self.trees = HistGradientBoostingClassifier(random_state=0, early_stopping=False, **self.params)
        # On a busy machine, threads that wait for each other at every node take 20 seconds for what one does in one.
        with threadpool_limits(1):
            self.trees.fit(self.columns(rows), delayed)
        return self

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """P(delayed) of each row."""
        return self.trees.predict_proba(self.columns(rows))[:, 1]


@dataclass
class RuleModel:
    """A rule of thumb, the backup: delays grow over the day, so the scheduled hour alone gives the probability."""

    curve: LogisticRegression | None = None

    def fit(self, rows: np.ndarray, delayed: np.ndarray) -> "RuleModel":
        """Learns two numbers."""
        self.curve = LogisticRegression().fit(rows[:, [FEATURES.index("hour")]], delayed)
        return self

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """P(delayed) of each row."""
        return self.curve.predict_proba(rows[:, [FEATURES.index("hour")]])[:, 1]
