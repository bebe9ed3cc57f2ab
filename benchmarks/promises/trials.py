"""Tuning repeated: how often each way of choosing a threshold breaks its promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.promise import (
    DISAGREEMENT,
    Answers,
    Promise,
    frontier,
    keep_along,
    keep_by_scan,
)

from .populations import Population

# Quantiles of the confidence that the rows which order the settings look at.
_SETTINGS = 128
_DESIGN_SHARE = 0.33


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way of choosing, over many draws.

    Attributes:
        population, kind, limit, confidence, n, method, trials: what was tried.
        broken: share of the draws whose threshold has a true risk above the limit.
        error: standard error of that share.
        deferral: mean true deferral rate of the chosen thresholds.
        oracle: deferral rate of the loosest threshold that keeps the promise.
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
    oracle: float


def try_methods(
    population: Population, promise: Promise, n: int, trials: int, seed: int = 0
) -> list[Outcome]:
    """Every way of choosing, on the same draws.

    Args:
        population: to draw from.
        promise: to keep.
        n: held-out rows in a draw.
        trials: draws.
        seed: of the draws.
    """
    curve = population.risk_curve(promise.kind)
    methods: dict[str, Callable[[Promise, Answers], float]] = {
        "promise": _promised if promise.kind == DISAGREEMENT else _promised_along,
        "validation set": _picked_on_validation,
    }
    chosen: dict[str, list[float]] = {name: [] for name in methods}
    rng = np.random.default_rng((seed, n))
    for _ in range(trials):
        answers = population.draw(n, rng)
        for name, method in methods.items():
            chosen[name].append(method(promise, answers))
    oracle = curve.oracle_deferral(promise.limit)
    found: list[Outcome] = []
    for name, thresholds in chosen.items():
        broken = float(np.mean([curve.at(t) > promise.limit for t in thresholds]))
        found.append(
            Outcome(
                population.name, promise.kind, promise.limit, promise.confidence, n, name, trials,
                broken, float(np.sqrt(max(broken * (1 - broken), 1 / trials) / trials)),
                float(np.mean([curve.deferral(t) for t in thresholds])), oracle,
            )
        )  # fmt: skip
    return found


def _promised(promise: Promise, answers: Answers) -> float:
    return float(keep_by_scan(promise, answers).thresholds[0])


def _promised_along(promise: Promise, answers: Answers) -> float:
    """As `tune` does it where the loss may also fall: other rows say in which order to test."""
    n_design = int(len(answers) * _DESIGN_SHARE)
    design = answers.take(np.arange(n_design))
    test = answers.take(np.arange(n_design, len(answers)))
    levels = np.quantile(design.confidence[:, 0], np.linspace(0, 1, _SETTINGS))
    grid = np.unique(np.concatenate([[0.0], levels, [1.0]])).astype(np.float32)
    settings = frontier(promise, design, [np.array([t]) for t in grid], _mean_stage)
    return float(keep_along(promise, test, settings, _mean_stage).thresholds[0])


def _picked_on_validation(promise: Promise, answers: Answers) -> float:
    """What everybody does: the loosest threshold whose loss on the rows is within the limit."""
    confidence = answers.confidence[:, 0]
    order = np.argsort(-confidence, kind="stable")
    lost = np.cumsum(answers.losses(promise.kind)[order, 0].astype(np.int64))
    within = np.flatnonzero(lost <= promise.limit * len(answers))
    if not within.size:
        return 1.0
    last = int(within[-1])
    ordered = confidence[order]
    return float(ordered[last + 1]) if last + 1 < len(ordered) else 0.0


def _mean_stage(exits: NDArray[np.intp]) -> float:
    return float(exits.mean())
