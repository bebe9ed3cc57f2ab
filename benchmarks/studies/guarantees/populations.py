"""Populations to draw held-out rows from, with a known true risk at any thresholds.

Synthetic populations have a law for confidence and disagreement. They are drawn once, with enough
rows that they represent the law. Real populations are the rows of a GLUE task with the logits of
trained members. Held-out rows are drawn from them with replacement, so the risk is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.tuning.guarantee import Predictions
from cascadebert_core.task import softmax

from ..accuracy.packed_logits import load_packed
from ..accuracy.plan import LARGE

_ROWS = 200_000
# The milliseconds of a row in each stage: the last two or all three.
_COSTS = (1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Population:
    """A cascade's rows.

    Attributes:
        name: The name, for people.
        answers: The answers of all stages to every row, with the truth.
        per_label: Whether thresholds differ by label.
    """

    name: str
    answers: Predictions
    per_label: bool = False

    def draw(self, n: int, rng: np.random.Generator) -> Predictions:
        """Draw n rows with replacement."""
        return self.answers.take(rng.integers(0, len(self.answers), n))

    @property
    def costs(self) -> tuple[float, ...]:
        """The cost of a row in each stage."""
        return _COSTS[-self.answers.labels.shape[1] :]

    def risk(self, kind: str, thresholds: NDArray[np.float32]) -> tuple[float, float]:
        """Return the true mean loss at thresholds, and the share that the first stage defers."""
        exits = self.answers.exits(thresholds)
        losses = self.answers.losses(kind)[np.arange(len(exits)), exits]
        return float(losses.mean()), float((exits != 0).mean())

    def oracle_deferral(self, kind: str, limit: float) -> float | None:
        """Return the least deferral from which on the true risk is within the limit.

        Return None if there are several thresholds: then there are many least ones.
        """
        if self.answers.confidence.shape[1] > 1 or self.per_label:
            return None
        order = np.argsort(-self.answers.confidence[:, 0], kind="stable")
        losses = self.answers.losses(kind)[order, 0].astype(np.int64)
        above = np.flatnonzero(np.cumsum(losses) > limit * len(order))
        return 1 - (above[0] if above.size else len(order)) / len(order)


_LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    # The probability that a stage disagrees with the last one, by its confidence.
    "honest": lambda c: 1 - c,
    "overconfident": lambda c: 0.15 + 0.35 * (1 - c),
    "sure and wrong in one corner": lambda c: np.where(c > 0.97, 0.08, 0.4 * (1 - c)),
    "2% wrong whatever the confidence": lambda c: np.full_like(c, 0.02),
}


def synthetic_populations() -> list[Population]:
    """Return one of each law, one with three stages, and one with thresholds by label."""
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
    """Draw stages that disagree with the last one by these laws, on two labels.

    Args:
        laws: The law of every stage but the last.
        seed: The seed of the rows.
        harder: A label that stages give wrongly twice as often, and the other one half as often.
    """
    rng = np.random.default_rng(seed)
    last = rng.integers(0, 2, _ROWS)
    labels: list[NDArray[np.int64]] = []
    confidence: list[NDArray[np.float32]] = []
    for law in laws:
        c = 0.5 + 0.5 * rng.beta(3, 1, _ROWS)
        # A stage gives the harder label wrongly to rows of the other label.
        share = 1.0 if harder is None else np.where(last == harder, 0.5, 2.0)
        differs = rng.random(_ROWS) < np.minimum(law(c) * share, 1.0)
        labels.append(np.where(differs, 1 - last, last))
        confidence.append(c.astype(np.float32))
    truth = np.where(rng.random(_ROWS) < 0.92, last, 1 - last)
    return Predictions(np.stack([*labels, last], axis=1), np.stack(confidence, axis=1), truth)


def real_population(
    task: str, labels: NDArray[np.int64], member: str = "plain-1", seed: int = 1
) -> Population | None:
    """Return a GLUE task's development rows under a packed pair; None: it is not packed."""
    packed = load_packed(task)
    if seed not in packed.seeds(member, LARGE):
        return None
    small, large = (packed.of(m, seed).astype(np.float32) for m in (member, LARGE))
    answers = Predictions(
        np.stack([small.argmax(axis=1), large.argmax(axis=1)], axis=1).astype(np.int64),
        softmax(small).max(axis=1, keepdims=True),
        labels,
    )
    return Population(f"{task}, {member} under {LARGE}", answers)
