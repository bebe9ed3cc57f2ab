"""Fitting a temperature: it finds the best one, on its own rows only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, special

from cascadebert_build.config.rows import Rows
from cascadebert_build.errors import UsageError
from cascadebert_build.evaluation.metrics import expected_calibration_error
from cascadebert_build.tuning.policy import choose_thresholds, with_fitted_temperatures
from cascadebert_build.tuning.temperature import (
    HIGHEST,
    LOWEST,
    fit_temperature,
    fit_temperature_of_sets,
    negative_log_likelihood,
)
from cascadebert_core.task import softmax
from tests.support.policies import make_multi_label_policy, make_policy


def overconfident(n: int, by: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose right temperature is `by`, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (n, 3))
    p = softmax(honest.astype(np.float32)).astype(np.float64)
    labels = np.array([rng.choice(3, p=row / row.sum()) for row in p])
    return (honest * by).astype(np.float32), labels


@pytest.mark.parametrize("by", [0.5, 1.0, 2.5])
def test_it_has_the_least_loss(by: float) -> None:
    logits, labels = overconfident(4000, by)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(by, rel=0.06)
    best = optimize.minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, t), bounds=(0.05, 20), method="bounded"
    )
    assert found == pytest.approx(float(best.x), abs=2e-3)


def test_it_improves_the_calibration_on_other_rows() -> None:
    logits, labels = overconfident(6000, 3.0)
    t = fit_temperature(logits[:3000], labels[:3000])
    errors = []
    for temperature in (1.0, t):
        p = softmax(logits[3000:] / np.float32(temperature))
        errors.append(expected_calibration_error(p.max(1), p.argmax(1) == labels[3000:]))
    assert errors[1] < errors[0] / 4


def test_without_a_best_temperature_the_bounds_are_kept() -> None:
    logits = np.array([[0.0, 3.0], [3.0, 0.0]], dtype=np.float32)
    assert fit_temperature(logits, np.array([1, 0])) == LOWEST
    assert fit_temperature(logits, np.array([0, 1])) == HIGHEST
    assert fit_temperature(np.full((2, 2), np.nan, np.float32), np.array([0, 1])) == 1.0
    broken = np.concatenate([logits, [[np.inf, 0]]]).astype(np.float32)
    assert fit_temperature(broken, np.array([1, 0, 1])) == LOWEST


def test_every_stage_is_fitted_on_the_named_rows_alone() -> None:
    logits, labels = overconfident(1000, 2.0)
    logits, labels = logits[:, :2], labels % 2
    rows = Rows(tuple(f"row {i}" for i in range(1000)), tuple(labels.tolist()), "test")
    fitting = np.arange(0, 1000, 5)
    fitted = with_fitted_temperatures(make_policy(0.9), rows, [logits, logits * 2], fitting)
    # Twice the logits have twice the temperature, up to rounding.
    first, second = (stage.temperature for stage in fitted.stages)
    assert second == pytest.approx(2 * first, abs=2e-4)
    # Other rows have no influence.
    changed = logits.copy()
    changed[np.setdiff1d(np.arange(1000), fitting)] = 0
    again = with_fitted_temperatures(make_policy(0.9), rows, [changed, changed * 2], fitting)
    assert again == fitted


def test_without_rows_all_temperatures_are_1() -> None:
    logits = np.zeros((240, 2), dtype=np.float32)
    rows = Rows(("a",) * 240, ("maybe",) * 240, "test")
    fitted = with_fitted_temperatures(make_policy(0.9), rows, [logits, logits], np.arange(0))
    assert [stage.temperature for stage in fitted.stages] == [1.0, 1.0]
    with pytest.raises(UsageError, match="the label 'maybe'"):
        with_fitted_temperatures(make_policy(0.9), rows, [logits, logits], np.arange(100))


def test_thresholds_are_of_the_chosen_signal() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (500, 2)).astype(np.float32)
    by_signal = {}
    for signal in ("max_probability", "margin", "entropy", "energy"):
        policy = make_policy(0.9).with_signal(signal)
        assert policy.stages[-1].signal == "max_probability"
        (threshold,) = choose_thresholds(policy, [logits, logits], [0.3])
        by_signal[signal] = threshold
    assert len(set(by_signal.values())) == 4
    assert by_signal["margin"] == pytest.approx(2 * by_signal["max_probability"] - 1, abs=1e-5)


@pytest.mark.parametrize("by", [0.5, 1.0, 2.5])
def test_of_sets_it_has_the_least_cross_entropy_of_the_labels(by: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (3000, 3))
    sets = rng.random((3000, 3)) < special.expit(honest)
    logits = (honest * by).astype(np.float32)
    found = fit_temperature_of_sets(logits, sets)
    assert found == pytest.approx(by, rel=0.06)

    def loss(t: float) -> float:
        p = special.expit(logits.astype(np.float64) / t)
        return float(-np.log(np.where(sets, p, 1 - p)).mean())

    best: Any = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    assert found == pytest.approx(float(best.x), abs=2e-3)
    # The same through a policy, whose rows have names.
    labels = ("insult", "threat", "toxic")
    written = tuple(tuple(np.array(labels)[row].tolist()) for row in sets)
    rows = Rows(("a",) * 3000, written, "test")
    policy = make_multi_label_policy(0.9, labels=labels)
    fitted = with_fitted_temperatures(policy, rows, [logits, logits], np.arange(3000))
    assert [stage.temperature for stage in fitted.stages] == [found, found]


def test_of_sets_the_bounds_are_kept() -> None:
    logits = np.array([[-3.0, 3.0]], dtype=np.float32)
    assert fit_temperature_of_sets(logits, np.array([[False, True]])) == LOWEST
    assert fit_temperature_of_sets(logits, np.array([[True, False]])) == HIGHEST
    assert fit_temperature_of_sets(logits * np.inf, np.array([[True, False]])) == 1.0
