"""Tests and bounds of a risk: their values, and how often they err."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from cascadebert_build.tuning.risk import (
    Stakes,
    betting_p_value,
    binomial_p_value,
    binomial_upper_bound,
    signed_stakes,
    smallest_n,
    wealth_below,
)

DELTA = 0.1


def test_the_exact_p_value_is_the_binomial_test() -> None:
    for k, n, limit in ((0, 299, 0.01), (3, 500, 0.02), (40, 1000, 0.05)):
        expected = stats.binomtest(k, n, limit, alternative="less").pvalue
        assert binomial_p_value(k, n, limit) == pytest.approx(expected)
    several = binomial_p_value(np.array([0, 1, 2]), 300, 0.01)
    assert several.shape == (3,)
    assert (np.diff(several) > 0).all()


def test_the_upper_bound_has_the_p_value_delta() -> None:
    for k, n in ((0, 299), (7, 400), (399, 400)):
        bound = binomial_upper_bound(k, n, 0.05)
        assert binomial_p_value(k, n, bound) == pytest.approx(0.05, rel=1e-6)
    assert binomial_upper_bound(5, 5, 0.05) == 1.0


@pytest.mark.parametrize(
    ("limit", "delta", "n"), [(0.01, 0.05, 299), (0.005, 0.05, 598), (0.5, 0.25, 2), (0.1, 0.1, 22)]
)
def test_the_smallest_n(limit: float, delta: float, n: int) -> None:
    assert smallest_n(limit, delta) == n
    assert binomial_p_value(0, n, limit) <= delta < binomial_p_value(0, n - 1, limit)


def test_the_bet_is_rarely_won_at_the_limit() -> None:
    """With a mean loss at the limit, at most a share delta of the bets is won."""
    rng = np.random.default_rng(0)
    trials, n, limit = 600, 800, 0.01
    p_plus, p_minus = 0.03, 0.02
    won = 0
    for _ in range(trials):
        losses = rng.choice([1.0, -1.0, 0.0], n, p=[p_plus, p_minus, 1 - p_plus - p_minus])
        won += betting_p_value(losses, limit, signed_stakes(DELTA)) <= DELTA
    # Three standard errors of a share of 600.
    assert won / trials <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / trials)
    assert won > 0  # it is not merely deaf


def test_the_bet_is_won_if_the_risk_is_low() -> None:
    rng = np.random.default_rng(1)
    losses = rng.choice([1.0, -1.0, 0.0], 3000, p=[0.01, 0.012, 0.978])
    assert betting_p_value(losses, 0.01, signed_stakes(DELTA)) < 0.01
    # Without any loss it needs about as many rows as the exact test of a 0/1 loss.
    assert betting_p_value(np.zeros(640), 0.005, signed_stakes(0.05)) <= 0.05
    assert betting_p_value(np.zeros(500), 0.005, signed_stakes(0.05)) > 0.05


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_wealth_is_a_fair_game(rate: float) -> None:
    """The expected wealth over all sequences of ten rows is exactly 1."""
    sequences = np.array(list(itertools.product([0.0, 1.0], repeat=10)))
    p = np.prod(np.where(sequences == 1, rate, 1 - rate), axis=1)
    wealth = np.array([wealth_below(s, rate, Stakes(0, 1, 0.05, DELTA)) for s in sequences])
    assert (wealth > 0).all()
    np.testing.assert_allclose(p @ wealth, 1.0, rtol=1e-12)
