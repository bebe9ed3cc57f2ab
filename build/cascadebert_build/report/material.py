"""The data that a report is drawn and written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.task import MULTI_LABEL, SINGLE_LABEL, label_sets
from cascadebert_core.tokenization import Text

from ..config.rows import Rows
from ..errors import UsageError
from ..evaluation.costs import RowCosts
from ..evaluation.evaluate import Evaluation
from ..evaluation.intervals import difference_interval
from ..evaluation.metrics import Interval
from ..evaluation.simulate import Outcome
from ..tuning.assessment import Assessment
from .answers import NO_ANSWER, MemberAnswers, answers_of_members
from .curves import CascadeCurve, accuracy_of, cascade_curve, mean_cost
from .early_exit import EarlyExitCurve


@dataclass(frozen=True)
class Material:
    """One cascade over one data set of n rows.

    Attributes:
        names: The members, small to large.
        signals: The confidence signal of each member.
        labels: Names, in the policy's order.
        texts: n strings, or pairs of strings.
        truth: The keys of the true answers, shape (n,): indices into `labels`, or keys of label
            sets; None without labels.
        members: The answers of each member alone.
        exit_stage: The stage that answered each row by the gate's decision, shape (n,).
        thresholds: One for each stage but the last.
        tuned: Whether these are the policy's own thresholds.
        times: The measured time of each row in each member, relative to the last member's mean,
            shape (n, n_members).
        evaluation: The figures that `cascadebert evaluate` prints.
        early_exit: Curves to draw beside the cascade's.
        assessment: Costs and guarantees of the operating points, and what does not pay; None for a
            single member.
        task: The policy's: whether an answer is one label or a set.
        truth_sets: Of a multi-label cascade, which labels each row has, shape (n, n_labels); None
            without labels.
    """

    names: tuple[str, ...]
    signals: tuple[str, ...]
    labels: tuple[str, ...]
    texts: tuple[Text, ...]
    truth: NDArray[Any] | None
    members: tuple[MemberAnswers, ...]
    exit_stage: NDArray[np.int32]
    thresholds: tuple[Threshold, ...]
    tuned: bool
    times: NDArray[np.float64]
    evaluation: Evaluation
    early_exit: tuple[EarlyExitCurve, ...] = ()
    assessment: Assessment | None = None
    task: str = SINGLE_LABEL
    truth_sets: NDArray[np.bool_] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an answer is a set of labels."""
        return self.task == MULTI_LABEL

    @property
    def last(self) -> str:
        """The name of the last member, the reference of all comparisons."""
        return self.names[-1]

    @property
    def measure(self) -> str:
        """The name of the score. Without labels, the last member's answer counts as right."""
        if self.truth is None:
            return f"agreement with {self.last}"
        return "accuracy of label sets" if self.multi_label else "accuracy"

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each member is right about each row, shape (n, n_members)."""
        wanted = self.members[-1].labels if self.truth is None else self.truth
        labels = np.stack([member.labels for member in self.members], axis=1)
        return (labels == wanted[:, None]) & (labels != NO_ANSWER)

    def decisions(self, member: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The probability of each of a member's decisions, and whether it is right; needs labels.

        A decision is a row's label, or of a multi-label cascade whether a row has a label. Both
        have shape (n,) or (n * n_labels,).
        """
        answers = self.members[member]
        if self.truth_sets is None:
            return answers.probability, self.right[:, member]
        of_labels = np.maximum(answers.probabilities, 1 - answers.probabilities)
        right = label_sets(answers.probabilities) == self.truth_sets
        return of_labels.ravel(), right.ravel()

    @cached_property
    def member_accuracy(self) -> tuple[float, ...]:
        """Accuracy of each member alone, by `measure`."""
        return tuple(self.right.mean(axis=0).tolist())

    @property
    def exit_shares(self) -> tuple[float, ...]:
        """Share of the rows that each member answers within the cascade."""
        return tuple(float((self.exit_stage == i).mean()) for i in range(len(self.names)))

    @cached_property
    def confidences(self) -> NDArray[np.float32]:
        """The confidence of each member for each row, shape (n, n_members)."""
        return np.stack([member.confidence for member in self.members], axis=1)

    def answers_itself(self, member: int) -> NDArray[np.bool_]:
        """Whether each row is above a member's threshold, shape (n,); not for the last member."""
        threshold = np.array(self.thresholds[member], dtype=np.float32)
        limits = threshold if threshold.ndim == 0 else threshold[self.members[member].labels]
        return self.confidences[:, member] > limits  # NaN, without an answer, is above nothing

    @cached_property
    def curve(self) -> CascadeCurve:
        """The cascade's curve over one threshold for all stages."""
        return cascade_curve(self.confidences, self.right, self.times)

    @cached_property
    def accuracy(self) -> float:
        """Accuracy of the cascade at its thresholds, by `measure`."""
        return accuracy_of(self.exit_stage, self.right)

    @property
    def cost(self) -> float:
        """Mean time of a row in the cascade at its thresholds, relative to the last member."""
        return mean_cost(self.exit_stage, self.times)

    @property
    def costs(self) -> tuple[float, ...]:
        """The mean time of a row in each member alone, relative to the last."""
        return tuple(self.times.mean(axis=0).tolist())

    @property
    def deferral(self) -> float:
        """Share of the rows that the first member defers."""
        return float((self.exit_stage != 0).mean())

    @cached_property
    def gain(self) -> Interval:
        """Accuracy of the cascade minus that of the last member alone, over the same rows.

        The interval is right even if the answers differ on no row.
        """
        rows = np.arange(len(self.exit_stage))
        given = self.right[rows, self.exit_stage] & (self.exit_stage != NO_ANSWER)
        won, lost = int((given & ~self.right[:, -1]).sum()), int((~given & self.right[:, -1]).sum())
        return difference_interval(won, lost, len(rows))


