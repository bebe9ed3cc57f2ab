"""Cascades of complete members and their opponents at the same cost.

The unit of cost is a layer of the large member: its multiply-adds, or its measured time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import Interval

from ..early_exit.exit_curves import Curve, entropy_curve, patience_curve
from .budgets import HeldOut, best_single, cascade_curve, held_out_answers, three_stage_curve
from .comparisons import Difference, Spread, metric_of
from .complete_costs import DEPTH, MULTIPLY_ADDS, Costs
from .packed_logits import Packed
from .plan import CUT, CUT_DEPTHS, DEEBERT, LARGE, PABEE

SPEED_UPS = (2, 3, 4, 5)
BEST_SINGLE = "best single member"
# The opponents of the claim, and a cascade with a cut, which needs no second pretrained model.
OPPONENTS = ("DeeBERT", "PABEE", BEST_SINGLE, "cascade cut 2→12")
_PATHS = ((3,), (6,), (3, 6))
_OBJECTIVES = ("plain", "plain-distilled", "dar", "dar-distilled")
_RESAMPLES = 1000

CurveOf = Callable[[int], Curve]
Answers = dict[int, HeldOut]  # by seed


@dataclass(frozen=True, slots=True)
class Gain:
    """One method less another, on the same rows and seeds.

    Attributes:
        values: The mean over splits of each seed, or of each task.
        draws: Its values on resampled rows, shape (resamples,).
    """

    values: tuple[float, ...]
    draws: NDArray[np.float64]

    @property
    def difference(self) -> Difference:
        """The mean with its 95% interval."""
        low, high = np.percentile(self.draws, (2.5, 97.5))
        interval = Interval(float(np.mean(self.values)), float(low), float(high))
        return Difference(interval, self.values)

    @classmethod
    def mean(cls, gains: Sequence[Gain]) -> Gain:
        """Return the mean over tasks, whose rows are resampled apart."""
        values = tuple(float(np.mean(gain.values)) for gain in gains)
        return cls(values, np.mean([gain.draws for gain in gains], axis=0))


def methods_of(
    packed: Packed, costs: Costs = MULTIPLY_ADDS
) -> dict[str, tuple[list[int], CurveOf]]:
    """Return the seeds and the curve of a seed, for every method that was run."""
    methods: dict[str, tuple[list[int], CurveOf]] = {}
    for path in _PATHS:
        for objective in _OBJECTIVES:
            members = [f"{objective}-{depth}" for depth in path]
            if seeds := packed.seeds(*members, LARGE):
                name = f"cascade {'→'.join(map(str, (*path, DEPTH)))}, {objective}"
                prices = [costs.members[depth] for depth in (*path, DEPTH)]
                methods[name] = seeds, _cascade(packed, members, prices)
    for depth in CUT_DEPTHS:
        member = f"{CUT}-distilled-{depth}"
        if seeds := packed.seeds(member, LARGE):
            prices = [costs.layers[depth - 1], float(DEPTH)]
            methods[f"cascade cut {depth}→{DEPTH}"] = seeds, _cascade(packed, [member], prices)
    for name, member, curve_of in (
        ("DeeBERT", DEEBERT, entropy_curve),
        ("DeeBERT's exits, patience", DEEBERT, patience_curve),
        ("PABEE", PABEE, patience_curve),
    ):
        if seeds := packed.seeds(member, LARGE):
            methods[name] = seeds, _exits(packed, member, curve_of, costs)
    return methods


def _cascade(packed: Packed, small: Sequence[str], prices: Sequence[float]) -> CurveOf:
    def curve(seed: int) -> Curve:
        logits = [packed.of(member, seed).astype(np.float64) for member in (*small, LARGE)]
        if len(small) == 1:
            return cascade_curve(logits[0], logits[1], prices[0], prices[1])
        return three_stage_curve(logits, prices)

    return curve


def _exits(
    packed: Packed, member: str, curve_of: Callable[[NDArray[Any]], Curve], costs: Costs
) -> CurveOf:
    of_layers = np.array(costs.layers)

    def curve(seed: int) -> Curve:
        in_layers = curve_of(packed.of(member, seed))
        of_rows = of_layers[in_layers.layers_of_rows - 1]
        return replace(in_layers, layers=of_rows.mean(axis=1), layers_of_rows=of_rows)

    return curve


def answers_at(
    packed: Packed,
    labels: NDArray[np.int64],
    speed_up: float,
    costs: Costs = MULTIPLY_ADDS,
) -> dict[str, Answers]:
    """Return every method's answers at this many times less cost, by seed.

    Args:
        packed: The results of the task.
        labels: The labels of the development rows, shape (n,).
        speed_up: The large member's cost through the budget.
        costs: What members and layers cost.

    Returns:
        A method that cannot be so cheap is missing.
    """
    budget = DEPTH / speed_up
    found: dict[str, Answers] = {}
    for name, (seeds, curve_of) in methods_of(packed, costs).items():
        answers = {seed: held_out_answers(curve_of(seed), budget, seed) for seed in seeds}
        found[name] = {seed: one for seed, one in answers.items() if one is not None}
    found[BEST_SINGLE], singles = {}, costs.singles()
    for seed in packed.seeds(LARGE):
        members = [member for member in singles if seed in packed.seeds(member)]
        single = best_single(
            [packed.of(member, seed) for member in members],
            [singles[member] for member in members], labels, budget=budget,
            metric=metric_of(packed.task), seed=seed,
        )  # fmt: skip
        if single is not None:
            found[BEST_SINGLE][seed] = single
    return {name: answers for name, answers in found.items() if answers}


def spread_of(task: str, answers: Answers, labels: NDArray[np.int64]) -> Spread:
    """Return the task's metric over seeds, each the mean over splits."""
    metric = metric_of(task)
    return Spread.of(
        [float(np.mean([metric(p, labels) for p in one.predicted])) for one in answers.values()]
    )


def gain_of(task: str, own: Answers, other: Answers, labels: NDArray[np.int64]) -> Gain | None:
    """Return the gain of a method in the task's metric; None if no seed has both.

    Each resample draws the rows with replacement, the same for both methods and all seeds, and
    takes the next split.
    """
    metric = metric_of(task)
    pairs = [(own[seed].predicted, other[seed].predicted) for seed in own if seed in other]
    if not pairs:
        return None

    def gains(split: int, rows: Any) -> list[float]:
        truth = labels[rows]
        return [metric(a[split, rows], truth) - metric(b[split, rows], truth) for a, b in pairs]

    splits = len(pairs[0][0])
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(labels), (_RESAMPLES, len(labels)))
    return Gain(
        tuple(np.mean([gains(split, slice(None)) for split in range(splits)], axis=0).tolist()),
        np.array([np.mean(gains(i % splits, rows)) for i, rows in enumerate(draws)]),
    )
