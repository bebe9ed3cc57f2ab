"""Accuracy at a budget of layers, with the setting chosen on other rows than those reported.

Cascades and early exits are both families of settings, each with a label and a cost for every row.
The setting is chosen on one half of the rows and judged on the other, then the halves are swapped.
Several random splits are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    small: NDArray[Any], large: NDArray[Any], small_layers: float, large_layers: float
) -> Curve:
    """Return a two-stage cascade at every deferral. A row costs the layers of the stages it met."""
    sure = confidence_score(small)
    thresholds = _thresholds(sure, 200)
    deferred = sure[None, :] < thresholds[:, None]  # (k, n)
    predicted = np.where(deferred, large.argmax(axis=1), small.argmax(axis=1))
    layers = small_layers + large_layers * deferred.astype(np.int64)
    return Curve(thresholds, layers.mean(axis=1), predicted, layers)


def three_stage_curve(members: Sequence[NDArray[Any]], layers: Sequence[float]) -> Curve:
    """Return a cascade of three members at a grid of thresholds for the first two.

    Args:
        members: The logits of the members, each of shape (n, n_labels).
        layers: The cost of each member.

    Returns:
        The curve, cheapest first. At the last setting all rows are answered by the last member.
    """
    sure = [confidence_score(logits) for logits in members[:2]]
    first, second = (_thresholds(one, 40) for one in sure)
    grid = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    passed = sure[0] < grid[:, :1]  # (k, n)
    deferred = passed & (sure[1] < grid[:, 1:])
    answers = [logits.argmax(axis=1) for logits in members]
    predicted = np.where(deferred, answers[2], np.where(passed, answers[1], answers[0]))
    cost = layers[0] + layers[1] * passed + layers[2] * deferred
    order = np.argsort(cost.mean(axis=1), kind="stable")
    cost = cost[order]
    return Curve(grid[order], cost.mean(axis=1), predicted[order], cost)


def _thresholds(sure: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Return a threshold between any two rows, at most about `most` of them."""
    n = len(sure)
    picks = np.unique(np.linspace(0, n, min(n, most) + 1).astype(int))
    return np.concatenate([np.sort(sure), [np.inf]])[picks]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A method's answers to rows that did not choose its setting.

    Attributes:
        predicted: The label of every row in every split, shape (splits, n).
        layers: The mean number of layers run per row.
    """

    predicted: NDArray[np.int64]
    layers: float


def held_out_answers(curve: Curve, budget: float, seed: int = 0) -> HeldOut | None:
    """Return a method's answers at a mean number of layers; None if it cannot be so cheap.

    The two settings on either side of the budget are mixed as in `at_budget`: a row is answered at
    one of them, drawn by their shares. If settings are many for one cost, as with two thresholds,
    those that agree most with the last setting on the choosing half are used.
    """
    if curve.layers.min() > budget + _ROUNDING:
        return None
    rng = np.random.default_rng((seed, 1))
    n = curve.predicted.shape[1]
    predicted = np.empty((_SPLITS, n), dtype=np.int64)
    layers: list[float] = []
    for split, choosing, judging in _halves(n, seed):
        cost = curve.layers_of_rows[:, choosing].mean(axis=1)
        known = np.arange(len(cost))
        if curve.settings.ndim > 1:
            last = curve.predicted[-1, choosing]
            known = _hull(cost, (curve.predicted[:, choosing] == last).mean(axis=1))
        mix = _mix(cost[known], budget)
        settings = known[rng.choice([i for i, _ in mix], len(judging), p=[p for _, p in mix])]
        predicted[split, judging] = curve.predicted[settings, judging]
        layers.append(float(curve.layers_of_rows[settings, judging].mean()))
    return HeldOut(predicted, float(np.mean(layers)))


def _hull(cost: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the settings with which no mix of others is as cheap and better, cheapest first."""
    kept: list[int] = []
    for i in np.lexsort((-value, cost)):
        if kept and value[i] <= value[kept[-1]]:
            continue
        while len(kept) > 1:
            a, b = kept[-2:]
            if (value[b] - value[a]) * (cost[i] - cost[a]) > (value[i] - value[a]) * (
                cost[b] - cost[a]
            ):
                break
            kept.pop()
        kept.append(int(i))
    return np.array(kept)


def best_single(
    members: Sequence[NDArray[Any]],
    layers: Sequence[float],
    labels: NDArray[np.int64],
    *,
    budget: float,
    metric: Metric,
    seed: int = 0,
) -> HeldOut | None:
    """Return the answers of the single member that the choosing half finds best within a budget.

    Args:
        members: The logits of the members, each of shape (n, n_labels).
        layers: The cost of each member.
        labels: The labels, shape (n,).
        budget: The most that a member may cost.
        metric: The metric of the choice.
        seed: The seed of the splits.
    """
    within = [i for i, cost in enumerate(layers) if cost <= budget + _ROUNDING]
    if not within:
        return None
    answers = np.stack([members[i].argmax(axis=1) for i in within])
    predicted = np.empty((_SPLITS, len(labels)), dtype=np.int64)
    costs: list[float] = []
    for split, choosing, judging in _halves(len(labels), seed):
        best = int(np.argmax([metric(one[choosing], labels[choosing]) for one in answers]))
        predicted[split, judging] = answers[best, judging]
        costs.append(layers[within[best]])
    return HeldOut(predicted, float(np.mean(costs)))


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
    found: list[tuple[float, float]] = []
    for _, choosing, judging in _halves(len(labels), seed):
        mix = _mix(curve.layers_of_rows[:, choosing].mean(axis=1), budget)
        values = [metric(curve.predicted[i, judging], labels[judging]) for i, _ in mix]
        layers = [curve.layers_of_rows[i, judging].mean() for i, _ in mix]
        shares = [share for _, share in mix]
        found.append((float(np.dot(shares, values)), float(np.dot(shares, layers))))
    metric_mean, layers_mean = np.mean(found, axis=0)
    return AtBudget(float(metric_mean), float(layers_mean))


def _halves(n: int, seed: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the number of a split, the rows that choose and those that are judged, both ways."""
    rng = np.random.default_rng(seed)
    for split in range(_SPLITS):
        order = rng.permutation(n)
        yield split, order[: n // 2], order[n // 2 :]
        yield split, order[n // 2 :], order[: n // 2]


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
