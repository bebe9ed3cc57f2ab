"""Whether the models that judged rows to be hard can judge at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..extras import needs_extra
from .difficulty import Difficulty

# Judges that correct a smaller share of the errors of the most frequent label are too weak.
LEAST_SKILL = 0.1


@dataclass(frozen=True, slots=True)
class Judges:
    """The models of all folds and seeds, on rows that they were not trained on.

    Attributes:
        accuracy: The mean over the seeds.
        low: The lower end of its exact 95% interval, as if all seeds gave the same answers.
        majority: The accuracy of always answering the most frequent label.
        rows: Number of rows.
    """

    accuracy: float
    low: float
    majority: float
    rows: int

    @property
    def skill(self) -> float:
        """The share of the most frequent label's errors that the models correct; at most 1."""
        return (self.accuracy - self.majority) / max(1 - self.majority, 1 / self.rows)

    @property
    def too_weak(self) -> bool:
        """Whether a hard row may be one that these models have not learned."""
        return self.skill < LEAST_SKILL or self.low <= self.majority

    @property
    def warning(self) -> str | None:
        """What is wrong and what would help; None if they can judge."""
        if not self.too_weak:
            return None
        return (
            f"the fold models are too weak to judge: they are right on {self.accuracy:.1%} of the "
            f"{self.rows} rows, and the most frequent label is on {self.majority:.1%}; hard rows "
            "may be rows that they have not learned: give more rows, more --epochs, another "
            "--learning-rate or a larger --base"
        )


def judges_of(difficulty: Difficulty, targets: NDArray[np.int64]) -> Judges:
    """Compare the out-of-fold predictions with the most frequent label.

    Args:
        difficulty: Of n rows.
        targets: Their true labels, shape (n,).
    """
    with needs_extra("build"):
        from scipy.stats import binomtest
    n = len(targets)
    accuracy = 1 - float(difficulty.wrong.mean()) / difficulty.predictions
    low = binomtest(round(accuracy * n), n).proportion_ci(method="exact").low
    return Judges(accuracy, float(low), float(np.bincount(targets).max() / n), n)
