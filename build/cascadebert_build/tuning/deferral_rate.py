"""Thresholds that keep a deferral rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Threshold


def threshold_for_deferral_rate(confidence: NDArray[np.float32], max_rate: float) -> float:
    """The largest threshold at which at most `max_rate` of the rows are deferred.

    It lies halfway between the last deferred and the first exited confidence, so that the last
    digits of a row, which change with batch and padding, seldom decide.

    Args:
        confidence: shape (n,); NaN rows are deferred at every threshold.
        max_rate: from 0 to 1.

    Returns:
        A float32 value from 0 to 1.
    """
    finite = np.sort(confidence[np.isfinite(confidence)])
    # Rounded up by less than one row's worth, or 0.29 * 100 would allow 28 rows.
    budget = math.floor(max_rate * len(confidence) + 1e-9) - (len(confidence) - len(finite))
    if budget <= 0:
        return 0.0
    if budget >= len(finite):
        return 1.0
    exited = finite[budget]
    deferred = finite[finite < exited]  # ties of the first exited row exit with it
    if not len(deferred):
        return 0.0
    halfway = np.float32((float(deferred[-1]) + float(exited)) / 2)
    # Neighbouring float32 values have nothing between them; a tie with the lower one defers it.
    return float(halfway if deferred[-1] <= halfway < exited else deferred[-1])


def thresholds_for_deferral_rates(
    confidence: NDArray[np.float32], max_rates: Sequence[float]
) -> tuple[Threshold, ...]:
    """Thresholds stage by stage, each on the rows that the earlier ones deferred.

    Args:
        confidence: of every stage but the last for every row, shape (n, n_stages - 1).
        max_rates: for each of these stages, the largest share of the rows that reach it which it
            may defer.
    """
    reaching = np.ones(len(confidence), dtype=bool)
    thresholds: list[Threshold] = []
    for stage, rate in enumerate(max_rates):
        of_stage = confidence[:, stage]
        threshold = threshold_for_deferral_rate(of_stage[reaching], rate)
        thresholds.append(threshold)
        reaching &= ~(of_stage > np.float32(threshold))
    return tuple(thresholds)
