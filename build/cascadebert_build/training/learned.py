"""Whether a training has learned anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def warning_of_accuracies(
    accuracies: Sequence[float], truth: NDArray[np.int64], learning_rate: float
) -> str | None:
    """What to try if no validation was better than the most frequent label; else None.

    Args:
        accuracies: Of all validations.
        truth: The label indices of the validation rows, shape (n,).
        learning_rate: That was used.
    """
    n = len(truth)
    most = int(np.bincount(truth).max())
    if any(round(accuracy * n) > most for accuracy in accuracies):
        return None
    return (
        f"nothing was learned: no validation was better than always giving the most frequent "
        f"label, {most / n:.2%} of {n:,} rows. Try another --learning-rate (it was "
        f"{learning_rate:g}; a tenth and ten times that), more --epochs, or a --base with more "
        "layers, and look whether the labels fit the texts"
    )
