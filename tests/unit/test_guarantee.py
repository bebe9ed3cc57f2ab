"""Guarantees: they hold at their confidence, and no more rows are deferred than needed."""

from __future__ import annotations

import numpy as np
import pytest

from cascadebert_build.errors import UsageError
from cascadebert_build.tuning.guarantee import (
    Predictions,
    certify_by_scan,
    certify_in_order,
    pareto_frontier,
    rows_needed,
)
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT, Guarantee

DELTA = 0.1


def population(n: int, rng: np.random.Generator, stages: int = 2) -> Predictions:
    """Rows whose stages agree with the last stage more often at a higher confidence.

    A stage with confidence c disagrees with probability (1 - c) / 2, c uniform on [0.5, 1].
    """
    last = rng.integers(0, 2, n)
    labels, confidence = [], []
    for _ in range(stages - 1):
        c = rng.uniform(0.5, 1, n)
        differs = rng.random(n) < (1 - c) / 2
        labels.append(np.where(differs, 1 - last, last))
        confidence.append(c)
    truth = np.where(rng.random(n) < 0.95, last, 1 - last)
    return Predictions(
        np.stack([*labels, last], axis=1),
        np.stack(confidence, axis=1).astype(np.float32),
        truth,
    )


def true_disagreement(threshold: float) -> float:
    """Of `population` with two stages: integral of (1 - c) / 2 over c from t to 1, density 2."""
    t = max(threshold, 0.5)
    return (1 - t) ** 2 / 2


def mean_stage(exits: np.ndarray) -> float:
    return float(exits.mean())


def test_losses_and_exits() -> None:
    answers = Predictions(
        np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1]]),
        np.array([[0.9, 0.9], [0.5, 0.7], [np.nan, 0.99]], np.float32),
        np.array([0, 1, 1]),
    )
    assert answers.losses(DISAGREEMENT).tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert answers.losses(ACCURACY_DROP).tolist() == [[-1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert answers.exits(np.array([0.8, 0.8], np.float32)).tolist() == [0, 2, 1]
    # A tie with the threshold defers, and NaN never exits.
    assert answers.exits(np.array([0.9, 0.7], np.float32)).tolist() == [1, 2, 1]
    assert answers.exits(np.array([0.0, 1.0], np.float32)).tolist() == [0, 0, 2]
    by_label = np.array([[0.95, 0.4], [0.99, 0.6]], np.float32)  # of labels 0 and 1
    assert answers.exits(by_label).tolist() == [1, 0, 2]
    unlabelled = Predictions(answers.labels, answers.confidence)
    with pytest.raises(UsageError, match="needs labelled rows"):
        unlabelled.losses(ACCURACY_DROP)


def test_the_scan_equals_its_definition() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    answers = population(900, rng)
    guarantee = Guarantee(DISAGREEMENT, 0.03, 0.9)
    kept = certify_by_scan(guarantee, answers)
    best = 1.0
    for c in np.sort(answers.confidence[:, 0])[::-1]:
        below = np.nextafter(c, np.float32(0))
        exits = answers.exits(np.array([below], np.float32))
        lost = int(answers.losses(DISAGREEMENT)[np.arange(900), exits].sum())
        if stats.binomtest(lost, 900, 0.03, alternative="less").pvalue > 0.1:
            break
        best = float(below)
    np.testing.assert_array_equal(
        answers.exits(kept.thresholds), answers.exits(np.array([best], np.float32))
    )
    assert kept.observed < kept.bound <= 0.03


@pytest.mark.parametrize("n", [300, 1500])
def test_the_guarantee_fails_at_most_at_its_level(n: int) -> None:
    rng = np.random.default_rng(n)
    guarantee = Guarantee(DISAGREEMENT, 0.02, 1 - DELTA)
    trials = 400
    chosen = [
        float(certify_by_scan(guarantee, population(n, rng)).thresholds[0]) for _ in range(trials)
    ]
    broken = np.mean([true_disagreement(t) > 0.02 for t in chosen])
    assert broken <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / trials)
    # The oracle's threshold is 0.8; chosen thresholds approach it from above.
    assert 0.8 < np.median(chosen) < (0.9 if n == 1500 else 0.96)


@pytest.mark.parametrize("kind", [DISAGREEMENT, ACCURACY_DROP])
@pytest.mark.parametrize("stages", [2, 3])
def test_settings_from_other_rows_keep_the_guarantee(kind: str, stages: int) -> None:
    rng = np.random.default_rng(7)
    guarantee = Guarantee(kind, 0.03, 1 - DELTA)
    grid = [np.float32(x) for x in np.linspace(0.5, 1, 12)]
    candidates = [
        np.array(t, np.float32)
        for t in np.array(np.meshgrid(*[grid] * (stages - 1))).reshape(stages - 1, -1).T
    ]
    fresh = population(60_000, np.random.default_rng(8), stages)
    losses = fresh.losses(kind)
    broken, deferred = [], []
    for _ in range(60):
        settings = pareto_frontier(guarantee, population(400, rng, stages), candidates, mean_stage)
        kept = certify_in_order(guarantee, population(1200, rng, stages), settings, mean_stage)
        exits = fresh.exits(kept.thresholds)
        broken.append(losses[np.arange(len(fresh)), exits].mean() > 0.03)
        deferred.append(float((exits > 0).mean()))
    assert np.mean(broken) <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / 60)
    assert np.median(deferred) < 0.8  # it is of use


