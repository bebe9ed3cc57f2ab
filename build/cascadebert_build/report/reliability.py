"""Confidence against accuracy, in the bins of the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # as `metrics.expected_calibration_error`
_Z = 1.959964  # 95% of a normal distribution


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal mass, the least sure rows first.

    Attributes:
        confidence: mean probability of the chosen label in each bin, shape (bins,).
        accuracy: in each bin, shape (bins,).
        low, high: 95% interval of that accuracy, shape (bins,) each.
        rows: in each bin, shape (bins,).
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
        probability: of the chosen label, shape (n,); NaN rows are left out.
        right: shape (n,).
    """
    finite = np.isfinite(probability)
    sure, hits = np.asarray(probability[finite], dtype=np.float64), right[finite]
    order = np.argsort(sure, kind="stable")
    parts = [part for part in np.array_split(order, min(BINS, max(1, len(order)))) if len(part)]
    rows = np.array([len(part) for part in parts], dtype=np.int64)
    accuracy = np.array([hits[part].mean() for part in parts])
    middle = (accuracy + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    spread = np.sqrt(accuracy * (1 - accuracy) / rows + _Z**2 / (4 * rows**2))
    spread *= _Z / (1 + _Z**2 / rows)
    return Reliability(
        confidence=np.array([sure[part].mean() for part in parts]),
        accuracy=accuracy,
        low=np.clip(middle - spread, 0, accuracy),
        high=np.clip(middle + spread, accuracy, 1),
        rows=rows,
    )
