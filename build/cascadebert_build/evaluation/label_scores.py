"""Scores of multi-label answers, label by label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How well predicted sets of labels fit the true ones.

    The accuracy of sets counts a row as right only if all its labels are right; these scores count
    labels.

    Attributes:
        micro_f1: F1 over all labels of all rows together.
        macro_f1: The mean of the labels' own F1. A label that no row has and none is given counts
            as 0, as in scikit-learn.
        hamming_loss: The share of wrong labels, over all labels of all rows.
    """

    micro_f1: float
    macro_f1: float
    hamming_loss: float


def label_scores(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> LabelScores:
    """Compare sets of labels.

    Args:
        predicted: Which labels each row is given, shape (n, n_labels), n at least 1.
        truth: Which labels each row has, shape (n, n_labels).
    """
    both = (predicted & truth).sum(axis=0)  # (n_labels,)
    given, wanted = predicted.sum(axis=0), truth.sum(axis=0)
    return LabelScores(
        micro_f1=float(_f1(both.sum(), given.sum() + wanted.sum())),
        macro_f1=float(_f1(both, given + wanted).mean()),
        hamming_loss=float((predicted != truth).mean()),
    )


def _f1(both: Any, given_and_wanted: Any) -> Any:
    """F1 from the number of hits and the sum of predicted and true labels; 0 without any."""
    return 2 * both / np.maximum(given_and_wanted, 1)