def check_early_exit(*, labelled: bool) -> None:
    """Refuse early-exit curves beside rows without labels.

    Raises:
        UsageError: The rows have no labels.
    """
    if not labelled:
        raise UsageError(
            "--early-exit gives accuracies and the data has no labels to compare them with: name "
            "their column as data.label, or leave --early-exit out"
        )


def material_from_evaluation(
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    evaluated: tuple[Evaluation, Outcome],
    *,
    names: Sequence[str],
    costs: RowCosts | None,
    assessment: Assessment | None = None,
    early_exit: Sequence[EarlyExitCurve] = (),
) -> Material:
    """Gather what the page needs.

    Args:
        policy: The cascade's policy.
        rows: n rows, with labels or without.
        logits: The logits of each stage, shape (n, n_labels) in the checkpoint's own order.
        evaluated: The result of `evaluate` for these rows.
        names: The members' names.
        costs: What each row costs in each stage; None for a single member.
        assessment: Of the operating points on these rows; None for a single member.
        early_exit: Curves to draw beside the cascade's.

    Raises:
        UsageError: Early-exit curves are given, and the rows have no labels.
    """
    evaluation, outcome = evaluated
    if early_exit:
        check_early_exit(labelled=rows.labels is not None)
    return Material(
        names=tuple(names),
        signals=tuple(stage.signal for stage in policy.stages),
        labels=policy.labels,
        texts=rows.texts,
        truth=None if rows.labels is None else rows.answers(policy.labels, policy.task),
        members=answers_of_members(policy, logits),
        exit_stage=outcome.exit_stage,
        thresholds=evaluation.thresholds,
        tuned=evaluation.thresholds == policy.thresholds,
        times=np.ones((len(rows.texts), 1)) if costs is None else costs.ms / costs.ms[:, -1].mean(),
        evaluation=evaluation,
        early_exit=tuple(early_exit),
        assessment=assessment,
        task=policy.task,
        truth_sets=(
            rows.label_sets(policy.labels)
            if policy.task == MULTI_LABEL and rows.labels is not None
            else None
        ),
    )
