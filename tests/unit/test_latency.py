"""What is expected of a stage, from the calls that it has answered."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cascadebert_core.latency import LatencyEstimator


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def measured(clock: Clock, latency: LatencyEstimator, seconds: float, rows: int) -> None:
    with latency.call(rows):
        clock.now_s += seconds


def test_nothing_is_expected_of_a_stage_that_was_never_asked() -> None:
    assert LatencyEstimator(8).expected_s(1000) == 0.0


def test_rows_that_wait_come_first_and_share_the_calls_that_run_at_a_time() -> None:
    clock = Clock()
    for calls, expected in ((1, 2.0 + 4.0), (2, 2.0 + 2.0)):
        latency = LatencyEstimator(4, calls, clock)
        measured(clock, latency, seconds=2.0, rows=4)
        assert latency.expected_s(0) == pytest.approx(2.0)
        assert latency.expected_s(8) == pytest.approx(expected)


def test_a_call_that_runs_is_waited_for() -> None:
    clock = Clock()
    latency = LatencyEstimator(8, 1, clock)
    measured(clock, latency, seconds=2.0, rows=1)
    with latency.call(1):
        assert latency.expected_s(0) == pytest.approx(3.0)


def test_the_wait_for_an_instance_is_not_the_calls_own_time() -> None:
    clock = Clock()
    latency = LatencyEstimator(8, 1, clock)

    @contextmanager
    def instance() -> Generator[None, None, None]:
        assert latency.running == 1
        clock.now_s += 5.0
        yield

    with latency.call(1, instance()):
        clock.now_s += 2.0
    assert latency.running == 0
    assert latency.expected_s(0) == pytest.approx(2.0)


def test_many_rows_wait_in_full_calls() -> None:
    """After calls of one row: a burst is not as many calls."""
    clock = Clock()
    latency = LatencyEstimator(8, 1, clock)
    measured(clock, latency, seconds=1.0, rows=1)
    assert latency.expected_s(80) == pytest.approx(10.0 + 1.0)


def test_the_newest_calls_count_most_and_one_that_raises_not_at_all() -> None:
    clock = Clock()
    latency = LatencyEstimator(8, 1, clock)
    measured(clock, latency, seconds=1.0, rows=1)
    for _ in range(30):
        measured(clock, latency, seconds=1.5, rows=1)
    assert latency.expected_s(0) == pytest.approx(1.5, rel=0.01)
    with pytest.raises(RuntimeError), latency.call(1):
        clock.now_s += 1.0
        raise RuntimeError
    assert latency.expected_s(0) == pytest.approx(1.5, rel=0.01)


def test_one_slow_call_rejects_requests_only_for_a_while() -> None:
    clock = Clock()
    latency = LatencyEstimator(8, 1, clock)
    measured(clock, latency, seconds=30.0, rows=1)
    assert latency.expected_s(0) == 30.0
    clock.now_s += 2.5
    assert latency.expected_s(0) == 0.0  # the next one is let through,
    assert latency.expected_s(1) == 60.0  # but not while others wait
    measured(clock, latency, seconds=0.1, rows=1)
    assert latency.expected_s(0) == pytest.approx(0.1)  # and what it takes is what counts


def test_a_call_that_never_returns_blocks_only_where_no_other_can_run() -> None:
    clock = Clock()
    one, two = LatencyEstimator(8, 1, clock), LatencyEstimator(8, 2, clock)
    hanging: list[AbstractContextManager[None]] = []  # without a reference they would end
    for latency in (one, two):
        measured(clock, latency, seconds=5.0, rows=1)
        hanging.append(latency.call(1))
        hanging[-1].__enter__()
    clock.now_s += 100.0
    assert two.expected_s(0) == 0.0
    assert one.expected_s(0) == 7.5
