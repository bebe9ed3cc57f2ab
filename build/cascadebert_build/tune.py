"""Temperatures and thresholds, on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy

from .data import Rows
from .simulate import logits_in_policy_order
from .temperature import fit_temperature

# The held-out rows are cut once, with this seed: some fit temperatures, the others thresholds.
SPLIT_SEED = 0
_TEMPERATURE_SHARE = 0.2
# A temperature from fewer rows is mostly noise.
MIN_TEMPERATURE_ROWS = 50


@dataclass(frozen=True, slots=True)
class FittedTemperatures:
    """A policy whose probabilities are as honest as its labelled rows allow.

    Attributes:
        policy: with the temperatures.
        temperature_rows: indices of the rows that they were fitted on, ascending; may be empty.
        threshold_rows: indices of all the others.
    """

    policy: Policy
    temperature_rows: NDArray[np.intp]
    threshold_rows: NDArray[np.intp]


def fit_temperatures(
    policy: Policy, rows: Rows, logits: Sequence[NDArray[np.float32]], *, fit: bool = True
) -> FittedTemperatures:
    """Fit the temperature of every stage on a fifth of the rows, drawn with `SPLIT_SEED`.

    Nothing is fitted, and no row is put aside, without labels or where a fifth is fewer than
    `MIN_TEMPERATURE_ROWS` rows: the temperatures are 1 then.

    Args:
        policy: for the order of labels.
        rows: n of them.
        logits: of every stage, each of shape (n, n_labels) in the checkpoint's order.
        fit: False: leave the temperatures alone.

    Raises:
        UsageError: a label is none of the policy's.
    """
    n = len(rows.texts)
    n_fitting = round(n * _TEMPERATURE_SHARE)
    if not fit or rows.labels is None or n_fitting < MIN_TEMPERATURE_ROWS:
        return FittedTemperatures(policy, np.arange(0), np.arange(n))
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    fitting = np.sort(order[:n_fitting])
    labels = rows.label_indices(policy.labels)[fitting]
    stages = tuple(
        replace(
            stage,
            temperature=fit_temperature(
                logits_in_policy_order(policy, i, logits[i])[fitting], labels
            ),
        )
        for i, stage in enumerate(policy.stages)
    )
    return FittedTemperatures(replace(policy, stages=stages), fitting, np.sort(order[n_fitting:]))


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
        policy: for temperatures, signals and label order; its thresholds do not matter.
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
        decision = decide(ordered, stage.temperature, np.float32(0), stage.signal)
        thresholds.append(threshold_for_deferral_rate(decision.confidence[reaching], rate))
        reaching &= ~(decision.confidence > np.float32(thresholds[-1]))
    return tuple(thresholds)
