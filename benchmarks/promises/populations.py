"""Populations to draw held-out rows from, whose true risk at any threshold is known.

Synthetic ones have a law for confidence and disagreement and are drawn once, as a million rows that
stand for the law itself. Real ones are the rows of a GLUE task with the logits of trained members:
drawn from with replacement, those rows are all there is, and the risk over them is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.packed import load_packed
from benchmarks.accuracy.plan import LARGE
from cascadebert_build.promise import ACCURACY_DROP, DISAGREEMENT, Answers
from cascadebert_core.gate import softmax

_ROWS = 1_000_000


@dataclass(frozen=True)
class Population:
    """A two-stage cascade's rows.

    Attributes:
        name: for people.
        answers: of both stages to every row, with the truth.
    """

    name: str
    answers: Answers

    def draw(self, n: int, rng: np.random.Generator) -> Answers:
        """Rows drawn with replacement."""
        return self.answers.take(rng.integers(0, len(self.answers), n))

    def risk_curve(self, kind: str) -> RiskCurve:
        """True risk and deferral at every threshold."""
        confidence = self.answers.confidence[:, 0]
        order = np.argsort(-confidence, kind="stable")
        losses = self.answers.losses(kind)[order, 0].astype(np.int64)
        return RiskCurve(
            confidence[order], np.concatenate([[0], np.cumsum(losses)]) / len(confidence)
        )


@dataclass(frozen=True)
class RiskCurve:
    """Risk of a population by how many rows exit.

    Attributes:
        confidence: descending, shape (n,).
        risk: if the k surest rows exit, k from 0 to n, shape (n + 1,).
    """

    confidence: NDArray[np.float32]
    risk: NDArray[np.float64]

    def exiting(self, threshold: float) -> int:
        """Rows strictly above a threshold."""
        return int(np.searchsorted(-self.confidence, -np.float32(threshold), side="left"))

    def at(self, threshold: float) -> float:
        """True risk at a threshold."""
        return float(self.risk[self.exiting(threshold)])

    def deferral(self, threshold: float) -> float:
        """True deferral rate at a threshold."""
        return 1 - self.exiting(threshold) / len(self.confidence)

    def oracle_deferral(self, limit: float) -> float:
        """The least deferral at which the true risk, there and at all safer ones, is within it."""
        above = np.flatnonzero(self.risk > limit)
        exiting = above[0] - 1 if above.size else len(self.confidence)
        return 1 - exiting / len(self.confidence)


_LAWS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    # Probability that the first stage's answer is not the last one's, by its confidence.
    "honest": lambda c: 1 - c,
    "overconfident": lambda c: 0.15 + 0.35 * (1 - c),
    "sure and wrong in one corner": lambda c: np.where(c > 0.97, 0.08, 0.4 * (1 - c)),
    "right on the edge": lambda _: np.full_like(_, 0.02),
}


def synthetic_populations() -> list[Population]:
    """One of each law."""
    found: list[Population] = []
    for i, (name, law) in enumerate(_LAWS.items()):
        rng = np.random.default_rng(i)
        c = 0.5 + 0.5 * rng.beta(3, 1, _ROWS)
        last = rng.integers(0, 2, _ROWS)
        differs = rng.random(_ROWS) < law(c)
        first = np.where(differs, 1 - last, last)
        truth = np.where(rng.random(_ROWS) < 0.92, last, 1 - last)
        answers = Answers(
            np.stack([first, last], axis=1), c[:, None].astype(np.float32), truth.astype(np.int64)
        )
        found.append(Population(name, answers))
    return found


def real_population(
    task: str, labels: NDArray[np.int64], member: str = "plain-1", seed: int = 1
) -> Population | None:
    """A GLUE task's development rows under a packed pair; None where it is not packed."""
    packed = load_packed(task)
    if seed not in packed.seeds(member, task) or seed not in packed.seeds(LARGE, task):
        return None
    small, large = (packed.of(task, m, seed).astype(np.float32) for m in (member, LARGE))
    answers = Answers(
        np.stack([small.argmax(axis=1), large.argmax(axis=1)], axis=1).astype(np.int64),
        softmax(small).max(axis=1, keepdims=True),
        labels,
    )
    return Population(f"{task}, {member} under {LARGE}", answers)


KINDS = (DISAGREEMENT, ACCURACY_DROP)
