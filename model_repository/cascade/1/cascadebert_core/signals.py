"""Confidence signals: functions from a stage's logits to its confidence.

Each signal is a float32 from 0 to 1 and higher for more confident rows, so that all use the same
kind of threshold. For two labels the first three order rows in the same way. `LEAST_SURE` is the
signal of multi-label cascades, the others are those of single-label cascades.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .task import MULTI_LABEL, SINGLE_LABEL

MAX_PROBABILITY = "max_probability"
MARGIN = "margin"
ENTROPY = "entropy"
ENERGY = "energy"
LEAST_SURE = "least_sure"


def _max_probability(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    return np.maximum.reduce(probabilities, axis=1)


def _margin(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    """Return the largest probability minus the second largest."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _entropy(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    """Return 1 - H / log(n_labels): 1 for a certain row, 0 for a uniform one."""
    # 0 log 0 is 0.
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy = -(probabilities * logs).sum(axis=1)
    share = entropy / np.float32(np.log(probabilities.shape[1]))
    # Rounding may leave a value just outside [0, 1]. NaN stays NaN.
    return np.clip(np.float32(1) - share, np.float32(0), np.float32(1))


def _energy(
    _: NDArray[np.float32], scaled: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """Return (1 + e / (1 + |e|)) / 2 for the negative energy e = T logsumexp(logits / T).

    The energy score is from Liu et al. (NeurIPS 2020). The softsign maps it to [0, 1] in the same
    order and saturates later than a sigmoid.
    """
    largest = scaled.max(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # the gate masks infinities
        e = np.float32(temperature) * (
            largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
        )
        return (np.float32(1) + e / (np.float32(1) + np.abs(e))) / np.float32(2)


def _least_sure(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    """Return max(p, 1 - p) of the label for which it is smallest, from 0.5 to 1.

    A set is another one as soon as one label changes, so the least sure label decides.
    """
    return np.maximum(probabilities, np.float32(1) - probabilities).min(axis=1)


# Each takes probabilities and temperature-scaled logits, both (n, n_labels), and the temperature,
# and returns confidences, (n,).
SIGNALS: dict[
    str, Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.float32]]
] = {
    MAX_PROBABILITY: _max_probability,
    MARGIN: _margin,
    ENTROPY: _entropy,
    ENERGY: _energy,
    LEAST_SURE: _least_sure,
}

# The signals that make sense for each kind of task; the first is the default.
SIGNALS_OF_TASK = {
    SINGLE_LABEL: (MAX_PROBABILITY, MARGIN, ENTROPY, ENERGY),
    MULTI_LABEL: (LEAST_SURE,),
}
