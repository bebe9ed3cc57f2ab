"""Compares the gate's decisions on an artefact's logits with those in FP32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy

from ..evaluation.simulate import simulate

# A guarantee of disagreement is seldom below 1%; artefacts may use up at most half of that.
MAX_FLIPPED = 5e-3

# 8-bit integers change a confidence by 2e-3 to 5e-3 on average, and rows this close to a threshold
# exit at another stage: 0.5 to 1.5% of them in members of 2 to 6 layers. Guarantees hold in any
# case, since thresholds and certificate come from the INT8 logits. Beyond this tolerance the
# cascade is no longer the same as in FP32.
MAX_FLIPPED_INT8 = 2e-2

# Rows whose decision changes with the other rows in their batch. A guarantee was tested with the
# batches of the offline run; it holds for the server's batches only if such rows are rare.
MAX_REGROUPED = 1e-3


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """How the decisions of the serving artefacts differ from those of the FP32 graphs.

    Attributes:
        operating_point: The operating point whose decisions differ most.
        rows: Number of rows.
        flipped_exits: Number of rows that exit at another stage.
        flipped_labels: Number of rows with another label.
        max_confidence_difference: The largest absolute difference of a stage's confidence.
        tolerance: The largest share of rows with another exit or label.
        regrouped: Number of rows whose exit or label changes in other batches; None: not counted.
    """

    operating_point: str
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
                f"{self.flipped_exits} of {self.rows} rows exit at another stage than in FP32 at "
                f"the operating point {self.operating_point}, {self.flipped_labels} get another "
                f"label (tolerance {self.tolerance:.1%} of the rows)"
            )
        if (self.regrouped or 0) > self._allowed(MAX_REGROUPED):
            found.append(
                f"{self.regrouped} of {self.rows} rows are decided differently in other batches at "
                f"the operating point {self.operating_point} (tolerance {MAX_REGROUPED:.1%} of the "
                "rows)"
            )
        return found

    @property
    def excess(self) -> float:
        """The worst of the counts, relative to what is allowed: above 1 is a failure."""
        flipped = max(self.flipped_exits, self.flipped_labels) / self._allowed(self.tolerance)
        return max(flipped, (self.regrouped or 0) / self._allowed(MAX_REGROUPED))

    def _allowed(self, share: float) -> int:
        # In a small data set, one row says little about the share.
        return max(1, int(share * self.rows))

    def __str__(self) -> str:
        others = (
            ""
            if self.regrouped is None
            else f"; in other batches {self.regrouped} are decided differently"
        )
        return (
            f"{self.flipped_exits} of {self.rows} rows exit at another stage than in FP32 at the "
            f"operating point {self.operating_point}, {self.flipped_labels} get another label; a "
            f"confidence differs by at most {self.max_confidence_difference:.1e} "
            f"(tolerance {self.tolerance:.1%} of the rows)"
            f"{others}"
        )


def compare_decisions(
    policy: Policy,
    served: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    tolerance: float = MAX_FLIPPED,
    regrouped: Sequence[NDArray[np.float32]] | None = None,
) -> DecisionReport:
    """Run each operating point of the policy on both sets of logits; return the worst report.

    Args:
        policy: With the operating points that will serve.
        served: Logits of every stage's artefact, each of shape (n, n_labels).
        reference: Logits of the FP32 graphs for the same rows.
        tolerance: The largest share of rows that may be decided differently.
        regrouped: Logits of every stage's artefact from other batches, if they are to be compared.
    """
    names = sorted(policy.operating_points, key=lambda name: name != policy.default_operating_point)
    reports = [
        _of_point(name, policy, served, reference, tolerance=tolerance, regrouped=regrouped)
        for name in names
    ]
    return max(reports, key=lambda report: report.excess)  # of equals the first: the default point


def _of_point(
    name: str,
    policy: Policy,
    served: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    *,
    tolerance: float,
    regrouped: Sequence[NDArray[np.float32]] | None,
) -> DecisionReport:
    thresholds = policy.operating_points[name]
    ours, theirs = (simulate(policy, logits, thresholds) for logits in (served, reference))
    both = np.isfinite(ours.stage_confidence) & np.isfinite(theirs.stage_confidence)
    differences = np.abs(ours.stage_confidence - theirs.stage_confidence)[both]
    changed = None
    if regrouped is not None:
        again = simulate(policy, regrouped, thresholds)
        changed = int(((ours.exit_stage != again.exit_stage) | (ours.labels != again.labels)).sum())
    return DecisionReport(
        operating_point=name,
        rows=len(ours.exit_stage),
        flipped_exits=int((ours.exit_stage != theirs.exit_stage).sum()),
        flipped_labels=int((ours.labels != theirs.labels).sum()),
        max_confidence_difference=float(differences.max(initial=0.0)),
        tolerance=tolerance,
        regrouped=changed,
    )
