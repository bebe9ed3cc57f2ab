"""Confidence against accuracy, in the bins of the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import needs_extra

BINS = 15  # as in `metrics.expected_calibration_error`


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal mass, the least confident rows first.

    Attributes:
        confidence: Mean probability of the chosen label in each bin, shape (bins,).
        accuracy: Accuracy in each bin, shape (bins,).
        low: Lower end of the 95% interval of the accuracy, shape (bins,).
        high: Upper end of it, shape (bins,).
        rows: Rows in each bin, shape (bins,).
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rows: NDArray[np.int64]


def reliability(probability: NDArray[Any], right: NDArray[np.bool_]) -> Reliability:
    """Bin the rows that have a finite probability.

    The intervals are Wilson's (1927), which stay within 0 and 1.

    Args:
        probability: Probability of the chosen label, shape (n,). NaN rows are left out.
        right: Whether the label is right, shape (n,).
    """
    with needs_extra("build"):
        from scipy.stats import binomtest
    finite = np.isfinite(probability)
    sure, hits = np.asarray(probability[finite], dtype=np.float64), right[finite]
    order = np.argsort(sure, kind="stable")
    parts = [part for part in np.array_split(order, min(BINS, max(1, len(order)))) if len(part)]
    rows = np.array([len(part) for part in parts], dtype=np.int64)
    accuracy = np.array([hits[part].mean() for part in parts])
    intervals = [
        binomtest(int(hits[part].sum()), len(part)).proportion_ci(method="wilson") for part in parts
    ]
    return Reliability(
        confidence=np.array([sure[part].mean() for part in parts]),
        accuracy=accuracy,
        # Rounding may leave an end on the wrong side of the accuracy.
        low=np.minimum([interval.low for interval in intervals], accuracy),
        high=np.maximum([interval.high for interval in intervals], accuracy),
        rows=rows,
    )
