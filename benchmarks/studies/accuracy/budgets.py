"""Accuracy at a budget of layers, with the setting chosen on other rows than those reported.

Cascades and early exits alike are a family of settings, each with a label and a cost for every
row. On one half of the rows the setting is chosen, on the other it is judged, then the halves
change places; several random cuts are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.early_exit.exit_curves import Curve
from cascadebert_build.evaluation.metrics import confidence_score

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
CUTS = 10


@dataclass(frozen=True, slots=True)
class AtBudget:
    """What a method gave on rows that did not choose its setting.

    Attributes:
        metric: mean over cuts and halves.
        layers: run per row, mean likewise; close to the budget, not at it.
    """

    metric: float
    layers: float


def cascade_curve(
    small: NDArray[Any], large: NDArray[Any], small_layers: int, large_layers: int
) -> Curve:
    """A two-stage cascade at every deferral: cost of a row is the layers of the stages it met."""
    sure = confidence_score(small)
    order = np.sort(sure)
    n = len(sure)
    # A threshold between any two rows, thinned to 200 where there are many.
    picks = np.unique(np.linspace(0, n, min(n, 200) + 1).astype(int))
    thresholds = np.concatenate([order, [np.inf]])[picks]
    deferred = sure[None, :] < thresholds[:, None]  # (k, n)
    predicted = np.where(deferred, large.argmax(axis=1), small.argmax(axis=1))
    layers = small_layers + large_layers * deferred.astype(np.int64)
    return Curve(thresholds, layers.mean(axis=1), predicted, layers)


def at_budget(
    curve: Curve, labels: NDArray[np.int64], budget: float, metric: Metric, seed: int = 0
) -> AtBudget | None:
    """The method at a mean number of layers.

    On the choosing half, the two settings on either side of the budget are mixed in the shares that
    meet it, as a service would that takes each for a share of its traffic; on the judging half the
    same shares are taken.

    Returns:
        None where even the cheapest setting costs more.
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    found: list[tuple[float, float]] = []
    for _ in range(CUTS):
        order = rng.permutation(n)
        halves = order[: n // 2], order[n // 2 :]
        for choosing, judging in (halves, halves[::-1]):
            cost = curve.layers_of_rows[:, choosing].mean(axis=1)
            by_cost = np.argsort(cost, kind="stable")
            cost = cost[by_cost]
            if cost[0] > budget + 1e-9:
                # The half is unlucky, or the method is too dear: its cheapest setting decides.
                if curve.layers.min() > budget + 1e-9:
                    return None
                low = high = 0
                share = 0.0
            else:
                low = int(np.searchsorted(cost, budget + 1e-9, side="right")) - 1
                high = min(low + 1, len(cost) - 1)
                gap = cost[high] - cost[low]
                share = float(np.clip((budget - cost[low]) / gap, 0, 1)) if gap > 0 else 0.0
            values = [
                metric(curve.predicted[by_cost[i], judging], labels[judging]) for i in (low, high)
            ]
            layers = [curve.layers_of_rows[by_cost[i], judging].mean() for i in (low, high)]
            found.append(
                (
                    (1 - share) * values[0] + share * values[1],
                    float((1 - share) * layers[0] + share * layers[1]),
                )
            )
    metric_mean, layers_mean = np.mean(found, axis=0)
    return AtBudget(float(metric_mean), float(layers_mean))
