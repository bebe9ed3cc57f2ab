"""Thresholds for a deferral rate, and the cascade on stored logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascadebert_build.config.rows import Rows
from cascadebert_build.evaluation.evaluate import evaluate
from cascadebert_build.evaluation.simulate import simulate
from cascadebert_build.tuning.deferral_rate import threshold_for_deferral_rate
from cascadebert_build.tuning.policy import choose_thresholds
from tests.support.policies import make_policy

CONFIDENCES = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0.5, 1, width=32))


@given(CONFIDENCES, st.floats(0, 1))
def test_no_more_rows_are_deferred_than_allowed_and_no_threshold_is_larger(
    confidence: np.ndarray, rate: float
) -> None:
    threshold = threshold_for_deferral_rate(confidence, rate)
    assert 0 <= threshold <= 1
    assert threshold == float(np.float32(threshold))
    deferred = int((confidence <= np.float32(threshold)).sum())
    assert deferred <= rate * len(confidence) + 1e-6
    above = np.sort(confidence[confidence > np.float32(threshold)])
    if len(above) and threshold < 1:
        ties = int((confidence <= above[0]).sum())
        assert ties > rate * len(confidence) - 1e-6 or deferred == 0


def test_the_threshold_lies_between_neighbouring_rows() -> None:
    confidence = np.array([0.6, 0.7, 0.8, 0.9], np.float32)
    assert threshold_for_deferral_rate(confidence, 0.5) == pytest.approx(0.75)
    assert threshold_for_deferral_rate(confidence, 0.29 * 100 / 100) == pytest.approx(0.65)
    assert threshold_for_deferral_rate(confidence, 0) == 0
    assert threshold_for_deferral_rate(confidence, 1) == 1


def test_rows_that_are_not_finite_use_up_the_budget() -> None:
    confidence = np.array([0.6, np.nan, 0.8, 0.9], np.float32)
    assert threshold_for_deferral_rate(confidence, 0.25) == 0
    assert threshold_for_deferral_rate(confidence, 0.5) == pytest.approx(0.7)


def logits_of(confidence: float, label: int) -> list[float]:
    margin = np.log(confidence / (1 - confidence))
    return [-margin / 2, margin / 2] if label else [margin / 2, -margin / 2]


def test_later_thresholds_are_chosen_on_the_rows_that_reach_them() -> None:
    policy = make_policy(1.0, 1.0)
    first = np.array([logits_of(c, 0) for c in (0.6, 0.7, 0.8, 0.99)], np.float32)
    second = np.array([logits_of(c, 0) for c in (0.9, 0.95, 0.51, 0.52)], np.float32)
    thresholds = choose_thresholds(policy, [first, second, second], (0.5, 0.5))
    assert thresholds == pytest.approx((0.75, 0.925), abs=1e-5)


def test_simulation_follows_rows_through_the_stages() -> None:
    policy = make_policy(0.9)
    swapped = replace(policy.stages[1], label_indices=(1, 0))
    policy = replace(policy, stages=(policy.stages[0], swapped))
    small = np.array([logits_of(0.95, 1), logits_of(0.6, 1), [np.nan, 0]], np.float32)
    # The large member has the reverse order of labels.
    large = np.array([logits_of(0.9, 0), logits_of(0.9, 1), [np.inf, 0]], np.float32)
    rows = Rows(("a", "b", "c"), (1, 0, 1), "test")
    evaluation, outcome = evaluate(policy, rows, [small, large])
    assert outcome.exit_stage.tolist() == [0, 1, -1]
    assert outcome.labels[:2].tolist() == [1, 0]
    assert evaluation.exits == (1, 1)
    assert evaluation.unanswered == 1
    assert evaluation.cascade_accuracy == pytest.approx(2 / 3)
    assert evaluation.deferral_rate == pytest.approx(2 / 3)
    assert "1 row has no answer: its logits" in str(evaluation)


def test_rows_near_a_threshold_are_counted() -> None:
    policy = make_policy(0.9)
    small = np.array([logits_of(c, 1) for c in (0.900001, 0.95, 0.5)], np.float32)
    outcome = simulate(policy, [small, small])
    assert outcome.near_threshold((0.9,), 1e-5).tolist() == [True, False, False]


def test_an_evaluation_without_labels_has_no_accuracy() -> None:
    small = np.array([logits_of(0.95, 1)], np.float32)
    evaluation, _ = evaluate(make_policy(0.9), Rows(("a",), None, "test"), [small, small])
    assert evaluation.cascade_accuracy is None
    assert evaluation.member_accuracy is None
    assert "–" in str(evaluation)
