"""Evaluates a cascade offline: accuracy, deferral, exits, and metrics of the confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.policy import Policy, StagePolicy, Threshold
from cascadebert_core.signals import ENTROPY, MARGIN, MAX_PROBABILITY, SIGNALS_OF_TASK
from cascadebert_core.task import (
    MULTI_LABEL,
    SINGLE_LABEL,
    answer_keys,
    label_sets,
    probabilities_from_logits,
    set_keys,
)

from ..config.rows import Rows
from .label_scores import LabelScores, label_scores
from .metrics import (
    Interval,
    bootstrap,
    brier_score,
    calibration_error_of_rows,
    confidence_score,
    coverage_at_risk,
    deferral_curve,
    difficulty_inversion_score,
    resamples_for,
)
from .simulate import Outcome, logits_in_policy_order, simulate

# The share of wrong predictions at which coverage is reported.
COVERAGE_RISK = 0.05


@dataclass(frozen=True, slots=True)
class MemberMetrics:
    """Metrics of a member's confidence, each with a bootstrap interval.

    Attributes:
        dis: Difficulty inversion score, 0 to 100; 50 is chance.
        ece: Expected calibration error over bins of equal mass. Of a multi-label member, over all
            of its decisions on labels.
        brier: Brier score. Of a multi-label member, the sum over labels.
        coverage: Largest share of most confident rows with at most 5% wrong.
    """

    dis: Interval
    ece: Interval
    brier: Interval
    coverage: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures over one data set at one set of thresholds.

    Attributes:
        rows: Number of rows.
        thresholds: For every stage but the last.
        members: Models of the stages, small to large.
        member_accuracy: Of each member alone; None without labels.
        cascade_accuracy: None without labels.
        disagreement: Share of rows whose label is not the last member's.
        deferral_rate: Share of rows that the first stage did not answer.
        exits: Number of rows that each stage answered.
        unanswered: Number of rows without an answer, because of NaN or infinite logits.
        near_threshold: Number of rows within 1e-5 of a threshold, which may exit at another stage
            when they are served.
        metrics: Of each member's confidence; None without labels.
        curve_area: Accuracy of the first and the last member as a cascade, averaged over all
            deferral rates; None without labels or with one member.
        signals: Difficulty inversion score of the first member by each confidence signal; None
            without labels.
        task: The policy's. An answer of a multi-label cascade is a set, which is right if it is the
            true set.
        label_scores: Of each member of a multi-label cascade alone, then of the cascade; None of
            single-label cascades, and without labels.
    """

    rows: int
    thresholds: tuple[Threshold, ...]
    members: tuple[str, ...]
    member_accuracy: tuple[float, ...] | None
    cascade_accuracy: float | None
    disagreement: float
    deferral_rate: float
    exits: tuple[int, ...]
    unanswered: int
    near_threshold: int
    metrics: tuple[MemberMetrics, ...] | None
    curve_area: Interval | None
    signals: dict[str, Interval] | None
    task: str = SINGLE_LABEL
    label_scores: tuple[LabelScores, ...] | None = None

    def __str__(self) -> str:
        lines = [f"{self.rows} rows, thresholds {thresholds_as_text(self.thresholds)}", ""]
        width = max(len(name) for name in (*self.members, "cascade")) + 2
        lines.append(f"{'':{width}}{'accuracy':>9}{'answered':>10}{self._score_names()}")
        for i, name in enumerate(self.members):
            accuracy = "–" if self.member_accuracy is None else f"{self.member_accuracy[i]:.2%}"
            share = f"{self.exits[i] / self.rows:.1%}"
            lines.append(f"{name:{width}}{accuracy:>9}{share:>10}{self._scores(i)}")
        accuracy = "–" if self.cascade_accuracy is None else f"{self.cascade_accuracy:.2%}"
        empty = " " * 10 if self.label_scores is not None else ""
        lines.append(f"{'cascade':{width}}{accuracy:>9}{empty}{self._scores(-1)}")
        if self.task == MULTI_LABEL:
            lines.append("accuracy: of whole sets of labels")
        what = "labels are" if self.task == MULTI_LABEL else "label is"
        lines += [
            "",
            f"deferred {self.deferral_rate:.1%}; the cascade's {what} not "
            f"{self.members[-1]}'s on {self.disagreement:.2%} of the rows",
        ]
        if self.metrics is not None:
            covered = f"sure at {COVERAGE_RISK:.0%} wrong"
            lines += ["", f"{'confidence':{width}}{'DIS':>18}{'ECE':>23}{'Brier':>23}{covered:>23}"]
            for name, member in zip(self.members, self.metrics, strict=True):
                lines.append(
                    f"{name:{width}}{member.dis:>18.1f}{member.ece:>23.3f}{member.brier:>23.3f}"
                    f"{member.coverage:>23.3f}"
                )
        if self.signals is not None:
            by_signal = ", ".join(f"{name} {dis.value:.1f}" for name, dis in self.signals.items())
            lines.append(f"DIS of {self.members[0]} by signal: {by_signal}")
        if self.curve_area is not None:
            lines.append(
                f"accuracy averaged over all deferral rates: {self.curve_area:.4f} (intervals: 95%)"
            )
        if self.unanswered:
            rows = "row has" if self.unanswered == 1 else "rows have"
            whose = "its" if self.unanswered == 1 else "their"
            lines.append(f"{self.unanswered} {rows} no answer: {whose} logits are not finite")
        return "\n".join(lines)

    def _score_names(self) -> str:
        if self.label_scores is None:
            return ""
        return f"{'micro F1':>10}{'macro F1':>10}{'Hamming loss':>14}"

    def _scores(self, index: int) -> str:
        """The columns of a member's label scores, or with -1 of the cascade's."""
        if self.label_scores is None:
            return ""
        of = self.label_scores[index]
        return f"{of.micro_f1:>10.4f}{of.macro_f1:>10.4f}{of.hamming_loss:>14.4f}"


