"""Confidence signals: what a stage's logits say about how sure it is.

Every signal is a float32 from 0 to 1 that is higher for surer rows, so that one kind of threshold
serves them all. For two labels the first three order rows alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAX_PROBABILITY = "max_probability"
MARGIN = "margin"
ENTROPY = "entropy"
ENERGY = "energy"


def _max_probability(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    return probabilities.max(axis=1)


def _margin(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    """The largest probability minus the second largest."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _entropy(
    probabilities: NDArray[np.float32], _: NDArray[np.float32], __: float
) -> NDArray[np.float32]:
    """1 - H / log(n_labels): 1 for a certain row, 0 for a uniform one."""
    # 0 log 0 is 0.
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy = -(probabilities * logs).sum(axis=1)
    share = entropy / np.float32(np.log(probabilities.shape[1]))
    # Rounding may leave a share just outside; NaN stays NaN.
    return np.clip(np.float32(1) - share, np.float32(0), np.float32(1))


def _energy(
    _: NDArray[np.float32], scaled: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """(1 + e / (1 + |e|)) / 2 of e = T logsumexp(logits / T), minus the energy of the row.

    The energy score is Liu et al.'s (NeurIPS 2020); the softsign brings it between 0 and 1 in the
    same order, and saturates later than a sigmoid.
    """
    largest = scaled.max(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are the gate's to mask
        e = np.float32(temperature) * (
            largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
        )
        return (np.float32(1) + e / (np.float32(1) + np.abs(e))) / np.float32(2)


# Of probabilities and temperature-scaled logits, both (n, n_labels), and the temperature: (n,).
SIGNALS: dict[
    str, Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.float32]]
] = {
    MAX_PROBABILITY: _max_probability,
    MARGIN: _margin,
    ENTROPY: _entropy,
    ENERGY: _energy,
}
