"""The cascade offline: accuracy of every member and of the whole, deferral, exits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy

from .data import Rows
from .simulate import Outcome, logits_in_policy_order, simulate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures over one data set at one set of thresholds.

    Attributes:
        rows: how many.
        thresholds: for every stage but the last.
        members: models of the stages, small to large.
        member_accuracy: of each member alone; None without labels.
        cascade_accuracy: None without labels.
        disagreement: share of rows on which the cascade's label is not the last member's.
        deferral_rate: share of rows that the first stage did not answer.
        exits: rows that each stage answered.
        unanswered: rows without an answer, for NaN or infinite logits.
        near_threshold: rows within 1e-5 of a threshold: served, they may exit otherwise.
    """

    rows: int
    thresholds: tuple[float, ...]
    members: tuple[str, ...]
    member_accuracy: tuple[float, ...] | None
    cascade_accuracy: float | None
    disagreement: float
    deferral_rate: float
    exits: tuple[int, ...]
    unanswered: int
    near_threshold: int

    def __str__(self) -> str:
        thresholds = ", ".join(f"{threshold:.4f}" for threshold in self.thresholds)
        lines = [f"{self.rows} rows, thresholds {thresholds or 'none'}", ""]
        width = max(len(name) for name in (*self.members, "cascade")) + 2
        lines.append(f"{'':{width}}{'accuracy':>9}{'answered':>10}")
        for i, name in enumerate(self.members):
            accuracy = "–" if self.member_accuracy is None else f"{self.member_accuracy[i]:.2%}"
            lines.append(f"{name:{width}}{accuracy:>9}{self.exits[i] / self.rows:>10.1%}")
        accuracy = "–" if self.cascade_accuracy is None else f"{self.cascade_accuracy:.2%}"
        lines.append(f"{'cascade':{width}}{accuracy:>9}")
        lines += [
            "",
            f"deferred {self.deferral_rate:.1%}; the cascade's label is not "
            f"{self.members[-1]}'s on {self.disagreement:.2%} of the rows",
        ]
        if self.unanswered:
            lines.append(f"{self.unanswered} rows have no answer: their logits are not finite")
        return "\n".join(lines)


NEAR = 1e-5


def evaluate(
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    thresholds: Sequence[float] | None = None,
) -> tuple[Evaluation, Outcome]:
    """Figures, and the answer for every row.

    Args:
        policy: the cascade.
        rows: n of them, with labels or without.
        logits: of every stage, shape (n, n_labels) in the checkpoint's own order.
        thresholds: for every stage but the last; None: the policy's default ones.
    """
    used = tuple(policy.thresholds if thresholds is None else thresholds)
    outcome = simulate(policy, logits, used)
    of_members = [
        logits_in_policy_order(policy, i, values).argmax(axis=1) for i, values in enumerate(logits)
    ]
    answered = outcome.exit_stage >= 0
    truth = None if rows.labels is None else rows.label_indices(policy.labels)
    evaluation = Evaluation(
        rows=len(rows.texts),
        thresholds=used,
        members=tuple(stage.model for stage in policy.stages),
        member_accuracy=(
            None if truth is None else tuple(float((m == truth).mean()) for m in of_members)
        ),
        cascade_accuracy=(
            None if truth is None else float(((outcome.labels == truth) & answered).mean())
        ),
        disagreement=float((outcome.labels != of_members[-1]).mean()),
        deferral_rate=outcome.deferral_rate,
        exits=tuple(outcome.exits_per_stage()),
        unanswered=int((~answered).sum()),
        near_threshold=int(outcome.near_threshold(used, NEAR).sum()),
    )
    return evaluation, outcome
