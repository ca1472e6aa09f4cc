"""Measures every variant on every month, as the README's tables show it: nothing is logged, no server is needed.

python -m pipeline.measure
"""

import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd

from pipeline.features import FEATURES, ID, TARGET
from pipeline.metrics import quality
from pipeline.prepare import DATA, read
from pipeline.variants import VARIANTS


def answers(session: onnxruntime.InferenceSession, rows: np.ndarray) -> np.ndarray:
    """The exported model's answers, row by row where a batch is refused; NaN for a row that is refused."""
    try:
        return session.run(None, {"features": rows})[0][:, 0]
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
        if len(rows) == 1:
            return np.array([np.nan], np.float32)
    middle = len(rows) // 2
    return np.concatenate([answers(session, rows[:middle]), answers(session, rows[middle:])])


def main() -> None:
    """Trains all variants, prints a table each."""
    params = tomllib.loads(Path("params.toml").read_text())
    flights = pd.concat(
        pd.read_parquet(DATA / f"{name}.parquet") for name in ["validation", "testing", "staging", "production-traffic"]
    )
    month = flights[ID].str[5:7].astype(int).to_numpy()
    onnxruntime.set_default_logger_severity(4)
    for variant, make in VARIANTS.items():
        trained = make(*read("train"), params)
        session = onnxruntime.InferenceSession(trained.shipped.SerializeToString())
        print(f"\n{variant}\nmonth  flights  roc_auc    ece  refused  largest difference to scikit-learn")
        for m in np.unique(month):
            part = flights[month == m]
            rows, delayed = part[FEATURES].to_numpy(np.float32), part[TARGET].to_numpy()
            got = answers(session, rows)
            ok = np.isfinite(got)
            found = quality(delayed[ok], got[ok])
            far = np.abs(got[ok] - trained.offline.probability(rows[ok])).max()
            print(f"{m:5}  {len(part):7}  {found['roc_auc']:7.4f}  {found['ece']:.3f}  {(~ok).sum():7}  {far:.1e}")


if __name__ == "__main__":
    main()
