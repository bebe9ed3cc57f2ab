"""Chooses the thresholds of an operating point for its goal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.guarantee import (
    BY_HAND,
    COST,
    DEFERRAL_RATE,
    DISAGREEMENT,
    Guarantee,
)
from cascadebert_core.policy import Threshold
from cascadebert_core.published_points import (
    BOUND,
    BUDGET,
    COMPUTATIONS,
    EXITS,
    GUARANTEE,
    OBSERVED,
    ROWS,
    SET_BY_HAND,
    SPEEDUP,
    SPEEDUP_SPREAD,
)

from ..config.goals import Goal
from ..errors import UsageError
from ..evaluation.costs import Cost, RowCosts
from ..evaluation.metrics import Interval
from .deferral_rate import thresholds_for_deferral_rates
from .guarantee import (
    CertifiedThresholds,
    Predictions,
    certify_by_scan,
    certify_in_order,
    check_enough_rows,
    pareto_frontier,
)
from .row_split import RowSplit

# Number of candidate settings, and the most levels of one threshold.
_CANDIDATES = 4096
_FINEST = 128
# More design rows order the settings no better.
_DESIGN_ROWS = 5000
# The most thresholds in one grid; with more, each would have too few levels.
_MOST_AXES = 6


@dataclass(frozen=True)
class TuningRows:
    """The held-out rows that choose thresholds.

    Attributes:
        predictions: Of all stages for all rows.
        costs: Of each row in each stage.
        split: The purpose of each row.
        n_labels: Number of labels of the policy.
    """

    predictions: Predictions
    costs: RowCosts
    split: RowSplit
    n_labels: int

    @cached_property
    def cost_up_to(self) -> NDArray[np.float64]:
        """Milliseconds of each row from the first stage to each stage, shape (n, n_stages)."""
        return np.cumsum(self.costs.ms, axis=1)

    def mean_cost(self, rows: NDArray[np.intp], exits: NDArray[np.intp]) -> float:
        """Mean milliseconds a row, given the stage at which each row exits."""
        return float(self.cost_up_to[rows, exits].mean())

    def mean_cost_alone(self, rows: NDArray[np.intp]) -> float:
        """Mean milliseconds a row of the last member alone."""
        return float(self.costs.ms[rows, -1].mean())


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds and their certificate.

    Attributes:
        thresholds: One for every stage but the last.
        certificate: For policy.json: goal, test, number of rows, observed loss, and its bound.
        exits: The share of the rows that each stage answered.
        cost: Of a row.
    """

    thresholds: tuple[Threshold, ...]
    certificate: dict[str, Any]
    exits: tuple[float, ...]
    cost: Cost


def choose_operating_point(
    goal: Goal, held_out: TuningRows, *, per_label: bool = False
) -> OperatingPoint:
    """Choose the fastest thresholds that meet a goal, or take those that are set by hand.

    Args:
        goal: A guarantee, a budget, or thresholds.
        held_out: The held-out rows.
        per_label: Let a threshold differ by the label that a stage predicts; guarantees only.

    Raises:
        UsageError: There are too few rows, labels are missing, or not even the first stage alone
            meets a budget.
    """
    if goal.guarantee is not None:
        certified, rows = _certified(goal.guarantee, held_out, per_label=per_label)
        certificate: dict[str, Any] = {
            GUARANTEE: asdict(goal.guarantee),
            "method": certified.method,
            ROWS: certified.n,
            OBSERVED: certified.observed,
            BOUND: certified.bound,
            "tried": certified.tried,
        }
        thresholds = _as_thresholds(certified.thresholds)
    elif goal.kind == BY_HAND:
        rows = held_out.split.thresholds
        thresholds = goal.rates(held_out.predictions.confidence.shape[1])
        certificate = {
            SET_BY_HAND: True,
            "method": "set by hand; guarantees nothing about the answers",
            ROWS: len(rows),
        }
    else:
        rows = held_out.split.thresholds
        thresholds = _within_budget(goal, held_out, rows)
        certificate = {
            BUDGET: {"kind": goal.kind, "limit": goal.limit},
            "method": "chosen on these rows; guarantees nothing about the answers",
            ROWS: len(rows),
        }
    exits = held_out.predictions.take(rows).exits(_as_array(thresholds))
    n_stages = held_out.predictions.labels.shape[1]
    shares = tuple(float((exits == stage).mean()) for stage in range(n_stages))
    cost = held_out.costs.take(rows).of_exits(exits)
    losses = held_out.predictions.take(rows).losses(DISAGREEMENT)
    differing = int(losses[np.arange(len(rows)), exits].sum())
    certificate |= {
        EXITS: [round(share, 6) for share in shares],
        "disagreement": round(differing / len(rows), 6),
        **_as_json(cost),
    }
    return OperatingPoint(thresholds, certificate, shares, cost)


def is_scanned(guarantee: Guarantee, n_thresholds: int, *, per_label: bool) -> bool:
    """Whether all thresholds can be tested in turn, so that no rows need to choose a sequence."""
    return guarantee.kind == DISAGREEMENT and n_thresholds == 1 and not per_label


