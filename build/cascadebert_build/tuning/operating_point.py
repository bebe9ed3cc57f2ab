"""An operating point: thresholds for one goal, and what is known of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.guarantee import COST, DEFERRAL_RATE, DISAGREEMENT, Guarantee
from cascadebert_core.policy import Threshold

from ..config.goals import Goal
from ..errors import UsageError
from .guarantee import Answers, Kept, check_enough_rows, frontier, keep_along, keep_by_scan
from .row_split import RowSplit

# Settings that the design rows look through.
_CANDIDATES = 4096
_FINEST = 128
_DESIGN_ROWS = 5000
# Thresholds that are searched together: a few levels of each.
_MOST_AXES = 6


@dataclass(frozen=True)
class Population:
    """The held-out rows as the search sees them.

    Attributes:
        answers: of all stages to all rows.
        cost: milliseconds of each row in each stage, shape (n, n_stages).
        split: which rows answer which question.
        n_labels: of the policy.
    """

    answers: Answers
    cost: NDArray[np.float64]
    split: RowSplit
    n_labels: int

    @cached_property
    def cost_up_to(self) -> NDArray[np.float64]:
        """Milliseconds of each row up to and with each stage, shape (n, n_stages)."""
        return np.cumsum(self.cost, axis=1)

    def mean_cost(self, rows: NDArray[np.intp], exits: NDArray[np.intp]) -> float:
        """Milliseconds a row: the stages up to the one that each row exits at."""
        return float(self.cost_up_to[rows, exits].mean())

    def mean_cost_alone(self, rows: NDArray[np.intp]) -> float:
        """Milliseconds a row of the last member alone."""
        return float(self.cost[rows, -1].mean())


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds and their certificate.

    Attributes:
        thresholds: one for every stage but the last.
        certificate: for policy.json: goal, test, rows, what was observed, and the bound.
    """

    thresholds: tuple[Threshold, ...]
    certificate: dict[str, Any]


def choose_operating_point(
    goal: Goal, population: Population, *, per_label: bool = False
) -> OperatingPoint:
    """Thresholds that meet a goal, as cheaply as they can.

    Args:
        goal: a promise or a budget.
        population: the held-out rows.
        per_label: let a threshold differ by the label that a stage predicts; promises only.

    Raises:
        UsageError: too few rows, no labels where they are needed, or a budget that not even the
            first stage alone meets.
    """
    if goal.guarantee is not None:
        kept, rows = _keep(goal.guarantee, population, per_label=per_label)
        certificate: dict[str, Any] = {
            "promise": {
                "kind": goal.kind,
                "limit": goal.guarantee.limit,
                "confidence": goal.guarantee.confidence,
            },
            "method": kept.method,
            "n": kept.n,
            "observed": kept.observed,
            "bound": kept.bound,
            "tried": kept.tried,
        }
        thresholds = _as_thresholds(kept.thresholds)
    else:
        rows = population.split.thresholds
        thresholds = _within_budget(goal, population, rows)
        certificate = {
            "budget": {"kind": goal.kind, "limit": goal.limit},
            "method": "chosen on these very rows; promises nothing about the answers",
            "n": len(rows),
        }
    return OperatingPoint(thresholds, certificate | _description(population, thresholds, rows))