def test_a_guarantee_that_no_setting_keeps_defers_everything() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (800, 2))  # the first stage guesses
    answers = Predictions(labels, rng.uniform(0.5, 1, (800, 1)).astype(np.float32))
    kept = certify_by_scan(Guarantee(DISAGREEMENT, 0.01, 0.95), answers)
    assert kept.observed <= 0.01
    assert float((answers.exits(kept.thresholds) == 0).mean()) < 0.02
    worst = Predictions(np.stack([1 - labels[:, 0], labels[:, 0]], 1), answers.confidence)
    kept = certify_by_scan(Guarantee(DISAGREEMENT, 0.01, 0.95), worst)
    assert kept.observed <= 0.01


def test_too_few_rows_are_refused_with_the_number_that_is_needed() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(UsageError, match=r"298 rows are left .* at least 299"):
        certify_by_scan(Guarantee(DISAGREEMENT, 0.01, 0.95), population(298, rng))
    certify_by_scan(Guarantee(DISAGREEMENT, 0.01, 0.95), population(299, rng))
    guarantee = Guarantee(ACCURACY_DROP, 0.01, 0.95)
    with pytest.raises(UsageError, match=rf"at least {rows_needed(guarantee)}"):
        certify_in_order(guarantee, population(100, rng), [np.ones(1, np.float32)], mean_stage)
    assert 299 <= rows_needed(guarantee) < 400


def test_ties_and_nan_rows() -> None:
    labels = np.zeros((400, 2), int)
    labels[:200, 0] = 1  # half of the rows with confidence 0.9 disagree
    confidence = np.full((400, 1), 0.9, np.float32)
    kept = certify_by_scan(Guarantee(DISAGREEMENT, 0.02, 0.95), Predictions(labels, confidence))
    assert (kept.thresholds >= 1).all()
    nan = np.full((400, 1), np.nan, np.float32)
    kept = certify_by_scan(Guarantee(DISAGREEMENT, 0.02, 0.95), Predictions(labels, nan))
    assert (kept.thresholds >= 1).all()
    assert kept.observed == 0


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(3)
    big = population(100_000, rng)
    kept = certify_by_scan(Guarantee(DISAGREEMENT, 0.01, 0.95), big)
    assert float(kept.thresholds[0]) == pytest.approx(1 - np.sqrt(0.02), abs=0.01)
