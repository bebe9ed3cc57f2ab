"""What is expected of a stage, from the calls that it has answered."""

from __future__ import annotations

import pytest

from cascadebert_core.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def measured(clock: Clock, pace: Pace, seconds: float, rows: int) -> None:
    with pace.call(rows):
        clock.now_s += seconds


def test_nothing_is_expected_of_a_stage_that_was_never_asked() -> None:
    assert Pace().expected_s(1000) == 0.0


def test_rows_that_wait_come_first_and_share_the_calls_that_run_at_a_time() -> None:
    clock = Clock()
    for calls, expected in ((1, 2.0 + 4.0), (2, 2.0 + 2.0)):
        pace = Pace(calls, clock)
        measured(clock, pace, seconds=2.0, rows=4)
        assert pace.expected_s(0) == pytest.approx(2.0)
        assert pace.expected_s(8) == pytest.approx(expected)


def test_a_call_that_runs_is_waited_for() -> None:
    clock = Clock()
    pace = Pace(1, clock)
    measured(clock, pace, seconds=2.0, rows=1)
    with pace.call(1):
        assert pace.expected_s(0) == pytest.approx(3.0)


def test_the_newest_calls_count_most_and_one_that_raises_not_at_all() -> None:
    clock = Clock()
    pace = Pace(1, clock)
    measured(clock, pace, seconds=1.0, rows=1)
    for _ in range(30):
        measured(clock, pace, seconds=3.0, rows=1)
    assert pace.expected_s(0) == pytest.approx(3.0, rel=0.01)
    with pytest.raises(RuntimeError), pace.call(1):
        clock.now_s += 1000
        raise RuntimeError
    assert pace.expected_s(0) == pytest.approx(3.0, rel=0.01) or pace.expected_s(0) == 0.0
    assert pace.expected_s(1) > 3.0


def test_what_was_measured_long_ago_refuses_nobody() -> None:
    clock = Clock()
    pace = Pace(1, clock)
    measured(clock, pace, seconds=30.0, rows=1)
    assert pace.expected_s(0) == 30.0
    clock.now_s += 11.0
    assert pace.expected_s(0) == 0.0
    assert pace.expected_s(1) == 60.0  # but not while others wait
