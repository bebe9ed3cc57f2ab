"""From logits to the answers: what an objective buys, and what a budget of layers gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.early_exit.exit_curves import Curve, entropy_curve, patience_curve
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
from cascadebert_core.gate import softmax

from .budgets import AtBudget, at_budget, cascade_curve
from .packed_logits import Packed
from .plan import DEEBERT, DEPTH, LARGE, PABEE

OBJECTIVES = ("plain", "dar", "gatekeeper", "plain-distilled", "dar-distilled")
# Times fewer layers than the large member alone.
SPEED_UPS = (2, 3, 4)
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean, deviation: of the seeds; the deviation is the sample's, NaN of one seed.
        values: of each seed.
    """

    mean: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and sample deviation."""
        array = np.array(values, dtype=np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else float("nan")
        return cls(float(array.mean()), deviation, tuple(array.tolist()))


@dataclass(frozen=True, slots=True)
class Difference:
    """One objective less plain training, the same seeds and rows.

    Attributes:
        interval: of the mean over seeds, paired bootstrap over rows.
        values: of each seed.
    """

    interval: Interval
    values: tuple[float, ...]

    @property
    def beyond_the_spread(self) -> bool:
        """Whether the interval leaves out 0, and all seeds are on its side of it."""
        sign = np.sign(self.interval.value)
        apart = self.interval.low > 0 or self.interval.high < 0
        return bool(apart and all(np.sign(value) == sign for value in self.values))


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """A small member's confidence, and what it does under the large member.

    Attributes:
        accuracy, dis, ece, brier: of the member alone; DIS 0 to 100.
        area: mean accuracy of the cascade over all deferral rates.
        dis_gain, area_gain: over plain training; None for plain training itself.
    """

    accuracy: Spread
    dis: Spread
    ece: Spread
    brier: Spread
    area: Spread
    dis_gain: Difference | None
    area_gain: Difference | None


def member_figures(
    packed: Packed, task: str, objective: str, layers: int, labels: NDArray[np.int64]
) -> MemberFigures | None:
    """Figures of a small member, over all seeds that plain training and the large member have too.

    Args:
        packed: results of the task.
        task: its name.
        objective: one of `OBJECTIVES`.
        layers: of the member.
        labels: of the development rows, shape (n,).

    Returns:
        None where it was not run.
    """
    member, plain = f"{objective}-{layers}", f"plain-{layers}"
    # Distilled members are held against distilled plain training: it is DAR that is in question.
    if objective == "dar-distilled" and packed.seeds(f"plain-distilled-{layers}", task):
        plain = f"plain-distilled-{layers}"
    seeds = [
        seed
        for seed in packed.seeds(member, task)
        if seed in packed.seeds(plain, task) and seed in packed.seeds(LARGE, task)
    ]
    if not seeds:
        return None
    own = [_Scored.of(packed.of(task, member, s), labels) for s in seeds]
    base = [_Scored.of(packed.of(task, plain, s), labels) for s in seeds]
    large = [packed.of(task, LARGE, s).argmax(axis=1) == labels for s in seeds]
    probabilities = [softmax(packed.of(task, member, s).astype(np.float32)) for s in seeds]
    compared = member != plain
    return MemberFigures(
        accuracy=Spread.of([float(s.correct.mean()) for s in own]),
        dis=Spread.of([difficulty_inversion_score(s.sure, s.correct) for s in own]),
        ece=Spread.of(
            [
                expected_calibration_error(p.max(axis=1), s.correct)
                for p, s in zip(probabilities, own, strict=True)
            ]
        ),
        brier=Spread.of([brier_score(p, labels) for p in probabilities]),
        area=Spread.of(
            [deferral_curve(s.sure, s.correct, o).area for s, o in zip(own, large, strict=True)]
        ),
        dis_gain=_gain(own, base, large, _dis) if compared else None,
        area_gain=_gain(own, base, large, _area) if compared else None,
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    sure: NDArray[np.float64]
    correct: NDArray[np.bool_]

    @classmethod
    def of(cls, logits: NDArray[Any], labels: NDArray[np.int64]) -> _Scored:
        return cls(confidence_score(logits), logits.argmax(axis=1) == labels)


_Statistic = Callable[[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]], float]


def _dis(sure: NDArray[np.float64], correct: NDArray[np.bool_], _: NDArray[np.bool_]) -> float:
    return difficulty_inversion_score(sure, correct)


def _area(sure: NDArray[np.float64], correct: NDArray[np.bool_], o: NDArray[np.bool_]) -> float:
    return deferral_curve(sure, correct, o).area


def _gain(
    own: Sequence[_Scored],
    base: Sequence[_Scored],
    large: Sequence[NDArray[np.bool_]],
    statistic: _Statistic,
) -> Difference:
    """Own less base: the same rows are drawn for all seeds and both members."""

    def of_rows(rows: NDArray[np.intp] | slice) -> list[float]:
        return [
            statistic(a.sure[rows], a.correct[rows], o[rows])
            - statistic(b.sure[rows], b.correct[rows], o[rows])
            for a, b, o in zip(own, base, large, strict=True)
        ]

    rng = np.random.default_rng(0)
    n = len(large[0])
    values = of_rows(slice(None))
    draws = [float(np.mean(of_rows(rows))) for rows in rng.integers(0, n, (RESAMPLES, n))]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Difference(Interval(float(np.mean(values)), float(low), float(high)), tuple(values))


def budget_methods(packed: Packed, task: str) -> dict[str, Callable[[int], Curve]]:
    """Every method that takes a budget, by its name: its curve of a seed."""

    def cascade(member: str, layers: int) -> Callable[[int], Curve]:
        return lambda seed: cascade_curve(
            packed.of(task, member, seed).astype(np.float64),
            packed.of(task, LARGE, seed).astype(np.float64),
            layers,
            DEPTH,
        )

    methods: dict[str, Callable[[int], Curve]] = {
        f"cascade {layers}→{DEPTH}, {objective}": cascade(f"{objective}-{layers}", layers)
        for layers in (1, 2)
        for objective in OBJECTIVES
        if packed.seeds(f"{objective}-{layers}", task)
    }
    if packed.seeds(DEEBERT, task):
        methods["DeeBERT"] = lambda seed: entropy_curve(packed.of(task, DEEBERT, seed))
    if packed.seeds(PABEE, task):
        methods["PABEE"] = lambda seed: patience_curve(packed.of(task, PABEE, seed))
    return methods


def metric_of(task: str) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    """GLUE's metric of the task."""
    return METRICS[GLUE[task].metric]


