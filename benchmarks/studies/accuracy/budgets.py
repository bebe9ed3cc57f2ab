"""Accuracy at a budget of layers, with the setting chosen on other rows than those reported.

Cascades and early exits are both families of settings, each with a label and a cost for every row.
The setting is chosen on one half of the rows and judged on the other, then the halves are swapped.
Several random splits are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import confidence_score

from ..early_exit.exit_curves import Curve

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
_SPLITS = 10
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class AtBudget:
    """What a method gave on rows that did not choose its setting.

    Attributes:
        metric: The mean over splits and halves.
        layers: The mean number of layers run per row, close to the budget but not exactly at it.
    """

    metric: float
    layers: float


def cascade_curve(
    small: NDArray[Any], large: NDArray[Any], small_layers: int, large_layers: int
) -> Curve:
    """Return a two-stage cascade at every deferral. A row costs the layers of the stages it met."""
    sure = confidence_score(small)
    order = np.sort(sure)
    n = len(sure)
    # A threshold between any two rows, at most about 200 of them.
    picks = np.unique(np.linspace(0, n, min(n, 200) + 1).astype(int))
    thresholds = np.concatenate([order, [np.inf]])[picks]
    deferred = sure[None, :] < thresholds[:, None]  # (k, n)
    predicted = np.where(deferred, large.argmax(axis=1), small.argmax(axis=1))
    layers = small_layers + large_layers * deferred.astype(np.int64)
    return Curve(thresholds, layers.mean(axis=1), predicted, layers)


def at_budget(
    curve: Curve, labels: NDArray[np.int64], budget: float, metric: Metric, seed: int = 0
) -> AtBudget | None:
    """Return the method at a mean number of layers; None if its cheapest setting costs more.

    On the choosing half, the two settings on either side of the budget are mixed so that they meet
    it, like a service that uses each for a share of its traffic. The judging half uses the same
    mix.
    """
    if curve.layers.min() > budget + _ROUNDING:
        return None
    rng = np.random.default_rng(seed)
    n = len(labels)
    found: list[tuple[float, float]] = []
    for _ in range(_SPLITS):
        order = rng.permutation(n)
        halves = order[: n // 2], order[n // 2 :]
        for choosing, judging in (halves, halves[::-1]):
            mix = _mix(curve.layers_of_rows[:, choosing].mean(axis=1), budget)
            values = [metric(curve.predicted[i, judging], labels[judging]) for i, _ in mix]
            layers = [curve.layers_of_rows[i, judging].mean() for i, _ in mix]
            shares = [share for _, share in mix]
            found.append((float(np.dot(shares, values)), float(np.dot(shares, layers))))
    metric_mean, layers_mean = np.mean(found, axis=0)
    return AtBudget(float(metric_mean), float(layers_mean))


def _mix(cost: NDArray[np.float64], budget: float) -> list[tuple[int, float]]:
    """Return the settings on either side of a budget, each with its share."""
    by_cost = np.argsort(cost, kind="stable")
    cost = cost[by_cost]
    low = max(0, int(np.searchsorted(cost, budget + _ROUNDING, side="right")) - 1)
    high = min(low + 1, len(cost) - 1)
    gap = cost[high] - cost[low]
    # If even the cheapest setting is too expensive on this half, it is used alone.
    share = float(np.clip((budget - cost[low]) / gap, 0, 1)) if gap > 0 else 0.0
    return [(int(by_cost[low]), 1 - share), (int(by_cost[high]), share)]
