"""Thresholds for a maximum deferral rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Threshold


def threshold_for_deferral_rate(confidence: NDArray[np.float32], max_rate: float) -> float:
    """The largest threshold at which at most `max_rate` of the rows are deferred.

    It is halfway between the highest deferred and the lowest exiting confidence, because the last
    digits of a confidence vary with batch and padding.

    Args:
        confidence: Shape (n,). NaN rows are deferred at every threshold.
        max_rate: From 0 to 1.

    Returns:
        A float32 value from 0 to 1.
    """
    finite = np.sort(confidence[np.isfinite(confidence)])
    # The small term corrects rounding: 0.29 * 100 is below 29.
    budget = math.floor(max_rate * len(confidence) + 1e-9) - (len(confidence) - len(finite))
    if budget <= 0:
        return 0.0
    if budget >= len(finite):
        return 1.0
    exited = finite[budget]
    deferred = finite[finite < exited]  # rows tied with the first exiting one exit too
    if not len(deferred):
        return 0.0
    halfway = np.float32((float(deferred[-1]) + float(exited)) / 2)
    # Adjacent float32 values have no value between them; the lower one, as threshold, is deferred.
    return float(halfway if deferred[-1] <= halfway < exited else deferred[-1])


def thresholds_for_deferral_rates(
    confidence: NDArray[np.float32], max_rates: Sequence[float]
) -> tuple[Threshold, ...]:
    """Thresholds stage by stage, each on the rows that the earlier stages deferred.

    Args:
        confidence: Of every stage but the last for every row, shape (n, n_stages - 1).
        max_rates: For each of these stages, the largest share of the rows reaching it that it may
            defer.
    """
    reaching = np.ones(len(confidence), dtype=bool)
    thresholds: list[Threshold] = []
    for stage, rate in enumerate(max_rates):
        of_stage = confidence[:, stage]
        threshold = threshold_for_deferral_rate(of_stage[reaching], rate)
        thresholds.append(threshold)
        reaching &= ~(of_stage > np.float32(threshold))
    return tuple(thresholds)
