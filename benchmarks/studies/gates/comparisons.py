"""Gates against the largest probability, on the same rows, seeds and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.metrics import Interval

from .gates import Gate
from .measures import LIMITS, HeldOut, Population
from .pairs import Group
from .scores import halves_of

AUROC, AREA = "AUROC", "area"
AT_BEST = tuple(f"at {limit:.0%}" for limit in LIMITS)
PROMISED = tuple(f"promised {limit:.0%}" for limit in LIMITS)
MEASURES = (AUROC, AREA, *AT_BEST, *PROMISED)
# The wanted measure.
WANTED = PROMISED[0]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is computed.

    Attributes:
        splits: Random splits into a half that fits and a half that is judged, both ways.
        resamples: Draws of the rows, for intervals.
        held_out: The rows that a promise is tuned on.
    """

    splits: int
    resamples: int
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class Figures:
    """A gate's measures on a group.

    Attributes:
        group: The small member.
        gate: The gate.
        values: Each measure of `MEASURES`, means over seeds and splits, shape (k,).
        draws: Each measure on resampled rows, shape (resamples, k).
        broken: The share of the tuned promises that were broken, over all draws and limits.
        tuned: The number of those promises.
    """

    group: Group
    gate: str
    values: NDArray[np.float64]
    draws: NDArray[np.float64]
    broken: float
    tuned: int

    def of(self, measure: str) -> float:
        """Return one measure."""
        return float(self.values[MEASURES.index(measure)])

    def gain(self, base: Figures, measure: str) -> Interval:
        """Return a measure less the baseline's, with the paired 95% interval over rows."""
        k = MEASURES.index(measure)
        return interval_of(self.values[k] - base.values[k], self.draws[:, k] - base.draws[:, k])

    def ratio(self, base: Figures, measure: str) -> Ratio:
        """Return a measure relative to the baseline's."""
        k = MEASURES.index(measure)
        return Ratio(self.values[k] / base.values[k], self.draws[:, k] / base.draws[:, k])

    def cost_ratio(self, base: Figures, measure: str) -> Ratio:
        """Return the cost of a row at a deferral relative to the baseline's.

        The baseline runs the last small member alone.
        """
        k = MEASURES.index(measure)
        costs = self.group.costs
        own, other = (100 * cost for cost in (sum(costs), costs[-1]))
        return Ratio(
            (own + self.values[k]) / (other + base.values[k]),
            (own + self.draws[:, k]) / (other + base.draws[:, k]),
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure relative to the baseline's, on the rows and on the resampled rows."""

    value: float
    draws: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """The value with its paired 95% interval over rows."""
        return interval_of(self.value, self.draws)

    @classmethod
    def mean(cls, ratios: Sequence[Ratio]) -> Ratio:
        """Return the mean, over members of a task or over tasks."""
        return cls(
            float(np.mean([ratio.value for ratio in ratios])),
            np.mean([ratio.draws for ratio in ratios], axis=0),
        )


def mean_over_tasks(ratios: Sequence[tuple[str, Ratio]]) -> Ratio:
    """Return the mean over tasks of the mean over the members of a task.

    Args:
        ratios: Each with the name of its task.
    """
    tasks = list(dict.fromkeys(task for task, _ in ratios))
    return Ratio.mean([Ratio.mean([r for t, r in ratios if t == task]) for task in tasks])


def figures_of(group: Group, gates: Sequence[Gate], effort: Effort) -> list[Figures]:
    """Measure the gates on a group, all on the same rows.

    Each resample draws the rows with replacement and takes the next split, as the accuracy study
    does. A row stays in its half, so no judged row has fitted the gate.
    """
    return [_Measured(group, gate, effort).figures() for gate in gates]


class _Measured:
    """A gate's answers and scores in every split, for all seeds."""

    def __init__(self, group: Group, gate: Gate, effort: Effort) -> None:
        self._group, self._gate, self._effort = group, gate, effort
        self._n = len(group.pairs[0][0])
        self._splits = [halves_of(self._n, split) for split in range(effort.splits)]
        self._judged = [
            [gate.judge(i, halves) for i in range(len(group.pairs))] for halves in self._splits
        ]
        self._tuning = effort.held_out.left_for(fitted=gate.fitted)
        self._broken: list[bool] = []

    def figures(self) -> Figures:
        effort, n = self._effort, self._n
        everything = np.arange(n)
        values = [self._on(everything, split, split) for split in range(effort.splits)]
        # All gates and all members of a task have the same draws.
        rows = np.random.default_rng((0, n)).integers(0, n, (effort.resamples, n))
        draws = [self._on(own, b % effort.splits, b) for b, own in enumerate(rows)]
        broken, tuned = float(np.mean(self._broken)), len(self._broken)
        mean = np.mean(values, axis=0)
        return Figures(self._group, self._gate.name, mean, np.array(draws), broken, tuned)

    def _on(self, rows: NDArray[np.intp], split: int, draw: int) -> NDArray[np.float64]:
        """Return `MEASURES` on these rows in a split, means over seeds."""
        inside = [rows[np.isin(rows, half)] for half in self._splits[split]]
        found: list[list[float]] = []
        for seed, judged in enumerate(self._judged[split]):
            whole = judged.take(rows)
            at_best = [whole.deferral_at(limit) for limit in LIMITS]
            rng = np.random.default_rng((draw, seed, 1))
            populations = [Population(judged.take(half)) for half in inside]
            found.append([whole.auroc, whole.area, *at_best, *self._promised(populations, rng)])
        return np.mean(found, axis=0)

    def _promised(self, populations: Sequence[Population], rng: np.random.Generator) -> list[float]:
        """Tune each promise in each half, and return the mean deferral for each limit."""
        drawn = [population.draw(self._effort.held_out.n, rng) for population in populations]
        deferral: list[float] = []
        for limit in LIMITS:
            tuned = [
                population.promised(rows, self._tuning, limit)
                for population, rows in zip(populations, drawn, strict=True)
            ]
            deferral.append(float(np.mean([one.deferral for one in tuned])))
            self._broken += [one.broken for one in tuned]
        return deferral


def interval_of(value: float, draws: NDArray[np.float64]) -> Interval:
    """Return a value with the 95% interval of its draws."""
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Interval(float(value), float(low), float(high))


@dataclass(frozen=True, slots=True)
class ByLabel:
    """A promise with a threshold for each label, against one threshold for all.

    Attributes:
        group: The small member.
        deferral: The deferral with thresholds by label, %, a mean over the tuned promises.
        base: The deferral with one threshold, on the same held-out rows.
        broken: The share of the promises by label that were broken.
        tuned: The number of promises of each kind.
        bound: The least deferral with thresholds by label that are chosen on the judged rows, %.
        base_bound: The least with one threshold.
    """

    group: Group
    deferral: float
    base: float
    broken: float
    tuned: int
    bound: float
    base_bound: float


def promised_by_label(group: Group, gate: Gate, effort: Effort) -> ByLabel:
    """Tune a promise of 1% both ways, on held-out rows that are drawn from each half.

    Args:
        group: The small member.
        gate: One that needs no fitting.
        effort: The splits, and the held-out rows.
    """
    limit = LIMITS[0]
    split, n_seeds = effort.held_out.split, len(group.pairs)
    found: list[tuple[float, float]] = []
    broken: list[bool] = []
    for number in range(effort.splits):
        halves = halves_of(len(group.pairs[0][0]), number)
        for seed in range(n_seeds):
            rng = np.random.default_rng((number, seed, 2))
            for half in halves:
                population = Population(gate.judge(seed, halves).take(half))
                drawn = population.draw(effort.held_out.n, rng)
                own = population.promised_by_label(drawn, split, limit, group.n_labels)
                found.append((own.deferral, population.promised(drawn, split, limit).deferral))
                broken.append(own.broken)
    deferral, base = np.mean(found, axis=0)
    whole = [gate.judge(seed, halves_of(len(group.pairs[0][0]), 0)) for seed in range(n_seeds)]
    return ByLabel(
        group, float(deferral), float(base), float(np.mean(broken)), len(broken),
        bound=float(np.mean([one.deferral_by_label_at(limit) for one in whole])),
        base_bound=float(np.mean([one.deferral_at(limit) for one in whole])),
    )  # fmt: skip
