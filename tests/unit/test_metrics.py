"""Metrics against their definitions, pair by pair, and on cases with known values."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.evaluation.metrics import (
    bootstrap,
    brier_score,
    confidence_score,
    coverage_at_risk,
    deferral_curve,
    difficulty_inversion_score,
    expected_calibration_error,
)

# Few distinct values, so that ties are frequent.
ROWS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=40)


def columns(rows: list[tuple[int, bool, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    signal, small, large = zip(*rows, strict=True)
    return np.array(signal, float), np.array(small), np.array(large)


@given(ROWS)
def test_dis_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool, bool]]) -> None:
    signal, correct, _ = columns(rows)
    pairs = list(product(signal[correct], signal[~correct]))
    score = difficulty_inversion_score(signal, correct)
    if not pairs:
        assert np.isnan(score)
    else:
        wins = sum((right > wrong) + 0.5 * (right == wrong) for right, wrong in pairs)
        assert score == pytest.approx(100 * wins / len(pairs))


@given(ROWS)
def test_the_curve_is_what_thresholds_give(rows: list[tuple[int, bool, bool]]) -> None:
    signal, small, large = columns(rows)
    curve = deferral_curve(signal, small, large)
    assert (curve.deferral[0], curve.deferral[-1]) == (0, 1)
    assert curve.accuracy[0] == pytest.approx(small.mean())
    assert curve.accuracy[-1] == pytest.approx(large.mean())
    points = {round(d, 9): a for d, a in zip(curve.deferral, curve.accuracy, strict=True)}
    for threshold in np.unique(signal):
        exits = signal > threshold  # strictly, as the gate
        accuracy = np.where(exits, small, large).mean()
        assert points[round(float((~exits).mean()), 9)] == pytest.approx(accuracy)
    assert min(curve.accuracy) - 1e-9 <= curve.area <= max(curve.accuracy) + 1e-9


@given(ROWS, st.floats(0, 1))
def test_coverage_is_the_largest_share_within_the_risk(
    rows: list[tuple[int, bool, bool]], risk: float
) -> None:
    signal, wrong, _ = columns(rows)
    shares = [0.0]
    for threshold in np.unique(signal):
        covered = signal >= threshold
        if wrong[covered].mean() <= risk:
            shares.append(covered.mean())
    assert coverage_at_risk(signal, wrong, risk) == pytest.approx(max(shares))


def test_a_perfect_order_and_an_inverted_one() -> None:
    signal = np.arange(10.0)
    correct = signal >= 4
    assert difficulty_inversion_score(signal, correct) == 100
    assert difficulty_inversion_score(-signal, correct) == 0
    assert difficulty_inversion_score(0 * signal, correct) == 50


def test_a_calibrated_confidence_has_no_error_and_an_overconfident_one_has() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    correct = rng.random(len(confidence)) < confidence
    assert expected_calibration_error(confidence, correct) < 0.005
    sure = np.full(len(correct), 0.99)
    assert expected_calibration_error(sure, correct) == pytest.approx(0.24, abs=0.005)


def test_brier_of_a_correct_a_wrong_and_an_even_guess() -> None:
    labels = np.array([0, 1])
    assert brier_score(np.array([[1, 0], [0, 1]]), labels) == 0
    assert brier_score(np.array([[0, 1], [1, 0]]), labels) == 2
    assert brier_score(np.full((2, 2), 0.5), labels) == 0.5


def test_the_interval_covers_the_truth_at_its_level() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        sample = rng.random(150) < 0.3
        interval = bootstrap(lambda x: float(x.mean()), sample, resamples=300, seed=trial)
        assert interval.low <= interval.value <= interval.high
        hits += interval.low <= 0.3 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99  # 0.95, give or take what 200 trials and n = 150 allow


def test_paired_draws_see_a_small_difference() -> None:
    rng = np.random.default_rng(0)
    large = rng.random(500) < 0.8
    small = large & (rng.random(500) < 0.98)  # wrong wherever the large one is, and now and then
    apart = bootstrap(lambda a, b: float(a.mean() - b.mean()), large, small)
    assert apart.low > 0


def test_scores_differ_even_if_probabilities_are_one() -> None:
    logits = np.array([[0.0, 40.0], [0.0, 60.0], [0.0, 2.0], [5.0, 5.0]])
    sure = confidence_score(logits)
    assert list(np.argsort(sure)) == [3, 2, 0, 1]
    assert sure[3] == pytest.approx(np.log(0.5))
    assert np.exp(sure[2]) == pytest.approx(1 / (1 + np.exp(-2)))
    three = np.array([[1.0, 2.0, 3.0]])
    assert np.exp(confidence_score(three)[0]) == pytest.approx(np.exp(3) / np.exp(three).sum())


def test_an_interval_is_formatted_to_width_and_places() -> None:
    interval = bootstrap(lambda x: float(x.mean()), np.array([1.0, 1.0]))
    assert f"{interval:>25.2f}" == "        1.00 [1.00, 1.00]"
    assert str(interval) == "1 [1, 1]"
