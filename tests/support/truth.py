"""What every row must be answered with, computed offline beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_build.evaluation.evaluate import NEAR
from cascadebert_build.evaluation.simulate import simulate
from tests.support.serving import Built

# Batch and padding change the last digits of the logits.
_CONFIDENCE_DIGITS = 1e-3


@dataclass(frozen=True)
class Truth:
    """The right answers for n texts at given thresholds.

    Attributes:
        texts: n.
        labels: of each stage alone, bytes objects of shape (stages, n).
        confidences: of each stage alone, float32 of shape (stages, n).
        exit_stages: int of shape (n,).
        thresholds: of the stages but the last.
        clear: bool of shape (n,), false where the last digits decide.
    """

    texts: tuple[str, ...]
    labels: NDArray[Any]
    confidences: NDArray[np.float32]
    exit_stages: NDArray[np.int32]
    thresholds: tuple[float, ...]
    clear: NDArray[np.bool_]

    def wrong(self, rows: Sequence[int], answer: Answer) -> str | None:
        """What is wrong with the answer for these rows; None where nothing is."""
        for i, row in enumerate(rows):
            stage, label = int(answer.exit_stages[i]), answer.labels[i]
            found = f"row {row} ({self.texts[row]!r}) was answered {label!r} by stage {stage}"
            if not 0 <= stage < len(self.labels):
                return found
            expected = self.confidences[stage, row]
            if abs(float(answer.confidences[i]) - expected) > _CONFIDENCE_DIGITS:
                return f"{found} with confidence {answer.confidences[i]}, not {expected}"
            if not self.clear[row]:
                continue
            if label != self.labels[stage, row]:
                return f"{found}, not {self.labels[stage, row]!r}"
            if answer.degraded[i]:
                if stage >= self.exit_stages[row]:
                    return f"{found} as degraded, though it is sure enough there"
            elif stage != self.exit_stages[row]:
                return f"{found}, not by stage {self.exit_stages[row]}, and not as degraded"
        return None


@dataclass(frozen=True)
class Answer:
    """The outputs of one request, each of shape (rows,)."""

    labels: NDArray[Any]
    confidences: NDArray[np.float32]
    exit_stages: NDArray[np.int32]
    degraded: NDArray[np.bool_]


def truth_of(built: Built, threshold: float | None = None) -> Truth:
    """The right answers at `threshold` for every stage but the last; None: at the default ones."""
    n_stages = len(built.policy.stages)
    thresholds = tuple(built.policy.thresholds)
    if threshold is not None:
        thresholds = (threshold,) * (n_stages - 1)
    outcome = simulate(built.policy, built.logits(), thresholds)
    # A confidence is above 0 and not above 1: all rows pass the stages before, and exit there.
    alone = [
        simulate(built.policy, built.logits(), [1.0] * stage + [0.0] * (n_stages - 1 - stage))
        for stage in range(n_stages)
    ]
    top = np.sort(np.stack([o.probabilities for o in alone]), axis=2)
    tied = (top[:, :, -1] - top[:, :, -2] < 2 * _CONFIDENCE_DIGITS).any(axis=0)
    labels = np.array([label.encode() for label in built.policy.labels], dtype=np.object_)
    return Truth(
        texts=tuple(text for text in built.texts if isinstance(text, str)),
        labels=np.stack([labels[o.labels] for o in alone]),
        confidences=np.stack([o.confidence for o in alone]),
        exit_stages=outcome.exit_stage,
        thresholds=tuple(float(t) for t in thresholds if not isinstance(t, tuple)),
        clear=~(outcome.near_threshold(thresholds, NEAR) | tied),
    )
