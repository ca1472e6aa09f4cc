"""The models that this project can train. Each is registered as a version of `delay`, with the variant's name as its alias.

`unseen` and `swapped` carry a bug each, of the kind that reaches production: they are here to be caught.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from pipeline.export import to_graph
from pipeline.features import FEATURES, load_categories, routes_known_on
from pipeline.model import DelayModel, RateTable, RuleModel


@dataclass
class Trained:
    """A model, and what is shipped of it."""

    offline: DelayModel | RuleModel
    shipped: onnx.ModelProto


def _tables() -> list[RateTable]:
    categories = load_categories()
    return [RateTable(name, len(categories[name]), unknown=True) for name in ["carrier", "dest"]]


def candidate(rows: np.ndarray, delayed: np.ndarray, params: dict) -> Trained:
    """The model."""
    model = DelayModel(_tables(), params["trees"]).fit(rows, delayed)
    return Trained(model, to_graph(model))


def rules(rows: np.ndarray, delayed: np.ndarray, params: dict) -> Trained:
    """The backup: a curve over the scheduled hour."""
    del params
    model = RuleModel().fit(rows, delayed)
    return Trained(model, to_graph(model))


def unseen(rows: np.ndarray, delayed: np.ndarray, params: dict) -> Trained:
    """A successor that knows each route's record too, a little better offline.

    Its bug: the table ends with the last route in the schedule on the day it was made, and nobody thought of routes that open
    later. The testing and staging months have none.
    """
    known = routes_known_on(params["schedule_as_of"], load_categories())
    model = DelayModel([*_tables(), RateTable("route", known, unknown=False)], params["trees"]).fit(rows, delayed)
    return Trained(model, to_graph(model))


def swapped(rows: np.ndarray, delayed: np.ndarray, params: dict) -> Trained:
    """The model again, exported with an outdated order of columns.

    Its bug: the export believes that `dewp` comes before `temp`. Both are temperatures, so every answer looks sane.
    """
    model = DelayModel(_tables(), params["trees"]).fit(rows, delayed)
    order = list(FEATURES)
    a, b = order.index("temp"), order.index("dewp")
    order[a], order[b] = order[b], order[a]
    return Trained(model, to_graph(model, order))


VARIANTS = {"candidate": candidate, "rules": rules, "unseen": unseen, "swapped": swapped}