def at_speed_up(
    packed: Packed, task: str, name: str, speed_up: float, labels: NDArray[np.int64]
) -> tuple[Spread, float] | None:
    """The task's metric of a method at a number of times fewer layers, and the layers it ran.

    Returns:
        None where the method cannot be that cheap.
    """
    curve_of = budget_methods(packed, task)[name]
    found: list[AtBudget] = []
    for seed in packed.seeds(member_of(name), task):
        if seed not in packed.seeds(LARGE, task):
            continue
        one = at_budget(curve_of(seed), labels, DEPTH / speed_up, metric_of(task), seed)
        if one is None:
            return None
        found.append(one)
    if not found:
        return None
    return Spread.of([f.metric for f in found]), float(np.mean([f.layers for f in found]))


def member_of(method: str) -> str:
    """The member of a method's name."""
    if not method.startswith("cascade"):
        return method.lower()
    depth, objective = method.removeprefix("cascade ").split(", ")
    return f"{objective}-{depth.split('→')[0]}"


def alone(packed: Packed, task: str, member: str, labels: NDArray[np.int64]) -> Spread | None:
    """The task's metric of a member that answers everything; None where it was not run."""
    seeds = packed.seeds(member, task)
    if not seeds:
        return None
    metric = metric_of(task)
    return Spread.of(
        [metric(packed.of(task, member, seed).argmax(axis=1), labels) for seed in seeds]
    )
