"""Two numbers about probabilities."""

import numpy as np
from sklearn.metrics import roc_auc_score


def ece(delayed: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: how far bins of equal width are from their share of delays, weighted by their size."""
    at = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(probability[at == b].mean() - delayed[at == b].mean()) * (at == b).mean() for b in np.unique(at)]
    return float(sum(gaps))


def quality(delayed: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Ranking and calibration."""
    return {"roc_auc": float(roc_auc_score(delayed, probability)), "ece": ece(delayed, probability)}
