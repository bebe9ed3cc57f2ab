"""Where rows leave a backbone with an exit after every layer, and what that costs.

All functions take the logits of the exits, shape (n, layers, n_labels), and no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special


@dataclass(frozen=True, slots=True)
class Curve:
    """What a method answers at each setting of its one constant.

    Attributes:
        settings: Thresholds or patiences, so that the layers ascend, shape (k,); or the two
            thresholds of three stages, shape (k, 2).
        layers: The mean number of layers run, shape (k,).
        predicted: The label of every row at every setting, shape (k, n).
        layers_of_rows: The layers run for every row, shape (k, n).
    """

    settings: NDArray[np.float64]
    layers: NDArray[np.float64]
    predicted: NDArray[np.int64]
    layers_of_rows: NDArray[Any]


def entropies(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the entropy of the softmax in nats, shape (n, layers)."""
    values = np.asarray(logits, dtype=np.float64)
    return special.entr(special.softmax(values, axis=-1)).sum(axis=-1)


def exits_by_entropy(logits: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """Return the index of the first exit with an entropy below the threshold, shape (n,).

    A row without such an exit leaves at the last one. This is DeeBERT's rule (Xin et al., ACL
    2020).
    """
    sure = entropies(logits) < threshold
    sure[:, -1] = True
    return sure.argmax(axis=1)


def exits_by_patience(logits: NDArray[Any], patience: int) -> NDArray[np.int64]:
    """Return the index of the exit where predictions have agreed `patience` times in a row.

    This is PABEE's rule (Zhou et al., NeurIPS 2020): a counter of agreements with the previous
    exit, reset by a disagreement. Shape (n,); the last exit if the counter never gets there.
    """
    predicted = logits.argmax(axis=-1)  # (n, layers)
    n, layers = predicted.shape
    left = np.full(n, layers - 1)
    counter = np.zeros(n, dtype=np.int64)
    for layer in range(1, layers):
        agrees = predicted[:, layer] == predicted[:, layer - 1]
        counter = np.where(agrees, counter + 1, 0)
        left = np.where((counter >= patience) & (left == layers - 1), layer, left)
    return left


def entropy_curve(logits: NDArray[Any], points: int = 200) -> Curve:
    """Return DeeBERT over entropy thresholds, from one that every row passes to none."""
    found = entropies(logits)[:, :-1]
    # With quantiles, each step moves about as many rows.
    settings = np.unique(np.quantile(found, np.linspace(1, 0, points)))[::-1]
    settings = np.concatenate([[np.inf], settings, [0.0]])
    return _curve(logits, settings, [exits_by_entropy(logits, s) for s in settings])


def patience_curve(logits: NDArray[Any]) -> Curve:
    """Return PABEE at every patience from 1. The last one never stops early."""
    settings = np.arange(1, logits.shape[1] + 1, dtype=np.float64)
    return _curve(logits, settings, [exits_by_patience(logits, int(s)) for s in settings])


def _curve(
    logits: NDArray[Any], settings: NDArray[np.float64], left: list[NDArray[np.int64]]
) -> Curve:
    exits = np.stack(left)  # (k, n)
    predicted = logits.argmax(axis=-1)[np.arange(len(logits)), exits]
    return Curve(settings, (exits + 1).mean(axis=1), predicted, exits + 1)
