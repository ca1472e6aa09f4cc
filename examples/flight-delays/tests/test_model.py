"""The models and their exports, on made-up rows.

That an export equals its offline model is no test here but the parity gate's business, with the very files that are released.
"""

import numpy as np
import onnxruntime
import pytest

from pipeline.export import to_graph
from pipeline.features import FEATURES
from pipeline.metrics import ece
from pipeline.model import DelayModel, RateTable, RuleModel

PARAMS = {"max_iter": 5, "max_leaf_nodes": 4, "min_samples_leaf": 20}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 12, (600, len(FEATURES))).astype(np.float32)


@pytest.fixture(scope="module")
def delayed(rows) -> np.ndarray:
    late = rows[:, FEATURES.index("hour")] + rows[:, FEATURES.index("carrier")] > 12
    return late.astype(np.int64)


def test_rates_lean_towards_the_average():
    table = RateTable("carrier", 2, unknown=True)
    table.fit(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1, 1, 0, 0]))
    assert table.rates[0] > 0.5 > table.rates[1]
    assert abs(table.rates[0] - 0.5) < 0.01, "two flights say little"


def test_unknown_codes_get_the_average_rate():
    table = RateTable("carrier", 2, unknown=True)
    table.fit(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1, 1, 0, 0]))
    assert table.lookup(np.array([2.0, 99.0])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["trees", "rule"])
def test_an_export_has_one_input_and_one_probability_a_row(kind, rows, delayed):
    model = RuleModel() if kind == "rule" else DelayModel([RateTable("carrier", 12, unknown=True)], PARAMS)
    session = onnxruntime.InferenceSession(to_graph(model.fit(rows, delayed)).SerializeToString())
    assert [(i.name, i.type, i.shape[1]) for i in session.get_inputs()] == [("features", "tensor(float)", len(FEATURES))]
    assert [(o.name, o.type) for o in session.get_outputs()] == [("probability", "tensor(float)")]
    answers = session.run(None, {"features": rows})[0]
    assert answers.shape == (len(rows), 1)
    assert ((answers >= 0) & (answers <= 1)).all()


def test_calibration_error_is_the_mean_gap():
    assert ece(np.array([0, 1]), np.array([0.0, 1.0])) == 0
    assert ece(np.array([0, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.2])) == pytest.approx(0.3)
