"""The temperature that makes a member's probabilities honest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beyond these a member is right, or guesses, on all rows, and no temperature is the best one.
LOWEST, HIGHEST = 0.05, 20.0
_ITERATIONS = 60


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """The temperature with the least negative log-likelihood of the labels (Guo et al., ICML 2017).

    In b = 1 / T the likelihood is convex, and its slope, the mean over rows of the expected logit
    less the label's own, is found to be zero by bisection.

    Args:
        logits: shape (n, n_labels); rows that are not finite are left out.
        labels: indices, shape (n,), of rows that chose neither weights nor thresholds.

    Returns:
        From `LOWEST` to `HIGHEST`, rounded to four places; 1.0 where no row is finite.
    """
    finite = np.isfinite(logits).all(axis=1)
    values = np.asarray(logits, dtype=np.float64)[finite]
    if not len(values):
        return 1.0
    own = values[np.arange(len(values)), labels[finite]]
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(_ITERATIONS):
        middle = (low + high) / 2
        weights = np.exp(middle) * (values - values.max(axis=1, keepdims=True))
        probabilities = np.exp(weights)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        slope = float(((probabilities * values).sum(axis=1) - own).mean())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(float(np.exp(-(low + high) / 2)), 4)


def negative_log_likelihood(
    logits: NDArray[Any], labels: NDArray[np.integer[Any]], temperature: float = 1.0
) -> float:
    """Mean over rows of -log of the label's probability, in nats."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean())
