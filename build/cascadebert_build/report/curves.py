"""Accuracy against deferral and cost, over thresholds and for references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answers import NO_ANSWER, exit_stages

_MOST_POINTS = 300


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    """A cascade at k thresholds, each of them common to all stages that may defer.

    Attributes:
        threshold: ascending, shape (k,).
        deferral: share of the rows that the first stage does not answer, shape (k,).
        cost: of a row on average, relative to the last member alone, shape (k,).
        accuracy: shape (k,).
    """

    threshold: NDArray[np.float64]
    deferral: NDArray[np.float64]
    cost: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def cascade_curve(
    confidences: NDArray[Any], right: NDArray[np.bool_], costs: Sequence[float]
) -> CascadeCurve:
    """Sweep one threshold for all stages, from none deferred to all.

    Args:
        confidences: of every stage for every row, shape (n, n_stages).
        right: whether that stage's answer is right, shape (n, n_stages).
        costs: of a row in each member, relative to the last member.
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


def mean_cost(stages: NDArray[Any], costs: Sequence[float]) -> float:
    """A row's cost on average: the sum over the stages that it ran through.

    Args:
        stages: that answered, shape (n,); NO_ANSWER rows ran through all.
        costs: of a row in each member.
    """
    through = np.cumsum(np.asarray(costs, dtype=np.float64))
    return float(through[stages].mean())  # NO_ANSWER, -1, takes the last sum


def accuracy_of(stages: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """Share of right answers; a row without an answer is wrong.

    Args:
        stages: that answered, shape (n,).
        right: of every stage for every row, shape (n, n_stages).
    """
    return float((right[np.arange(len(stages)), stages] & (stages != NO_ANSWER)).mean())


def oracle_curve(
    first: NDArray[np.bool_], last: NDArray[np.bool_]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Deferral rates and accuracies of a gate that knows which rows gain.

    It defers those first that only the last member has right, then those where it makes no
    difference, and last those that only the first member has right.

    Args:
        first: whether the first member is right, shape (n,).
        last: whether the last one is, shape (n,).
    """
    n = len(first)
    gains, losses = int((last & ~first).sum()), int((first & ~last).sum())
    best = (int(first.sum()) + gains) / n
    return (0.0, gains / n, 1 - losses / n, 1.0), (
        float(first.mean()), best, best, float(last.mean()),
    )  # fmt: skip
