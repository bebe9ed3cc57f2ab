"""Confidence sequences: against brute force, and their error rate along whole streams."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_core import confidence_sequence
from cascadebert_core.confidence_sequence import (
    BROKEN,
    HOLDS,
    UNDECIDED,
    Interval,
    audit_interval,
    confidence_interval,
    log_wealth,
    rows_to_tell,
    verdict_of,
)


def wealth_by_betting(outcomes: list[int], rate: Fraction) -> Fraction:
    """Return the same wealth, in exact arithmetic, from bets on each row at the mixture's odds."""
    wealth, events = Fraction(1), 0
    for n, outcome in enumerate(outcomes):
        chance = Fraction(2 * events + 1, 2 * (n + 1))
        wealth *= chance / rate if outcome else (1 - chance) / (1 - rate)
        events += outcome
    return wealth


@given(st.lists(st.integers(0, 1), max_size=40), st.fractions("0.01", "0.99"))
def test_the_wealth_is_that_of_a_bettor_and_depends_on_the_counts_alone(
    outcomes: list[int], rate: Fraction
) -> None:
    expected = wealth_by_betting(outcomes, rate)
    found = log_wealth(sum(outcomes), len(outcomes), float(rate))
    assert found == pytest.approx(math.log(expected), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 300), (3, 300), (150, 300), (300, 300)])
@pytest.mark.parametrize("delta", [0.01, 0.05, 0.5])
def test_the_interval_is_the_rates_that_are_not_refuted(k: int, n: int, delta: float) -> None:
    interval = confidence_interval(k, n, delta)
    grid = np.linspace(0, 1, 20_001)
    kept = grid[[log_wealth(k, n, float(rate)) < -math.log(delta) for rate in grid]]
    assert interval.low <= kept[0] <= interval.low + 1e-4
    assert interval.high - 1e-4 <= kept[-1] <= interval.high
    assert interval.low <= k / n <= interval.high


def test_no_rows_say_nothing() -> None:
    assert confidence_interval(0, 0, 0.05) == Interval(0.0, 1.0)
    assert audit_interval(0, 0, 0, 0.05) == Interval(0.0, 1.0)


def test_events_and_their_absence_mirror_each_other() -> None:
    some, rest = confidence_interval(7, 90, 0.05), confidence_interval(83, 90, 0.05)
    assert some.low == pytest.approx(1 - rest.high)
    assert some.high == pytest.approx(1 - rest.low)


def test_a_billion_rows_are_exact_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def counted(events: float, rows: float, rate: float) -> float:
        looks.append(rate)
        return log_wealth(events, rows, rate)

    monkeypatch.setattr(confidence_sequence, "log_wealth", counted)
    interval = confidence_interval(10**7, 10**9, 0.05)
    assert len(looks) < 200  # bisection halves an interval of floats
    # Laplace: the mixture is its density at the rate times the integral of the likelihood.
    variance = 0.01 * 0.99
    prior = 1 / (math.pi * math.sqrt(variance))  # density of the mixture at the rate
    reach = 2 * (math.log(1 / 0.05) - math.log(prior * math.sqrt(2 * math.pi * variance / 10**9)))
    half = math.sqrt(variance / 10**9 * reach)
    assert interval.low == pytest.approx(0.01 - half, abs=half / 500)
    assert interval.high == pytest.approx(0.01 + half, abs=half / 500)


@pytest.mark.parametrize(
    ("k", "n", "rate"), [(-1, 5, 0.5), (6, 5, 0.5), (1, 5, -0.1), (1, 5, 1.1), (1, 5, math.nan)]
)
def test_what_cannot_be_is_refused(k: int, n: int, rate: float) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        log_wealth(k, n, rate)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta is"):
        confidence_interval(0, 5, delta)


def test_verdicts() -> None:
    assert verdict_of(Interval(0.001, 0.009), 0.01) == HOLDS
    assert verdict_of(Interval(0.011, 0.02), 0.01) == BROKEN
    assert verdict_of(Interval(0.009, 0.02), 0.01) == UNDECIDED
    assert verdict_of(Interval(0.01, 0.02), 0.01) == UNDECIDED


def wealth_along(outcomes: np.ndarray, rate: float) -> np.ndarray:
    """Return the log wealth after every row of many streams; both have shape (streams, rows)."""
    n = np.arange(outcomes.shape[1])
    before = np.cumsum(outcomes, axis=1) - outcomes
    chance = (before + 0.5) / (n + 1)
    steps = np.where(outcomes, np.log(chance / rate), np.log((1 - chance) / (1 - rate)))
    return np.cumsum(steps, axis=1)


@pytest.mark.parametrize("rate", [0.01, 0.2])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_no_more_than_delta_of_the_streams_ever_see_a_false_alarm(
    rate: float, delta: float
) -> None:
    """The worst case: the rate is the limit, and there is a look after each of 20,000 rows."""
    outcomes = np.random.default_rng(0).random((500, 20_000)) < rate
    wealth = wealth_along(outcomes, rate)
    ever = (wealth >= -math.log(delta)).any(axis=1)
    assert 0 < ever.mean() <= delta
    # The verdicts agree with the wealth.
    for stream in range(20):
        refuted = wealth[stream] >= -math.log(delta)
        looks = np.concatenate([np.flatnonzero(refuted)[:20], [9, 99, 999, 19_999]])
        for n in looks:
            events = int(outcomes[stream, : n + 1].sum())
            assert log_wealth(events, n + 1, rate) == pytest.approx(wealth[stream, n], abs=1e-6)
            verdict = verdict_of(confidence_interval(events, int(n) + 1, delta), rate)
            assert (verdict != UNDECIDED) == refuted[n]


def test_a_drift_is_seen_by_nearly_every_stream_and_soon() -> None:
    """The limit is 1% and the rate 5%: 600 audited rows are enough."""
    outcomes = np.random.default_rng(1).random((500, 600)) < 0.05
    broken = wealth_along(outcomes, 0.01) >= math.log(20)
    assert broken.any(axis=1).mean() > 0.98


def test_lost_results_widen_the_interval_on_both_sides() -> None:
    known = audit_interval(990, 10, 0, 0.05)
    some = audit_interval(990, 10, 20, 0.05)
    assert some.low < known.low
    assert some.high > known.high
    assert some == Interval(
        confidence_interval(10, 1020, 0.05).low, confidence_interval(30, 1020, 0.05).high
    )


@pytest.mark.parametrize(
    ("agreed", "disagreed", "unknown"),
    [(0, 0, 0), (100, 0, 0), (398, 2, 0), (95, 5, 0), (95, 3, 2)],
)
def test_the_rows_that_it_takes_to_tell_are_enough_and_no_more(
    agreed: int, disagreed: int, unknown: int
) -> None:
    more = rows_to_tell(agreed, disagreed, unknown, 0.01, 0.05)
    assert more is not None
    rate = disagreed / max(1, agreed + disagreed)

    def verdict(extra: int) -> str:
        rows = agreed + disagreed + unknown + extra
        events = disagreed + rate * extra
        low = confidence_interval(events, rows, 0.05).low
        high = confidence_interval(min(rows, events + unknown), rows, 0.05).high
        return verdict_of(Interval(low, high), 0.01)

    assert verdict(more) != UNDECIDED
    assert more == 0 or verdict(more - 1) == UNDECIDED


def test_a_rate_at_the_limit_never_tells() -> None:
    assert rows_to_tell(990, 10, 0, 0.01, 0.05) is None
    assert rows_to_tell(10_000, 0, 0, 0.01, 0.05) == 0
    assert rows_to_tell(1, 0, 10**12, 0.01, 0.05) is None
