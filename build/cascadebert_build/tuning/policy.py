"""Fits temperatures and chooses thresholds on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.gate import decide
from cascadebert_core.policy import Policy, Threshold
from cascadebert_core.task import MULTI_LABEL, answer_keys

from ..config.goals import Goal
from ..config.rows import Rows
from ..evaluation.costs import RowCosts
from ..evaluation.simulate import logits_in_policy_order
from .deferral_rate import thresholds_for_deferral_rates
from .guarantee import Predictions
from .operating_point import OperatingPoint, TuningRows, choose_operating_point
from .row_split import RowSplit
from .temperature import fit_temperature, fit_temperature_of_sets


@dataclass(frozen=True, slots=True)
class TunedPolicy:
    """A policy with temperatures and thresholds.

    Attributes:
        policy: Without a certificate.
        points: Every operating point with its certificate, by name.
    """

    policy: Policy
    points: dict[str, OperatingPoint]


def tune_policy(
    policy: Policy,
    logits: Sequence[NDArray[np.float32]],
    rows: Rows,
    *,
    split: RowSplit,
    costs: RowCosts,
    goals: Mapping[str, Goal],
    default: str,
    per_label: bool = False,
) -> TunedPolicy:
    """Fit temperatures, then choose thresholds for every goal.

    Each guarantee holds on its own with its own confidence. That all of them hold at once is not
    guaranteed.

    Args:
        policy: Gives the order of labels and the signals.
        logits: Of every stage, each of shape (n, n_labels) in the checkpoint's order.
        rows: The n held-out rows.
        split: The purpose of each row.
        costs: Of each row in each stage.
        goals: The goals of the operating points, by name.
        default: The operating point of requests that name none.
        per_label: Let thresholds differ by the label that a stage predicts.

    Raises:
        UsageError: A goal cannot be met, or there are too few rows to show it.
    """
    fitted = with_fitted_temperatures(policy, rows, logits, split.temperature)
    held_out = TuningRows(
        predictions_of_stages(fitted, logits, rows), costs, split, len(policy.labels)
    )
    points = {
        name: choose_operating_point(goal, held_out, per_label=per_label)
        for name, goal in goals.items()
    }
    return TunedPolicy(
        fitted.with_operating_points({n: p.thresholds for n, p in points.items()}, default), points
    )


def with_fitted_temperatures(
    policy: Policy,
    rows: Rows,
    logits: Sequence[NDArray[np.float32]],
    fitting: NDArray[np.intp],
) -> Policy:
    """The policy with the temperature of every stage fitted on some rows, or 1 without such rows.

    Args:
        policy: Gives the order of labels.
        rows: The n held-out rows, with labels if `fitting` is not empty.
        logits: Of every stage, each of shape (n, n_labels) in the checkpoint's order.
        fitting: Indices of rows that have no other purpose.

    Raises:
        UsageError: A label is not one of the policy's.
    """
    if not len(fitting):
        return replace(policy, stages=tuple(replace(s, temperature=1.0) for s in policy.stages))
    truth: NDArray[Any] = (
        rows.label_sets(policy.labels)
        if policy.task == MULTI_LABEL
        else rows.label_indices(policy.labels)
    )
    fit = fit_temperature_of_sets if policy.task == MULTI_LABEL else fit_temperature
    stages = tuple(
        replace(
            stage,
            temperature=fit(logits_in_policy_order(policy, i, logits[i])[fitting], truth[fitting]),
        )
        for i, stage in enumerate(policy.stages)
    )
    return replace(policy, stages=stages)


def predictions_of_stages(
    policy: Policy, logits: Sequence[NDArray[np.float32]], rows: Rows
) -> Predictions:
    """The predictions of every stage for every row, with the gate's own arithmetic.

    NaN or infinite logits give the answer -1, which never agrees with another answer.

    Raises:
        UsageError: A label of the rows is not one of the policy's.
    """
    labels: list[NDArray[Any]] = []
    confidences: list[NDArray[np.float32]] = []
    for i, stage in enumerate(policy.stages):
        ordered = logits_in_policy_order(policy, i, logits[i])
        decision = decide(ordered, stage.temperature, np.float32(0), stage.signal, policy.task)
        finite = np.isfinite(decision.confidence)
        predicted = answer_keys(np.nan_to_num(decision.probabilities), policy.task)
        labels.append(np.where(finite, predicted, -1))
        confidences.append(decision.confidence)
    gated = confidences[:-1]
    return Predictions(
        np.stack(labels, axis=1),
        np.stack(gated, axis=1) if gated else np.zeros((len(labels[0]), 0), np.float32),
        None if rows.labels is None else rows.answers(policy.labels, policy.task),
    )


def choose_thresholds(
    policy: Policy, logits: Sequence[NDArray[np.float32]], max_deferral_rates: Sequence[float]
) -> tuple[Threshold, ...]:
    """Thresholds for deferral rates on all rows; see `thresholds_for_deferral_rates`.

    Args:
        policy: Gives temperatures, signals and label order. Its thresholds are ignored.
        logits: Of every stage, each of shape (n, n_labels) in the checkpoint's order.
        max_deferral_rates: For every stage but the last.
    """
    unlabelled = Rows(("",) * len(logits[0]), None, "")
    confidence = predictions_of_stages(policy, logits, unlabelled).confidence
    return thresholds_for_deferral_rates(confidence, max_deferral_rates)
