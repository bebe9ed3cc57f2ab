"""Temperatures and thresholds, on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy, Threshold

from ..config.goals import Goal
from ..config.rows import Rows
from ..evaluation.simulate import logits_in_policy_order
from .deferral_rate import thresholds_for_deferral_rates
from .guarantee import Answers
from .operating_point import OperatingPoint, Population, choose_operating_point
from .row_split import RowSplit
from .temperature import fit_temperature


@dataclass(frozen=True, slots=True)
class Tuned:
    """A policy with temperatures and thresholds.

    Attributes:
        policy: without a certificate.
        points: every operating point with its certificate, by name.
    """

    policy: Policy
    points: dict[str, OperatingPoint]


def tune_policy(
    policy: Policy,
    logits: Sequence[NDArray[np.float32]],
    rows: Rows,
    *,
    split: RowSplit,
    cost: NDArray[np.float64],
    goals: Mapping[str, Goal],
    default: str,
    per_label: bool = False,
) -> Tuned:
    """Fit temperatures, then choose thresholds for every goal.

    Each promise holds by itself with its own confidence; that all of them hold at once is not
    promised.

    Args:
        policy: for label order and signals.
        logits: of every stage, each of shape (n, n_labels) in the checkpoint's order.
        rows: n of them.
        split: which rows answer which question.
        cost: milliseconds of each row in each stage, shape (n, n_stages).
        goals: operating points by name.
        default: the one that a request without parameters gets.
        per_label: let thresholds differ by the label that a stage predicts.

    Raises:
        UsageError: a goal cannot be met, or not be shown with so few rows.
    """
    fitted = with_fitted_temperatures(policy, rows, logits, split.temperature)
    population = Population(
        answers_of_stages(fitted, logits, rows), cost, split, len(policy.labels)
    )
    points = {
        name: choose_operating_point(goal, population, per_label=per_label)
        for name, goal in goals.items()
    }
    return Tuned(
        fitted.with_operating_points({n: p.thresholds for n, p in points.items()}, default), points
    )


def with_fitted_temperatures(
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    fitting: NDArray[np.intp],
) -> Policy:
    """The policy with the temperature of every stage fitted on some rows; 1 where there are none.

    Args:
        policy: for the order of labels.
        rows: n of them; the fitting ones have labels.
        logits: of every stage, each of shape (n, n_labels) in the checkpoint's order.
        fitting: indices of rows that choose nothing else.

    Raises:
        UsageError: a label is none of the policy's.
    """
    if not len(fitting):
        return replace(policy, stages=tuple(replace(s, temperature=1.0) for s in policy.stages))
    labels = rows.label_indices(policy.labels)[fitting]
    stages = tuple(
        replace(
            stage,
            temperature=fit_temperature(
                logits_in_policy_order(policy, i, logits[i])[fitting], labels
            ),
        )
        for i, stage in enumerate(policy.stages)
    )
    return replace(policy, stages=stages)


def answers_of_stages(policy: Policy, logits: Sequence[NDArray[np.float32]], rows: Rows) -> Answers:
    """What every stage says to every row, by the gate's own arithmetic.

    A stage without a finite logit has the label -1, which agrees with nothing.

    Raises:
        UsageError: a label of the rows is none of the policy's.
    """
    labels: list[NDArray[np.int64]] = []
    confidences: list[NDArray[np.float32]] = []
    for i, stage in enumerate(policy.stages):
        ordered = logits_in_policy_order(policy, i, logits[i])
        decision = decide(ordered, stage.temperature, np.float32(0), stage.signal)
        finite = np.isfinite(decision.confidence)
        predicted = np.nan_to_num(decision.probabilities).argmax(axis=1)
        labels.append(np.where(finite, predicted, -1))
        confidences.append(decision.confidence)
    gated = confidences[:-1]
    return Answers(
        np.stack(labels, axis=1),
        np.stack(gated, axis=1) if gated else np.zeros((len(labels[0]), 0), np.float32),
        None if rows.labels is None else rows.label_indices(policy.labels),
    )


def choose_thresholds(
    policy: Policy, logits: Sequence[NDArray[np.float32]], max_deferral_rates: Sequence[float]
) -> tuple[Threshold, ...]:
    """Thresholds for deferral rates on all rows, see `thresholds_for_deferral_rates`.

    Args:
        policy: for temperatures, signals and label order; its thresholds do not matter.
        logits: of every stage, each of shape (n, n_labels) in the checkpoint's order.
        max_deferral_rates: for every stage but the last.
    """
    unlabelled = Rows(("",) * len(logits[0]), None, "")
    confidence = answers_of_stages(policy, logits, unlabelled).confidence
    return thresholds_for_deferral_rates(confidence, max_deferral_rates)
