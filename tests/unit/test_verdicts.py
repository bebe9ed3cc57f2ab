"""What is said if a cascade does not pay, and what is not said if it does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from cascadebert_build.evaluation.costs import Cost, RowCosts
from cascadebert_build.evaluation.intervals import difference_interval, share_interval
from cascadebert_build.evaluation.metrics import Interval
from cascadebert_build.evaluation.promises import BROKEN, KEPT, UNDECIDED, promise_on_rows
from cascadebert_build.evaluation.verdicts import (
    COSTS_MORE,
    IDLE_STAGE,
    NOT_SHOWN_FASTER,
    OUT_OF_ORDER,
    SMALLER_AS_ACCURATE,
    MemberFacts,
    PointFacts,
    speed_in_words,
    verdicts_of,
)
from cascadebert_core.guarantee import ACCURACY_DROP, DISAGREEMENT, Guarantee


def cost_of(share: float, spread: float = 0.0) -> Cost:
    low, high = share * (1 - spread), share * (1 + spread)
    return Cost(Interval(10 * share, 10 * low, 10 * high), Interval(share, low, high), share)


def members(*shares: float, behind: float = 0.05, n: int = 1000) -> list[MemberFacts]:
    """Members whose accuracy is `behind` below the last one's, which is 90%."""
    return [
        MemberFacts(
            f"m{i}",
            cost_of(share),
            0.9 - (behind if i < len(shares) - 1 else 0),
            difference_interval(round(behind * n) if i < len(shares) - 1 else 0, 0, n),
            n,
        )
        for i, share in enumerate(shares)
    ]


def kinds(found: object) -> list[tuple[str, str]]:
    assert isinstance(found, tuple)
    return [(verdict.kind, verdict.subject) for verdict in found]


def test_a_cascade_that_pays_gets_no_warning() -> None:
    points = [PointFacts("fast", (0.8, 0.2), cost_of(0.5, 0.05))]
    assert verdicts_of(members(0.3, 1.0), points) == ()
    assert verdicts_of(members(1.0), []) == ()


def test_a_point_that_costs_more_is_named_with_what_would_help() -> None:
    points = [
        PointFacts("fast", (0.8, 0.2), cost_of(0.6, 0.02)),
        PointFacts("accurate", (0.2, 0.8), cost_of(1.2, 0.02)),
    ]
    (found,) = verdicts_of(members(0.4, 1.0), points)
    assert (found.kind, found.subject) == (COSTS_MORE, "accurate")
    assert "1.20 times the time (1.18 to 1.22)" in found.text
    # It has to answer 40% of the rows to pay for itself, and it answers 20%.
    assert "40%" in found.help
    assert "20%" in found.help
    assert "serve m1 alone" in found.help
    assert found.to_json() == {
        "kind": COSTS_MORE, "subject": "accurate", "text": found.text, "help": found.help,
    }  # fmt: skip
    # Of a first member that is as slow as the last, no threshold helps.
    (slow,) = verdicts_of(members(1.1, 1.0), points[1:])
    assert "no threshold" in slow.help
    assert "goal" not in slow.help


def test_a_gain_within_the_spread_is_not_shown() -> None:
    point = PointFacts("fast", (0.6, 0.4), cost_of(0.94, 0.1))
    (found,) = verdicts_of(members(0.5, 1.0), [point])
    assert (found.kind, found.subject) == (NOT_SHOWN_FASTER, "fast")
    assert "0.94 times the time" in found.text
    assert "0.85 to 1.03" in found.text
    assert "tune --force" in found.help


@pytest.mark.parametrize(
    ("lost", "won", "n", "as_accurate"),
    [
        (50, 10, 1000, False),  # 4 points
        (10, 10, 1000, True),  # equal
        (5, 40, 1000, True),  # the smaller one is better
        (3, 0, 200, False),  # 1.5 points, perhaps more
        (30, 10, 20_000, True),  # shown to be at most 0.3 points
        (0, 0, 20, True),  # the same answers
    ],
)
def test_a_smaller_member_that_is_as_accurate(
    lost: int, won: int, n: int, as_accurate: bool
) -> None:
    behind = difference_interval(lost, won, n)
    facts = [
        MemberFacts("small", cost_of(0.3), 0.9 - behind.value, behind, n),
        MemberFacts("large", cost_of(1.0), 0.9, difference_interval(0, 0, n), n),
    ]
    found = verdicts_of(facts, [PointFacts("p", (0.8, 0.2), cost_of(0.5))])
    assert kinds(found) == ([(SMALLER_AS_ACCURATE, "small")] if as_accurate else [])


def test_without_labels_nothing_is_said_about_accuracy() -> None:
    facts = [MemberFacts("small", cost_of(0.3)), MemberFacts("large", cost_of(1.0))]
    assert verdicts_of(facts, [PointFacts("p", (0.8, 0.2), cost_of(0.5))]) == ()


def test_a_middle_stage_that_answers_next_to_nothing() -> None:
    three = members(0.2, 0.5, 1.0)
    cost = cost_of(0.6)
    points = [
        PointFacts("idle", (0.7, 0.01, 0.29), cost),
        PointFacts("unreached", (1.0, 0.0, 0.0), cost),
    ]
    (found,) = verdicts_of(three, points)
    assert (found.kind, found.subject) == (IDLE_STAGE, "m1")
    assert "1.0% of the rows at idle (30.0% reach it)" in found.text
    assert "unreached" in found.text
    # 4% of all rows are many if 8% reach the stage.
    busy = PointFacts("busy", (0.92, 0.04, 0.04), cost)
    assert verdicts_of(three, [busy]) == ()
    (found,) = verdicts_of(three, [*points, busy])
    assert "busy" not in found.text
    assert "only these operating points" in found.help


