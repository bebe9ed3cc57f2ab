"""From logits to answers: what an objective gains, and what a budget of layers gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import (
    Interval,
    brier_score,
    confidence_score,
    deferral_curve,
    difficulty_inversion_score,
    expected_calibration_error,
)
from cascadebert_build.training.glue import METRICS
from cascadebert_build.training.glue import TASKS as GLUE
from cascadebert_core.task import softmax

from ..early_exit.exit_curves import Curve, entropy_curve, patience_curve
from .budgets import at_budget, cascade_curve
from .packed_logits import Packed
from .plan import DEEBERT, DEPTH, LARGE, PABEE, glue_name

OBJECTIVES = ("plain", "dar", "gatekeeper", "plain-distilled", "dar-distilled")
# Times fewer layers than the large member alone.
SPEED_UPS = (2, 3, 4)
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: The mean.
        deviation: The sample's standard deviation; NaN for one seed.
        values: The figure of each seed.
    """

    mean: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return mean and deviation of values."""
        array = np.array(values, dtype=np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
        return cls(float(array.mean()), deviation, tuple(array.tolist()))


@dataclass(frozen=True, slots=True)
class Difference:
    """One objective less plain training, with the same seeds and rows.

    Attributes:
        interval: The mean over seeds, with a paired bootstrap over rows.
        values: The difference of each seed.
    """

    interval: Interval
    values: tuple[float, ...]

    @property
    def beyond_the_spread(self) -> bool:
        """Whether the interval excludes 0 and all seeds are on the same side."""
        sign = np.sign(self.interval.value)
        apart = self.interval.low > 0 or self.interval.high < 0
        return bool(apart and all(np.sign(value) == sign for value in self.values))


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """A small member's confidence, and its cascade with the large member.

    Attributes:
        accuracy: The member's own accuracy.
        dis: Its difficulty inversion score, 0 to 100.
        ece: Its expected calibration error.
        brier: Its Brier score.
        area: The mean accuracy of the cascade over all deferral rates.
        dis_gain: `dis` less plain training's; None for plain training.
        area_gain: `area` less plain training's; None for plain training.
    """

    accuracy: Spread
    dis: Spread
    ece: Spread
    brier: Spread
    area: Spread
    dis_gain: Difference | None
    area_gain: Difference | None


@dataclass(frozen=True, slots=True)
class _Scored:
    """A small member's rows: its confidence, and whether it and the large member are right."""

    sure: NDArray[np.float64]
    right: NDArray[np.bool_]
    large: NDArray[np.bool_]

    def dis(self, rows: Any = slice(None)) -> float:
        return difficulty_inversion_score(self.sure[rows], self.right[rows])

    def area(self, rows: Any = slice(None)) -> float:
        return deferral_curve(self.sure[rows], self.right[rows], self.large[rows]).area


def member_figures(
    packed: Packed, objective: str, layers: int, labels: NDArray[np.int64]
) -> MemberFigures | None:
    """Return a small member's figures over the seeds that the large member and plain training have.

    If plain training was not run, there is nothing to gain over.

    Args:
        packed: The results of the task.
        objective: One of `OBJECTIVES`.
        layers: The layers of the member.
        labels: The labels of the development rows, shape (n,).

    Returns:
        None if it was not run.
    """
    member, plain = f"{objective}-{layers}", f"plain-{layers}"
    # Distilled members are compared with distilled plain training, because DAR is in question.
    if objective == "dar-distilled" and packed.seeds(f"plain-distilled-{layers}"):
        plain = f"plain-distilled-{layers}"
    compared = member != plain and bool(packed.seeds(member, plain, LARGE))
    seeds = packed.seeds(member, LARGE, *([plain] if compared else []))
    if not seeds:
        return None

    def scored(name: str) -> list[_Scored]:
        logits = [packed.of(name, seed) for seed in seeds]
        large = [packed.of(LARGE, seed).argmax(axis=1) == labels for seed in seeds]
        return [
            _Scored(confidence_score(of), of.argmax(axis=1) == labels, right)
            for of, right in zip(logits, large, strict=True)
        ]

    own, base = scored(member), scored(plain if compared else member)
    probabilities = [softmax(packed.of(member, seed).astype(np.float32)) for seed in seeds]
    pairs = list(zip(probabilities, own, strict=True))
    return MemberFigures(
        accuracy=Spread.of([float(s.right.mean()) for s in own]),
        dis=Spread.of([s.dis() for s in own]),
        ece=Spread.of([expected_calibration_error(p.max(axis=1), s.right) for p, s in pairs]),
        brier=Spread.of([brier_score(p, labels) for p in probabilities]),
        area=Spread.of([s.area() for s in own]),
        dis_gain=_gain(own, base, _Scored.dis) if compared else None,
        area_gain=_gain(own, base, _Scored.area) if compared else None,
    )