def thresholds_as_text(thresholds: Sequence[Threshold]) -> str:
    """`0.9272`, or `0.9272/0.8810` if they differ by label; `none` for a single stage."""
    texts = [
        "/".join(f"{value:.4f}" for value in (t if isinstance(t, tuple) else (t,)))
        for t in thresholds
    ]
    return ", ".join(texts) or "none"


NEAR = 1e-5


def evaluate(
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    thresholds: Sequence[Threshold] | None = None,
) -> tuple[Evaluation, Outcome]:
    """Compute the figures, and the answer for every row.

    Args:
        policy: The cascade.
        rows: The n rows, with or without labels.
        logits: Of every stage, shape (n, n_labels) in the checkpoint's own order.
        thresholds: For every stage but the last; None: the policy's default ones.
    """
    used = tuple(policy.thresholds if thresholds is None else thresholds)
    outcome = simulate(policy, logits, used)
    answered = outcome.exit_stage >= 0
    truth = None if rows.labels is None else _truth_of(policy, rows)
    ordered = [logits_in_policy_order(policy, i, values) for i, values in enumerate(logits)]
    alone = [
        _Member(stage, values, policy.task)
        for stage, values in zip(policy.stages, ordered, strict=True)
    ]
    of_members = [member.answers() for member in alone]
    answers = np.where(answered, outcome.labels, -1)
    evaluation = Evaluation(
        rows=len(rows.texts),
        thresholds=used,
        members=tuple(stage.model for stage in policy.stages),
        member_accuracy=(
            None if truth is None else tuple(float((m == truth.keys).mean()) for m in of_members)
        ),
        cascade_accuracy=(None if truth is None else float((answers == truth.keys).mean())),
        disagreement=float((answers != of_members[-1]).mean()),
        deferral_rate=outcome.deferral_rate,
        exits=tuple(outcome.exits_per_stage()),
        unanswered=int((~answered).sum()),
        near_threshold=int(outcome.near_threshold(used, NEAR).sum()),
        metrics=None if truth is None else tuple(_metrics(member, truth) for member in alone),
        curve_area=None if truth is None or len(alone) < 2 else _curve_area(alone, truth),
        signals=None if truth is None else _signals(alone[0], truth),
        task=policy.task,
        label_scores=None if truth is None else _scores_of_sets(outcome, alone, truth),
    )
    return evaluation, outcome


@dataclass(frozen=True, slots=True)
class _Truth:
    """The true answers of n rows.

    Attributes:
        keys: Of the answers, shape (n,); see `cascadebert_core.task`.
        sets: Of multi-label rows, which labels each row has, shape (n, n_labels); else None.
    """

    keys: NDArray[Any]
    sets: NDArray[np.bool_] | None

    def take(self, rows: NDArray[np.bool_]) -> _Truth:
        return _Truth(self.keys[rows], None if self.sets is None else self.sets[rows])