def test_members_that_are_given_large_first_get_one_warning() -> None:
    points = [
        PointFacts("fast", (0.8, 0.2), cost_of(3.2)),
        PointFacts("accurate", (0.0, 1.0), cost_of(4.1)),
    ]
    (found,) = verdicts_of(members(3.1, 1.0, behind=-0.05), points)
    assert (found.kind, found.subject) == (OUT_OF_ORDER, "m1")
    assert "m1 takes 32% of m0's time" in found.text
    assert "--member" in found.help
    # Of three members the middle one may be in the wrong place.
    (found,) = verdicts_of(members(0.5, 0.2, 1.0), [])
    assert "m1 takes 40% of m0's time" in found.text


def test_speed_has_its_spread_and_slow_is_said() -> None:
    assert speed_in_words(cost_of(0.5)) == "2.00 times faster than the last member alone"
    assert speed_in_words(cost_of(0.5, 0.1)).endswith("alone (1.82 to 2.22)")
    assert speed_in_words(cost_of(1.25)).startswith("SLOWER than the last member alone: 1.25")


def test_costs_of_rows_are_sums_over_the_stages_with_the_spread_of_paired_repeats() -> None:
    ms = np.array([[1.0, 4.0], [2.0, 8.0]])
    # The second repeat was disturbed: both stages took twice as long.
    costs = RowCosts(ms, np.stack([ms, 2.0 * ms]), 1e6 * ms)
    alone = costs.alone(0)
    assert (alone.ms.value, alone.ms.low, alone.ms.high) == (1.5, 1.5, 3.0)
    assert (alone.share.low, alone.share.value, alone.share.high) == (0.25, 0.25, 0.25)
    cascade = costs.of_exits(np.array([0, 1]))
    assert cascade.ms.value == (1 + 10) / 2
    assert cascade.share.value == cascade.computations == pytest.approx(11 / 12)
    assert cascade.speedup.value == pytest.approx(12 / 11)
    # A row without an answer ran through all stages.
    assert costs.of_exits(np.array([-1, -1])) == costs.of_exits(np.array([1, 1]))
    of_first = costs.take(np.array([0])).of_exits(np.array([1]))
    assert of_first.ms == Interval(5.0, 5.0, 10.0)
    once = RowCosts(ms).of_exits(np.array([0, 0]))
    assert once.ms == Interval(1.5, 1.5, 1.5)
    assert once.computations is None


def test_intervals_are_right_at_zero_events() -> None:
    none = share_interval(0, 200)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 200))
    assert share_interval(200, 200).low == pytest.approx(0.025 ** (1 / 200))
    for events in range(0, 21, 5):
        exact = binomtest(events, 20).proportion_ci(confidence_level=0.9, method="exact")
        found = share_interval(events, 20, 0.9)
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    same = difference_interval(0, 0, 200)
    assert same.low == -same.high
    assert 0.015 < same.high < 0.025
    for lost, won in ((7, 3), (0, 9), (100, 0), (0, 100), (50, 50)):
        found = difference_interval(lost, won, 100)
        assert -1 <= found.low <= found.value == (lost - won) / 100 <= found.high <= 1
        assert found.low < found.high


@pytest.mark.parametrize(("up", "down"), [(0.06, 0.02), (0.01, 0.01), (0.3, 0.3)])
def test_an_interval_covers_the_truth(up: float, down: float) -> None:
    n = 100
    rng = np.random.default_rng(0)
    missed = 0
    for more, less, _ in rng.multinomial(n, [up, down, 1 - up - down], size=400).tolist():
        found = difference_interval(more, less, n)
        missed += not found.low <= up - down <= found.high
    assert missed <= 0.05 * 400


@pytest.mark.parametrize(
    ("lost", "n", "verdict"),
    [(0, 200, KEPT), (0, 100, UNDECIDED), (4, 200, UNDECIDED), (20, 200, BROKEN)],
)
def test_a_promise_is_kept_broken_or_undecided(lost: int, n: int, verdict: str) -> None:
    losses = np.repeat([1, 0], [lost, n - lost])
    found = promise_on_rows(Guarantee(DISAGREEMENT, 0.02, 0.95), losses)
    assert found.verdict == verdict
    assert found.rows == n
    assert found.observed.low <= lost / n < found.observed.high
    assert str(found).startswith(verdict)


def test_an_accuracy_drop_counts_what_is_won() -> None:
    losses = np.repeat([1, -1, 0], [30, 30, 9940])
    assert promise_on_rows(Guarantee(ACCURACY_DROP, 0.01, 0.95), losses).verdict == KEPT
    losses = np.repeat([1, -1, 0], [300, 30, 9670])
    assert promise_on_rows(Guarantee(ACCURACY_DROP, 0.01, 0.95), losses).verdict == BROKEN
    assert "points" in str(promise_on_rows(Guarantee(ACCURACY_DROP, 0.5, 0.9), losses))
