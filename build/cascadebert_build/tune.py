"""Thresholds from a budget, on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy

from .simulate import logits_in_policy_order


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


def choose_thresholds(
    policy: Policy, logits: Sequence[NDArray[np.float32]], max_deferral_rates: Sequence[float]
) -> tuple[float, ...]:
    """Thresholds stage by stage, each on the rows that the earlier ones deferred.

    Args:
        policy: for temperatures and label order; its thresholds do not matter.
        logits: of every stage but the last at least, each of shape (n, n_labels) in the
            checkpoint's order.
        max_deferral_rates: for every stage but the last, the largest share of the rows that
            reach it which it may defer.
    """
    reaching = np.ones(len(logits[0]), dtype=bool)
    thresholds: list[float] = []
    for index, rate in enumerate(max_deferral_rates):
        stage = policy.stages[index]
        ordered = logits_in_policy_order(policy, index, logits[index])
        decision = decide(ordered, stage.temperature, np.float32(0))
        thresholds.append(threshold_for_deferral_rate(decision.confidence[reaching], rate))
        reaching &= ~(decision.confidence > np.float32(thresholds[-1]))
    return tuple(thresholds)
