"""Temperature scaling: makes the probabilities of a member calibrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..extras import needs_extra

# The best temperature is outside these only if a member is right, or guesses, on all rows.
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.integer[Any]]) -> float:
    """The temperature with the least negative log-likelihood of the labels (Guo et al., ICML 2017).

    In 1 / T the likelihood is convex. Its slope is the mean over rows of the expected logit minus
    the label's logit.

    Args:
        logits: Shape (n, n_labels); rows that are not finite are left out.
        labels: Indices, shape (n,), of rows that chose neither weights nor thresholds.

    Returns:
        From `LOWEST` to `HIGHEST`, rounded to four places; 1.0 if no row is finite.
    """
    with needs_extra("build"):
        from scipy.special import softmax
    finite = np.isfinite(logits).all(axis=1)
    values = np.asarray(logits, dtype=np.float64)[finite]
    if not len(values):
        return 1.0
    own = values[np.arange(len(values)), labels[finite]]

    def slope(log_temperature: float) -> float:
        probabilities = softmax(values / np.exp(log_temperature), axis=1)
        return float(((probabilities * values).sum(axis=1) - own).mean())

    return _temperature_of_slope(slope)


def fit_temperature_of_sets(logits: NDArray[Any], sets: NDArray[np.bool_]) -> float:
    """The temperature with the least binary cross-entropy of all labels of multi-label rows.

    Again the likelihood is convex in 1 / T: every label of a row is a sigmoid of its own.

    Args:
        logits: Shape (n, n_labels); rows that are not finite are left out.
        sets: Which labels each row has, shape (n, n_labels).

    Returns:
        From `LOWEST` to `HIGHEST`, rounded to four places; 1.0 if no row is finite.
    """
    with needs_extra("build"):
        from scipy.special import expit
    finite = np.isfinite(logits).all(axis=1)
    values = np.asarray(logits, dtype=np.float64)[finite]
    if not len(values):
        return 1.0
    truth = sets[finite]

    def slope(log_temperature: float) -> float:
        return float(((expit(values / np.exp(log_temperature)) - truth) * values).mean())

    return _temperature_of_slope(slope)


def _temperature_of_slope(slope: Callable[[float], float]) -> float:
    """The temperature at which the slope of the loss, which falls with log T, is 0."""
    with needs_extra("build"):
        from scipy.optimize import brentq
    low, high = np.log(LOWEST), np.log(HIGHEST)
    if slope(low) <= 0:  # confident and right on all rows
        return LOWEST
    if slope(high) >= 0:
        return HIGHEST
    best = cast("float", brentq(slope, low, high))
    return round(float(np.exp(best)), 4)


def negative_log_likelihood(
    logits: NDArray[Any], labels: NDArray[np.integer[Any]], temperature: float = 1.0
) -> float:
    """Mean over rows of -log of the label's probability, in nats."""
    with needs_extra("build"):
        from scipy.special import log_softmax
    log_p = log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return float(-log_p[np.arange(len(labels)), labels].mean())
