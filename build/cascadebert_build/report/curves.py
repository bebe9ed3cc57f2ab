"""Accuracy against deferral rate and cost, over all thresholds, with references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answers import NO_ANSWER, exit_stages

_MOST_POINTS = 300


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    """A cascade at k thresholds; each is used by all stages that may defer.

    Attributes:
        threshold: Ascending, shape (k,).
        deferral: Share of the rows that the first stage defers, shape (k,).
        cost: Mean cost of a row, relative to the last member alone, shape (k,).
        accuracy: Share of right answers, shape (k,).
    """

    threshold: NDArray[np.float64]
    deferral: NDArray[np.float64]
    cost: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def cascade_curve(
    confidences: NDArray[Any], right: NDArray[np.bool_], costs: NDArray[np.float64]
) -> CascadeCurve:
    """Sweep one threshold for all stages, from no row deferred to all rows deferred.

    Args:
        confidences: The confidence of each stage for each row, shape (n, n_stages).
        right: Whether that stage's answer is right, shape (n, n_stages).
        costs: The cost of each row in each member, relative to the last member's mean, shape
            (n, n_stages).
    """
    last = confidences.shape[1] - 1
    gates = np.sort(confidences[:, :last], axis=None)
    gates = gates[np.isfinite(gates)]  # sorting put NaN last
    some = gates[np.linspace(0, max(0, len(gates) - 1), _MOST_POINTS).astype(int)[: len(gates)]]
    if len(gates) <= _MOST_POINTS:
        some = gates
    thresholds = np.unique(np.concatenate([[-1.0], some]))
    stages = [exit_stages(confidences, (float(t),) * last) for t in thresholds]
    return CascadeCurve(
        threshold=thresholds,
        deferral=np.array([(s != 0).mean() for s in stages]),
        cost=np.array([mean_cost(s, costs) for s in stages]),
        accuracy=np.array([accuracy_of(s, right) for s in stages]),
    )


def mean_cost(stages: NDArray[Any], costs: NDArray[np.float64]) -> float:
    """Return the mean cost of a row: the sum over the stages that it ran through.

    Args:
        stages: The stage that answered each row, shape (n,). NO_ANSWER rows ran through all.
        costs: The cost of each row in each member, shape (n, n_stages).
    """
    # NO_ANSWER, -1, takes the last sum.
    return float(np.cumsum(costs, axis=1)[np.arange(len(stages)), stages].mean())


def accuracy_of(stages: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Return the share of right answers; a row without an answer counts as wrong.

    Args:
        stages: The stage that answered each row, shape (n,).
        right: Whether each stage is right about each row, shape (n, n_stages).
    """
    return float((right[np.arange(len(stages)), stages] & (stages != NO_ANSWER)).mean())


def oracle_curve(
    first: NDArray[np.bool_], last: NDArray[np.bool_]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return deferral rates and accuracies of a gate that knows which rows gain.

    It first defers the rows that only the last member gets right, then those where both members
    agree on right or wrong, and last those that only the first member gets right.

    Args:
        first: Whether the first member is right, shape (n,).
        last: Whether the last member is right, shape (n,).
    """
    n = len(first)
    gains, losses = int((last & ~first).sum()), int((first & ~last).sum())
    best = (int(first.sum()) + gains) / n
    return (0.0, gains / n, 1 - losses / n, 1.0), (
        float(first.mean()), best, best, float(last.mean()),
    )  # fmt: skip
