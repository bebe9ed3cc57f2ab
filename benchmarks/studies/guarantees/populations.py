"""Populations to draw held-out rows from, whose true risk at any thresholds is known.

Synthetic ones have a law for confidence and disagreement and are drawn once, as many rows that
stand for the law itself. Real ones are the rows of a GLUE task with the logits of trained members:
drawn from with replacement, those rows are all there is, and the risk over them is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.accuracy.packed_logits import load_packed
from benchmarks.studies.accuracy.plan import LARGE
from cascadebert_build.tuning.guarantee import Predictions
from cascadebert_core.gate import softmax

_ROWS = 200_000
# Milliseconds of a row in each stage, the last ones of these.
_COSTS = (1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Population:
    """A cascade's rows.

    Attributes:
        name: for people.
        answers: of all stages to every row, with the truth.
        per_label: whether thresholds are to differ by label.
    """

    name: str
    answers: Predictions
    per_label: bool = False

    def draw(self, n: int, rng: np.random.Generator) -> Predictions:
        """Rows drawn with replacement."""
        return self.answers.take(rng.integers(0, len(self.answers), n))

    @property
    def costs(self) -> tuple[float, ...]:
        """Of a row in each stage."""
        return _COSTS[-self.answers.labels.shape[1] :]

    def risk(self, kind: str, thresholds: NDArray[np.float32]) -> tuple[float, float]:
        """True mean loss at thresholds, and the true share of rows that the first stage defers."""
        exits = self.answers.exits(thresholds)
        losses = self.answers.losses(kind)[np.arange(len(exits)), exits]
        return float(losses.mean()), float((exits != 0).mean())

    def oracle_deferral(self, kind: str, limit: float) -> float | None:
        """The least deferral at which the true risk, there and at all safer ones, is within it.

        None but for one threshold: with several, there are many least ones.
        """
        if self.answers.confidence.shape[1] > 1 or self.per_label:
            return None
        order = np.argsort(-self.answers.confidence[:, 0], kind="stable")
        losses = self.answers.losses(kind)[order, 0].astype(np.int64)
        above = np.flatnonzero(np.cumsum(losses) > limit * len(order))
        return 1 - (above[0] if above.size else len(order)) / len(order)


_LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    # Probability that a stage's answer is not the last one's, by its confidence.
    "honest": lambda c: 1 - c,
    "overconfident": lambda c: 0.15 + 0.35 * (1 - c),
    "sure and wrong in one corner": lambda c: np.where(c > 0.97, 0.08, 0.4 * (1 - c)),
    "2% wrong whatever the confidence": lambda c: np.full_like(c, 0.02),
}


def synthetic_populations() -> list[Population]:
    """One of each law, one of three stages, and one with thresholds by label."""
    found = [
        Population(name, _answers([law], seed)) for seed, (name, law) in enumerate(_LAWS.items())
    ]
    honest, corner = _LAWS["honest"], _LAWS["sure and wrong in one corner"]
    found.append(Population("three stages", _answers([corner, honest], 10)))
    by_label = _answers([honest], 11, harder=1)
    found.append(Population("one label harder, thresholds by label", by_label, per_label=True))
    return found


def _answers(
    laws: list[Callable[[NDArray[np.float64]], NDArray[np.float64]]],
    seed: int,
    harder: int | None = None,
) -> Predictions:
    """Stages that disagree with the last one by these laws, of two labels.

    Args:
        laws: of every stage but the last.
        seed: of the rows.
        harder: a label that is wrong twice as often where a stage says it, and the other half.
    """
    rng = np.random.default_rng(seed)
    last = rng.integers(0, 2, _ROWS)
    labels: list[NDArray[np.int64]] = []
    confidence: list[NDArray[np.float32]] = []
    for law in laws:
        c = 0.5 + 0.5 * rng.beta(3, 1, _ROWS)
        # A stage that says the harder label wrongly says it of the other label's rows.
        share = 1.0 if harder is None else np.where(last == harder, 0.5, 2.0)
        differs = rng.random(_ROWS) < np.minimum(law(c) * share, 1.0)
        labels.append(np.where(differs, 1 - last, last))
        confidence.append(c.astype(np.float32))
    truth = np.where(rng.random(_ROWS) < 0.92, last, 1 - last)
    return Predictions(np.stack([*labels, last], axis=1), np.stack(confidence, axis=1), truth)


def real_population(
    task: str, labels: NDArray[np.int64], member: str = "plain-1", seed: int = 1
) -> Population | None:
    """A GLUE task's development rows under a packed pair; None where it is not packed."""
    packed = load_packed(task)
    if seed not in packed.seeds(member, task) or seed not in packed.seeds(LARGE, task):
        return None
    small, large = (packed.of(task, m, seed).astype(np.float32) for m in (member, LARGE))
    answers = Predictions(
        np.stack([small.argmax(axis=1), large.argmax(axis=1)], axis=1).astype(np.int64),
        softmax(small).max(axis=1, keepdims=True),
        labels,
    )
    return Population(f"{task}, {member} under {LARGE}", answers)
