"""Gate decisions that an artefact takes otherwise than the FP32 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy

from .simulate import simulate

# A promise about how often answers may differ is seldom tighter than 1%; the artefacts may not
# take more than half of that.
MAX_FLIPPED = 5e-3


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """The cascade of the artefacts that serve against that of the FP32 graphs.

    Attributes:
        rows: compared.
        flipped_exits: rows that leave at another stage.
        flipped_labels: rows with another label.
        max_confidence_difference: of a stage's confidence in the same row, absolute.
        tolerance: largest share of the rows with either flipped.
    """

    rows: int
    flipped_exits: int
    flipped_labels: int
    max_confidence_difference: float
    tolerance: float

    def __bool__(self) -> bool:
        # One row of a small set is no evidence of a share.
        allowed = max(1, int(self.tolerance * self.rows))
        return max(self.flipped_exits, self.flipped_labels) <= allowed

    def __str__(self) -> str:
        return (
            f"{self.flipped_exits} of {self.rows} rows exit at another stage than in FP32, "
            f"{self.flipped_labels} get another label; a confidence differs by at most "
            f"{self.max_confidence_difference:.1e} (tolerance {self.tolerance:.1%} of the rows)"
        )


def compare_decisions(
    policy: Policy,
    served: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    tolerance: float = MAX_FLIPPED,
) -> DecisionReport:
    """Run the policy over both sets of logits.

    Args:
        policy: with the thresholds that will serve.
        served: logits of every stage's artefact, each of shape (n, n_labels).
        reference: those of the FP32 graphs, of the same rows.
        tolerance: largest share of rows that may be decided otherwise.
    """
    ours, theirs = simulate(policy, served), simulate(policy, reference)
    both = np.isfinite(ours.stage_confidence) & np.isfinite(theirs.stage_confidence)
    differences = np.abs(ours.stage_confidence - theirs.stage_confidence)[both]
    return DecisionReport(
        rows=len(ours.exit_stage),
        flipped_exits=int((ours.exit_stage != theirs.exit_stage).sum()),
        flipped_labels=int((ours.labels != theirs.labels).sum()),
        max_confidence_difference=float(differences.max(initial=0.0)),
        tolerance=tolerance,
    )