def _gain(
    own: Sequence[_Scored], base: Sequence[_Scored], statistic: Callable[[_Scored, Any], float]
) -> Difference:
    """Subtract base from own. The same rows are drawn for all seeds and both members."""

    def differences(rows: Any) -> list[float]:
        return [statistic(a, rows) - statistic(b, rows) for a, b in zip(own, base, strict=True)]

    rng = np.random.default_rng(0)
    n = len(own[0].right)
    values = differences(slice(None))
    draws = [np.mean(differences(rows)) for rows in rng.integers(0, n, (_RESAMPLES, n))]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Difference(Interval(float(np.mean(values)), float(low), float(high)), tuple(values))


def budget_methods(packed: Packed) -> dict[str, tuple[str, Callable[[int], Curve]]]:
    """Return the member and the curve of a seed, for every method that takes a budget."""

    def cascade(member: str, layers: int) -> Callable[[int], Curve]:
        return lambda seed: cascade_curve(
            packed.of(member, seed).astype(np.float64),
            packed.of(LARGE, seed).astype(np.float64),
            layers,
            DEPTH,
        )

    methods: dict[str, tuple[str, Callable[[int], Curve]]] = {
        f"cascade {layers}→{DEPTH}, {objective}": (member, cascade(member, layers))
        for layers in (1, 2)
        for objective in OBJECTIVES
        if packed.seeds(member := f"{objective}-{layers}")
    }
    if packed.seeds(DEEBERT):
        methods["DeeBERT"] = DEEBERT, lambda seed: entropy_curve(packed.of(DEEBERT, seed))
    if packed.seeds(PABEE):
        methods["PABEE"] = PABEE, lambda seed: patience_curve(packed.of(PABEE, seed))
    return methods


def metric_of(task: str) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    """Return GLUE's metric of the task, which may end with `plan.COMPLETE`."""
    return METRICS[GLUE[glue_name(task)].metric]


def mean_over_seeds(
    curves: Sequence[Curve],
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    labels: NDArray[np.int64],
    points: int,
    depth: int = DEPTH,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return layers and the metric there, means over the curves of several seeds.

    A curve with few settings, such as PABEE's, keeps them. The others are interpolated.
    """
    values = [[metric(predicted, labels) for predicted in curve.predicted] for curve in curves]
    if len(curves[0].settings) <= depth:
        return np.mean([curve.layers for curve in curves], axis=0), np.mean(values, axis=0)
    grid = np.linspace(max(float(curve.layers.min()) for curve in curves), depth, points)
    found = [np.interp(grid, c.layers, of) for c, of in zip(curves, values, strict=True)]
    return grid, np.mean(found, axis=0)


def at_speed_up(
    packed: Packed, name: str, speed_up: float, labels: NDArray[np.int64]
) -> tuple[Spread, float] | None:
    """Return the task's metric of a method at this many times fewer layers, and the layers it ran.

    Returns:
        None if the method cannot be that cheap.
    """
    member, curve_of = budget_methods(packed)[name]
    metric = metric_of(packed.task)
    found = [
        at_budget(curve_of(seed), labels, DEPTH / speed_up, metric, seed)
        for seed in packed.seeds(member, LARGE)
    ]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    return Spread.of([f.metric for f in known]), float(np.mean([f.layers for f in known]))


def alone(packed: Packed, member: str, labels: NDArray[np.int64]) -> Spread | None:
    """Return the task's metric of a member that answers everything; None if it was not run."""
    metric = metric_of(packed.task)
    values = [
        metric(packed.of(member, seed).argmax(axis=1), labels) for seed in packed.seeds(member)
    ]
    return Spread.of(values) if values else None