def check_axes(n_thresholds: int, n_labels: int) -> None:
    """Refuse more thresholds than a grid can have.

    Args:
        n_thresholds: Number of stages that may defer.
        n_labels: Thresholds of each of them: 1, or the number of labels.

    Raises:
        UsageError: There are too many.
    """
    if n_thresholds * n_labels > _MOST_AXES:
        raise UsageError(
            f"per_label = true with {n_labels} labels and {n_thresholds + 1} stages makes "
            f"{n_thresholds * n_labels} thresholds, more than the {_MOST_AXES} that can be "
            "searched together: leave per_label out"
        )


def _certified(
    guarantee: Guarantee, held_out: TuningRows, *, per_label: bool
) -> tuple[CertifiedThresholds, NDArray[np.intp]]:
    predictions, split = held_out.predictions, held_out.split
    n_thresholds = predictions.confidence.shape[1]
    if is_scanned(guarantee, n_thresholds, per_label=per_label):
        return certify_by_scan(guarantee, predictions.take(split.thresholds)), split.thresholds
    check_enough_rows(guarantee, len(split.test) if len(split.design) else 0)
    design = split.design[:: -(-len(split.design) // _DESIGN_ROWS) or 1]
    test = split.test
    settings = pareto_frontier(
        guarantee,
        predictions.take(design),
        _candidates(predictions.take(design), held_out.n_labels if per_label else 1),
        lambda exits: held_out.mean_cost(design, exits),
    )
    certified = certify_in_order(
        guarantee,
        predictions.take(test),
        settings,
        lambda exits: held_out.mean_cost(test, exits),
    )
    return certified, test


def _candidates(predictions: Predictions, n_labels: int) -> list[NDArray[np.float32]]:
    """A grid of thresholds at quantiles of the confidences; it contains the safest setting.

    Returns:
        Arrays of shape (n_thresholds,), or (n_thresholds, n_labels) if `n_labels` is above 1.

    Raises:
        UsageError: There are too many thresholds for a grid.
    """
    n_thresholds = predictions.confidence.shape[1]
    n_axes = n_thresholds * n_labels
    check_axes(n_thresholds, n_labels)
    per_axis = max(2, min(_FINEST, int(_CANDIDATES ** (1 / n_axes)) - 2))
    axes: list[NDArray[np.float32]] = []
    for stage in range(n_thresholds):
        finite = predictions.confidence[:, stage][np.isfinite(predictions.confidence[:, stage])]
        levels = np.quantile(finite, np.linspace(0, 1, per_axis)) if finite.size else np.zeros(0)
        axis = np.unique(np.concatenate([[0.0], levels, [1.0]]).astype(np.float32))
        axes += [axis] * n_labels
    shape = (n_thresholds, n_labels) if n_labels > 1 else (n_thresholds,)
    return [np.array(setting, np.float32).reshape(shape) for setting in itertools.product(*axes)]


def _within_budget(
    goal: Goal, held_out: TuningRows, rows: NDArray[np.intp]
) -> tuple[Threshold, ...]:
    predictions = held_out.predictions.take(rows)
    if goal.kind == DEFERRAL_RATE:
        rates = goal.rates(predictions.confidence.shape[1])
        return thresholds_for_deferral_rates(predictions.confidence, rates)
    alone = held_out.mean_cost_alone(rows)
    (limit,) = goal.rates(1)
    most = limit if goal.kind == COST else alone / limit
    n_thresholds = predictions.confidence.shape[1]
    # Rows with a NaN or infinite logit still exit only at the last stage.
    loosest = np.zeros(n_thresholds, dtype=np.float32)
    fastest = held_out.mean_cost(rows, predictions.exits(loosest))
    if fastest > most:
        raise UsageError(
            f"{goal} cannot be met: the cascade takes at least {fastest:.3g} ms a row and the "
            f"last member alone {alone:.3g}; at most {alone / fastest:.3g} times faster is "
            "possible with these members"
        )
    settings = [
        s
        for s in _candidates(predictions, 1)
        if held_out.mean_cost(rows, predictions.exits(s)) <= most
    ]
    losses = predictions.losses(DISAGREEMENT)
    index = np.arange(len(rows))
    # The smallest disagreement; among equals, the fastest.
    best = min(
        settings,
        key=lambda s: (
            losses[index, predictions.exits(s)].mean(),
            held_out.mean_cost(rows, predictions.exits(s)),
        ),
    )
    return _as_thresholds(best)


def _as_json(cost: Cost) -> dict[str, Any]:
    """What a certificate says of the cost; none of it is guaranteed."""

    def spread(interval: Interval, places: int) -> list[float]:
        return [round(interval.low, places), round(interval.high, places)]

    found: dict[str, Any] = {
        "ms_per_row": round(cost.ms.value, 4),
        "ms_per_row_spread": spread(cost.ms, 4),
        SPEEDUP: round(cost.speedup.value, 3),
        SPEEDUP_SPREAD: spread(cost.speedup, 3),
    }
    if cost.computations is not None:
        found[COMPUTATIONS] = round(cost.computations, 4)
    return found


def _as_thresholds(values: NDArray[np.float32]) -> tuple[Threshold, ...]:
    if values.ndim == 1:
        return tuple(float(value) for value in values)
    return tuple(tuple(float(value) for value in row) for row in values)


def _as_array(thresholds: Sequence[Threshold]) -> NDArray[np.float32]:
    return np.array([list(t) if isinstance(t, tuple) else t for t in thresholds], dtype=np.float32)
