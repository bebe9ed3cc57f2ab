"""Repeat tuning, and count how often each way of choosing thresholds breaks its guarantee."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.config.goals import Goal
from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.costs import RowCosts
from cascadebert_build.tuning.guarantee import Predictions
from cascadebert_build.tuning.operating_point import TuningRows, choose_operating_point
from cascadebert_build.tuning.row_split import RowSplit, split_rows_for_tuning

from .populations import Population

# `cascadebert tune`, and the common way: the loosest threshold within the limit on these rows.
GUARANTEE, VALIDATION_SET = "promise", "validation set"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way of choosing thresholds, over many draws.

    Attributes:
        population: The population of the draws.
        kind: The kind of the guarantee.
        limit: The limit of the guarantee.
        confidence: The confidence of the guarantee.
        n: All held-out rows. `tune` puts some aside for temperatures and its report.
        method: `GUARANTEE` or `VALIDATION_SET`.
        trials: The draws.
        broken: The share of the draws whose thresholds have a true risk above the limit.
        error: The standard error of that share.
        deferral: The mean true share of the rows that the first stage defers.
        oracle: The least share that keeps the guarantee; None if there are several thresholds.
    """

    population: str
    kind: str
    limit: float
    confidence: float
    n: int
    method: str
    trials: int
    broken: float
    error: float
    deferral: float
    oracle: float | None


def try_methods(
    population: Population, goal: Goal, n: int, trials: int, seed: int = 0
) -> list[Outcome]:
    """Compare `tune` with the common way on the same draws; return [] if `tune` refuses.

    Args:
        population: The population to draw from.
        goal: The guarantee.
        n: The held-out rows of a draw.
        trials: The draws.
        seed: The seed of the draws.
    """
    guarantee = goal.guarantee
    assert guarantee is not None
    # The rows have labels, as usual: a fifth is used for temperatures.
    texts = tuple(str(i) for i in range(n))
    split = split_rows_for_tuning(Rows(texts, (0,) * n, "drawn"))
    chosen: dict[str, list[NDArray[np.float32]]] = {GUARANTEE: []}
    rng = np.random.default_rng((seed, n))
    oracle = population.oracle_deferral(guarantee.kind, guarantee.limit)
    for _ in range(trials):
        answers = population.draw(n, rng)
        try:
            chosen[GUARANTEE].append(_tuned(goal, population, answers, split))
        except UsageError:
            return []  # this depends only on n
        if oracle is not None:
            picked = _picked_on_validation(guarantee.kind, guarantee.limit, answers)
            chosen.setdefault(VALIDATION_SET, []).append(picked)
    found: list[Outcome] = []
    for method, thresholds in chosen.items():
        risks = [population.risk(guarantee.kind, t) for t in thresholds]
        broken = float(np.mean([risk > guarantee.limit for risk, _ in risks]))
        error = float(np.sqrt(max(broken * (1 - broken), 1 / trials) / trials))
        found.append(
            Outcome(
                population.name, guarantee.kind, guarantee.limit, guarantee.confidence, n, method,
                trials,
                broken, error, float(np.mean([deferral for _, deferral in risks])), oracle,
            )
        )  # fmt: skip
    return found


def _tuned(
    goal: Goal, population: Population, answers: Predictions, split: RowSplit
) -> NDArray[np.float32]:
    costs = RowCosts(np.tile(np.array(population.costs), (len(answers), 1)))
    point = choose_operating_point(
        goal, TuningRows(answers, costs, split, 2), per_label=population.per_label
    )
    return np.array([list(t) if isinstance(t, tuple) else t for t in point.thresholds], np.float32)


def _picked_on_validation(kind: str, limit: float, answers: Predictions) -> NDArray[np.float32]:
    """Return the loosest threshold whose loss on all rows is within the limit."""
    confidence = answers.confidence[:, 0]
    order = np.argsort(-confidence, kind="stable")
    lost = np.cumsum(answers.losses(kind)[order, 0].astype(np.int64))
    within = np.flatnonzero(lost <= limit * len(answers))
    if not within.size:
        return np.array([1.0], np.float32)
    last = int(within[-1])
    ordered = confidence[order]
    threshold = ordered[last + 1] if last + 1 < len(ordered) else 0.0
    return np.array([threshold], np.float32)