def _keep(
    guarantee: Guarantee, population: Population, *, per_label: bool
) -> tuple[Kept, NDArray[np.intp]]:
    answers, split = population.answers, population.split
    n_thresholds = answers.confidence.shape[1]
    if guarantee.kind == DISAGREEMENT and n_thresholds == 1 and not per_label:
        return keep_by_scan(guarantee, answers.take(split.thresholds)), split.thresholds
    # Enough of them to order settings by; more would only take longer.
    check_enough_rows(guarantee, len(split.test) if len(split.design) else 0)
    design = split.design[:: -(-len(split.design) // _DESIGN_ROWS) or 1]
    test = split.test
    settings = frontier(
        guarantee,
        answers.take(design),
        _candidates(answers.take(design), population.n_labels if per_label else 1),
        lambda exits: population.mean_cost(design, exits),
    )
    kept = keep_along(
        guarantee,
        answers.take(test),
        settings,
        lambda exits: population.mean_cost(test, exits),
    )
    return kept, test


def _candidates(answers: Answers, n_labels: int) -> list[NDArray[np.float32]]:
    """A grid of thresholds over quantiles of the confidences, the safest setting in it.

    Returns:
        Arrays of shape (n_thresholds,), or (n_thresholds, n_labels) with several labels.
    """
    n_thresholds = answers.confidence.shape[1]
    n_axes = n_thresholds * n_labels
    if n_axes > _MOST_AXES:
        raise UsageError(
            f"per_label = true with {n_labels} labels and {n_thresholds + 1} stages makes "
            f"{n_axes} thresholds, more than the {_MOST_AXES} that are searched together: leave "
            "per_label out"
        )
    per_axis = max(2, min(_FINEST, int(_CANDIDATES ** (1 / n_axes)) - 2))
    axes: list[NDArray[np.float32]] = []
    for stage in range(n_thresholds):
        finite = answers.confidence[:, stage][np.isfinite(answers.confidence[:, stage])]
        levels = np.quantile(finite, np.linspace(0, 1, per_axis)) if finite.size else np.zeros(0)
        axis = np.unique(np.concatenate([[0.0], levels, [1.0]]).astype(np.float32))
        axes += [axis] * n_labels
    shape = (n_thresholds, n_labels) if n_labels > 1 else (n_thresholds,)
    return [np.array(setting, np.float32).reshape(shape) for setting in itertools.product(*axes)]


def _within_budget(
    goal: Goal, population: Population, rows: NDArray[np.intp]
) -> tuple[Threshold, ...]:
    from .deferral_rate import thresholds_for_deferral_rates

    answers = population.answers.take(rows)
    if goal.kind == DEFERRAL_RATE:
        rates = goal.rates(answers.confidence.shape[1])
        return thresholds_for_deferral_rates(answers.confidence, rates)
    alone = population.mean_cost_alone(rows)
    (limit,) = goal.rates(1)
    most = limit if goal.kind == COST else alone / limit
    n_thresholds = answers.confidence.shape[1]
    # Rows without a finite logit exit nowhere but at the end, whatever the threshold.
    loosest = np.zeros(n_thresholds, dtype=np.float32)
    cheapest = population.mean_cost(rows, answers.exits(loosest))
    if cheapest > most:
        raise UsageError(
            f"{goal} cannot be met: the cascade takes at least {cheapest:.3g} ms a row and the "
            f"last member alone {alone:.3g}; at most {alone / cheapest:.3g} times cheaper is "
            "possible with these members"
        )
    settings = [
        s for s in _candidates(answers, 1) if population.mean_cost(rows, answers.exits(s)) <= most
    ]
    losses = answers.losses(DISAGREEMENT)
    index = np.arange(len(rows))
    # The fewest other answers; of those, the cheapest.
    best = min(
        settings,
        key=lambda s: (
            losses[index, answers.exits(s)].mean(),
            population.mean_cost(rows, answers.exits(s)),
        ),
    )
    return _as_thresholds(best)


def _description(
    population: Population, thresholds: Sequence[Threshold], rows: NDArray[np.intp]
) -> dict[str, Any]:
    """What the thresholds do on the rows that chose them: for people, none of it promised."""
    answers = population.answers.take(rows)
    exits = answers.exits(_as_array(thresholds))
    n_stages = answers.labels.shape[1]
    cost, alone = population.mean_cost(rows, exits), population.mean_cost_alone(rows)
    differing = int(answers.losses(DISAGREEMENT)[np.arange(len(rows)), exits].sum())
    return {
        "exits": [round(float((exits == stage).mean()), 6) for stage in range(n_stages)],
        "disagreement": round(differing / len(rows), 6),
        "ms_per_row": round(cost, 4),
        "speedup": round(alone / cost, 3) if cost > 0 else None,
    }


def _as_thresholds(values: NDArray[np.float32]) -> tuple[Threshold, ...]:
    if values.ndim == 1:
        return tuple(float(value) for value in values)
    return tuple(tuple(float(value) for value in row) for row in values)


def _as_array(thresholds: Sequence[Threshold]) -> NDArray[np.float32]:
    return np.array([list(t) if isinstance(t, tuple) else t for t in thresholds], dtype=np.float32)
