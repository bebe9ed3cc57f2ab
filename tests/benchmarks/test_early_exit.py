"""The rules of early exiting, and what is chosen within a budget of layers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from benchmarks.studies.accuracy.budgets import at_budget, cascade_curve
from benchmarks.studies.early_exit.exit_curves import (
    entropies,
    entropy_curve,
    exits_by_entropy,
    exits_by_patience,
    patience_curve,
)
from cascadebert_build.training.glue import accuracy


def exits_of(predictions: list[list[int]]) -> np.ndarray:
    """Logits (n, layers, 3) that predict what is listed."""
    return np.eye(3)[np.array(predictions)] * 4.0


def test_entropy_is_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (20, 4, 5))
    np.testing.assert_allclose(
        entropies(logits), stats.entropy(special.softmax(logits, axis=-1), axis=-1), atol=1e-12
    )
    assert np.isfinite(entropies(np.array([[[0.0, 2000.0]]]))).all()


def test_a_row_leaves_at_the_first_sure_exit() -> None:
    logits = np.array([[[0, 0.1], [0, 5.0], [0, 9.0]], [[0, 0.1], [0, 0.2], [0, 0.3]]])
    assert exits_by_entropy(logits, 0.2).tolist() == [1, 2]
    assert exits_by_entropy(logits, 0.0).tolist() == [2, 2]
    assert exits_by_entropy(logits, np.inf).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("predictions", "patience", "left"),
    [
        ([0, 0, 0, 0, 0], 1, 1),
        ([0, 0, 0, 0, 0], 2, 2),
        ([0, 1, 1, 1, 0], 2, 3),
        ([0, 1, 0, 1, 0], 1, 4),
        ([0, 0, 1, 1, 1], 2, 4),
        ([0, 0, 0, 0, 0], 9, 4),
        ([0, 0, 1, 2, 2], 1, 1),  # once it has left, nothing calls it back
    ],
)
def test_patience_counts_agreements_in_a_row(
    predictions: list[int], patience: int, left: int
) -> None:
    assert exits_by_patience(exits_of([predictions]), patience).tolist() == [left]


def test_curves_go_from_the_first_layers_to_all() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (300, 6, 2))
    curve = entropy_curve(logits)
    assert curve.layers[0] == 1
    assert curve.layers[-1] == 6
    assert (np.diff(curve.layers) >= 0).all()
    np.testing.assert_array_equal(curve.predicted[0], logits[:, 0].argmax(1))
    np.testing.assert_array_equal(curve.predicted[-1], logits[:, -1].argmax(1))
    patience = patience_curve(logits)
    assert patience.layers[0] >= 2
    assert patience.layers[-1] == 6


def test_the_cascade_pays_for_both_stages() -> None:
    rng = np.random.default_rng(2)
    small, large = rng.normal(0, 2, (400, 2)), rng.normal(0, 2, (400, 2))
    curve = cascade_curve(small, large, 1, 6)
    assert curve.layers[0] == 1
    assert curve.layers[-1] == 7
    np.testing.assert_array_equal(curve.predicted[0], small.argmax(1))
    np.testing.assert_array_equal(curve.predicted[-1], large.argmax(1))
    middle = len(curve.layers) // 2
    deferred = curve.layers_of_rows[middle] == 7
    gap = np.abs(small[:, 0] - small[:, 1])
    assert gap[deferred].max() <= gap[~deferred].min()


def test_the_setting_is_chosen_on_other_rows() -> None:
    # The small member is right when it is sure, the large one always.
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    sure = rng.uniform(0, 1, 2000)
    right = rng.uniform(0, 1, 2000) < 0.5 + 0.5 * sure
    small = np.eye(2)[np.where(right, labels, 1 - labels)] * sure[:, None] * 5
    large = np.eye(2)[labels] * 9.0
    curve = cascade_curve(small, large, 1, 6)
    found = at_budget(curve, labels, 2.5, accuracy)
    assert found is not None
    # A quarter is deferred, the least sure: what is left is right 0.5 + 0.5 (0.25 + 1) / 2.
    assert found.layers == pytest.approx(2.5, abs=0.05)
    assert found.metric == pytest.approx(0.25 + 0.75 * 0.8125, abs=0.02)
    assert at_budget(curve, labels, 0.9, accuracy) is None
    whole = at_budget(curve, labels, 7.0, accuracy)
    assert whole is not None
    assert whole.metric == 1.0
    # A threshold that looks right by luck does not: labels of noise give a half at any budget.
    noise = at_budget(cascade_curve(small, large, 1, 6), rng.integers(0, 2, 2000), 2.5, accuracy)
    assert noise is not None
    assert noise.metric == pytest.approx(0.5, abs=0.03)