def _truth_of(policy: Policy, rows: Rows) -> _Truth:
    if policy.task == MULTI_LABEL:
        sets = rows.label_sets(policy.labels)
        return _Truth(set_keys(sets), sets)
    return _Truth(rows.label_indices(policy.labels), None)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member alone.

    Attributes:
        stage: Its stage in the policy.
        logits: Shape (n, n_labels), in the policy's label order.
        task: The policy's.
    """

    stage: StagePolicy
    logits: NDArray[np.float32]
    task: str

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which rows have finite logits, shape (n,)."""
        return np.isfinite(self.logits).all(axis=1)

    @property
    def scaled(self) -> NDArray[np.float32]:
        """The logits divided by the temperature."""
        return self.logits / np.float32(self.stage.temperature)

    def probabilities(self) -> NDArray[np.float32]:
        """Shape (n, n_labels)."""
        return probabilities_from_logits(self.scaled, self.task)

    def answers(self) -> NDArray[Any]:
        """The answers' keys, shape (n,). A row that is not finite has none, never a right one: -1.

        The temperature never changes an answer, so the logits give it, exactly.
        """
        if self.task == MULTI_LABEL:
            return np.where(self.finite, answer_keys(self.probabilities(), self.task), -1)
        return np.where(self.finite, self.logits.argmax(axis=1), -1)


def _metrics(member: _Member, truth: _Truth) -> MemberMetrics:
    finite = member.finite
    truth = truth.take(finite)
    correct = member.answers()[finite] == truth.keys
    probabilities = member.probabilities()[finite]
    sure = confidence_score(member.scaled[finite], member.stage.signal)
    n = resamples_for(len(correct))

    def coverage(signal: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
        return coverage_at_risk(signal, ~right, COVERAGE_RISK)

    if truth.sets is None:
        wanted, decided, right = truth.keys, probabilities.max(axis=1), correct
    else:
        wanted = truth.sets
        decided = np.maximum(probabilities, 1 - probabilities)  # of each label's decision
        right = label_sets(probabilities) == truth.sets
    return MemberMetrics(
        dis=bootstrap(difficulty_inversion_score, sure, correct, resamples=n),
        ece=bootstrap(calibration_error_of_rows, decided, right, resamples=n, centred=True),
        brier=bootstrap(brier_score, probabilities, wanted, resamples=n),
        coverage=bootstrap(coverage, sure, correct, resamples=n),
    )


def _signals(member: _Member, truth: _Truth) -> dict[str, Interval]:
    finite = member.finite
    correct = member.answers()[finite] == truth.keys[finite]
    logits = member.scaled[finite]
    found: dict[str, Interval] = {}
    for signal in SIGNALS_OF_TASK[member.task]:
        if logits.shape[1] == 2 and signal in {MARGIN, ENTROPY}:
            # With two labels they order rows as the largest probability does.
            found[signal] = found[MAX_PROBABILITY]
            continue
        found[signal] = bootstrap(
            difficulty_inversion_score, confidence_score(logits, signal), correct,
            resamples=resamples_for(len(correct)),
        )  # fmt: skip
    return found


def _curve_area(members: Sequence[_Member], truth: _Truth) -> Interval:
    first, last = members[0], members[-1]

    def area(
        signal: NDArray[np.float64], of_small: NDArray[np.bool_], of_large: NDArray[np.bool_]
    ) -> float:
        return deferral_curve(signal, of_small, of_large).area

    scaled = np.nan_to_num(first.logits, nan=0.0, posinf=0.0, neginf=0.0) / first.stage.temperature
    # A row with NaN or infinite logits is always deferred.
    sure = np.where(first.finite, confidence_score(scaled, first.stage.signal), -np.inf)
    small, large = first.answers() == truth.keys, last.answers() == truth.keys
    return bootstrap(area, sure, small, large, resamples=resamples_for(len(small)))


def _scores_of_sets(
    outcome: Outcome, members: Sequence[_Member], truth: _Truth
) -> tuple[LabelScores, ...] | None:
    """The label scores of every member alone, then of the cascade; a row without answer has none.

    None for single-label cascades.
    """
    if truth.sets is None:
        return None
    given = [label_sets(m.probabilities()) & m.finite[:, None] for m in members]
    of_cascade = label_sets(outcome.probabilities) & (outcome.exit_stage >= 0)[:, None]
    return tuple(label_scores(sets, truth.sets) for sets in (*given, of_cascade))
