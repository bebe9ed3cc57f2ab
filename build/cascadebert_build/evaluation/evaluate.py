"""Evaluates a cascade offline: accuracy, deferral, exits, and metrics of the confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import softmax
from cascadebert_core.policy import Policy, StagePolicy, Threshold
from cascadebert_core.signals import ENTROPY, MARGIN, MAX_PROBABILITY, SIGNALS

from ..config.rows import Rows
from .metrics import (
    Interval,
    bootstrap,
    brier_score,
    confidence_score,
    coverage_at_risk,
    deferral_curve,
    difficulty_inversion_score,
    expected_calibration_error,
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
        ece: Expected calibration error over bins of equal mass.
        brier: Brier score.
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

    def __str__(self) -> str:
        lines = [f"{self.rows} rows, thresholds {thresholds_as_text(self.thresholds)}", ""]
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
            lines.append(f"{self.unanswered} rows have no answer: their logits are not finite")
        return "\n".join(lines)


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
    truth = None if rows.labels is None else rows.label_indices(policy.labels)
    ordered = [logits_in_policy_order(policy, i, values) for i, values in enumerate(logits)]
    # NaN or infinite logits give no answer, and so never a correct one.
    of_members = [
        np.where(np.isfinite(values).all(axis=1), values.argmax(axis=1), -1) for values in ordered
    ]
    answers = np.where(answered, outcome.labels, -1)
    evaluation = Evaluation(
        rows=len(rows.texts),
        thresholds=used,
        members=tuple(stage.model for stage in policy.stages),
        member_accuracy=(
            None if truth is None else tuple(float((m == truth).mean()) for m in of_members)
        ),
        cascade_accuracy=(None if truth is None else float((answers == truth).mean())),
        disagreement=float((answers != of_members[-1]).mean()),
        deferral_rate=outcome.deferral_rate,
        exits=tuple(outcome.exits_per_stage()),
        unanswered=int((~answered).sum()),
        near_threshold=int(outcome.near_threshold(used, NEAR).sum()),
        metrics=(
            None
            if truth is None
            else tuple(
                _metrics(values, stage, truth)
                for values, stage in zip(ordered, policy.stages, strict=True)
            )
        ),
        curve_area=(
            None
            if truth is None or len(ordered) < 2
            else _curve_area(ordered, policy.stages[0], truth)
        ),
        signals=None if truth is None else _signals(ordered[0], policy.stages[0], truth),
    )
    return evaluation, outcome


def _metrics(
    logits: NDArray[np.float32], stage: StagePolicy, truth: NDArray[np.int64]
) -> MemberMetrics:
    finite = np.isfinite(logits).all(axis=1)
    logits, truth = logits[finite] / np.float32(stage.temperature), truth[finite]
    correct = logits.argmax(axis=1) == truth
    probabilities = softmax(logits)
    confidence, sure = probabilities.max(axis=1), confidence_score(logits, stage.signal)
    n = resamples_for(len(truth))

    def coverage(signal: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
        return coverage_at_risk(signal, ~right, COVERAGE_RISK)

    return MemberMetrics(
        dis=bootstrap(difficulty_inversion_score, sure, correct, resamples=n),
        ece=bootstrap(expected_calibration_error, confidence, correct, resamples=n, centred=True),
        brier=bootstrap(brier_score, probabilities, truth, resamples=n),
        coverage=bootstrap(coverage, sure, correct, resamples=n),
    )


def _signals(
    logits: NDArray[np.float32], stage: StagePolicy, truth: NDArray[np.int64]
) -> dict[str, Interval]:
    finite = np.isfinite(logits).all(axis=1)
    logits, truth = logits[finite] / np.float32(stage.temperature), truth[finite]
    correct = logits.argmax(axis=1) == truth
    found: dict[str, Interval] = {}
    for signal in SIGNALS:
        if logits.shape[1] == 2 and signal in {MARGIN, ENTROPY}:
            # With two labels they order rows as the largest probability does.
            found[signal] = found[MAX_PROBABILITY]
            continue
        found[signal] = bootstrap(
            difficulty_inversion_score, confidence_score(logits, signal), correct,
            resamples=resamples_for(len(truth)),
        )  # fmt: skip
    return found


def _curve_area(
    ordered: Sequence[NDArray[np.float32]], stage: StagePolicy, truth: NDArray[np.int64]
) -> Interval:
    small, large = (values.argmax(axis=1) == truth for values in (ordered[0], ordered[-1]))

    def area(
        signal: NDArray[np.float64], of_small: NDArray[np.bool_], of_large: NDArray[np.bool_]
    ) -> float:
        return deferral_curve(signal, of_small, of_large).area

    finite = np.isfinite(ordered[0]).all(axis=1)
    scaled = np.nan_to_num(ordered[0], nan=0.0, posinf=0.0, neginf=0.0) / stage.temperature
    # A row with NaN or infinite logits is always deferred.
    sure = np.where(finite, confidence_score(scaled, stage.signal), -np.inf)
    return bootstrap(area, sure, small, large, resamples=resamples_for(len(truth)))
