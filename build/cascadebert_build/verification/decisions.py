"""Gate decisions that an artefact takes otherwise than the FP32 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy

from ..evaluation.simulate import simulate

# A promise about how often answers may differ is seldom tighter than 1%; the artefacts may not
# take more than half of that.
MAX_FLIPPED = 5e-3

# 8-bit integers move a confidence by 2e-3 to 5e-3 on average, and rows within that of a threshold
# leave elsewhere: 0.5 to 1.5% of them in members of 2 to 6 layers. Thresholds and certificate are
# chosen on the integers' own logits, so the promise is kept either way; a cascade beyond this is
# another one than the one in FP32.
MAX_FLIPPED_INT8 = 2e-2

# Rows that are decided otherwise because other rows share their batch: a promise was tested with
# the batches of the offline run, and is kept with those of a server only where these are rare.
MAX_REGROUPED = 1e-3


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """The cascade of the artefacts that serve against that of the FP32 graphs.

    Attributes:
        rows: compared.
        flipped_exits: rows that leave at another stage.
        flipped_labels: rows with another label.
        max_confidence_difference: of a stage's confidence in the same row, absolute.
        tolerance: largest share of the rows with either flipped.
        regrouped: rows with another exit or label when other rows share their batches; None:
            not counted.
    """

    rows: int
    flipped_exits: int
    flipped_labels: int
    max_confidence_difference: float
    tolerance: float
    regrouped: int | None = None

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        if max(self.flipped_exits, self.flipped_labels) > self._allowed(self.tolerance):
            found.append(
                f"{self.flipped_exits} of {self.rows} rows exit at another stage than in FP32, "
                f"{self.flipped_labels} get another label (tolerance {self.tolerance:.1%} of the "
                "rows)"
            )
        if (self.regrouped or 0) > self._allowed(MAX_REGROUPED):
            found.append(
                f"{self.regrouped} of {self.rows} rows are decided otherwise where other rows "
                f"share their batches (tolerance {MAX_REGROUPED:.1%} of the rows)"
            )
        return found

    def _allowed(self, share: float) -> int:
        # One row of a small set is no evidence of a share.
        return max(1, int(share * self.rows))

    def __str__(self) -> str:
        others = (
            ""
            if self.regrouped is None
            else f"; in other batches {self.regrouped} are decided otherwise"
        )
        return (
            f"{self.flipped_exits} of {self.rows} rows exit at another stage than in FP32, "
            f"{self.flipped_labels} get another label; a confidence differs by at most "
            f"{self.max_confidence_difference:.1e} (tolerance {self.tolerance:.1%} of the rows)"
            f"{others}"
        )


def compare_decisions(
    policy: Policy,
    served: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    tolerance: float = MAX_FLIPPED,
    regrouped: Sequence[NDArray[np.float32]] | None = None,
) -> DecisionReport:
    """Run the policy over both sets of logits.

    Args:
        policy: with the thresholds that will serve.
        served: logits of every stage's artefact, each of shape (n, n_labels).
        reference: those of the FP32 graphs, of the same rows.
        tolerance: largest share of rows that may be decided otherwise.
        regrouped: logits of every stage's artefact once more, from other batches.
    """
    ours, theirs = simulate(policy, served), simulate(policy, reference)
    both = np.isfinite(ours.stage_confidence) & np.isfinite(theirs.stage_confidence)
    differences = np.abs(ours.stage_confidence - theirs.stage_confidence)[both]
    changed = None
    if regrouped is not None:
        again = simulate(policy, regrouped)
        changed = int(((ours.exit_stage != again.exit_stage) | (ours.labels != again.labels)).sum())
    return DecisionReport(
        rows=len(ours.exit_stage),
        flipped_exits=int((ours.exit_stage != theirs.exit_stage).sum()),
        flipped_labels=int((ours.labels != theirs.labels).sum()),
        max_confidence_difference=float(differences.max(initial=0.0)),
        tolerance=tolerance,
        regrouped=changed,
    )
