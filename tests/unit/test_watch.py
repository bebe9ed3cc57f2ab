"""Rounds of probes, and when they say that a server is broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from cascadebert_supervisor.probe import Probe, ProbeResult
from cascadebert_supervisor.repository import ServedCascade
from cascadebert_supervisor.watch import FailureCount, Watch
from tests.support.waiting import wait_until

ONE = ServedCascade("one", ("small",), pair=False)
TWO = ServedCascade("two", ("small",), pair=False)


class ScriptedProbe:
    """Results by cascade; the last one repeats."""

    def __init__(self, unready: int = 0, **results: str) -> None:
        """Take a letter for each probe: `.` works, `x` does not."""
        self.unready = unready
        self.results = {name: list(letters) for name, letters in results.items()}
        self.asked = 0

    def ready(self) -> bool:
        self.unready -= 1
        return self.unready < 0

    def classify(self, cascade: ServedCascade) -> ProbeResult:
        self.asked += 1
        left = self.results[cascade.name]
        ok = (left.pop(0) if len(left) > 1 else left[0]) == "."
        return ProbeResult(ok, "" if ok else "silent", 0.0)


def watch(
    probe: ScriptedProbe,
    cascades: Callable[[], Sequence[ServedCascade]] = lambda: [ONE],
    failures: int = 2,
    **options: float,
) -> Watch:
    started = Watch(
        cast("Probe", probe),
        cascades,
        interval_s=0.001,
        failures=failures,
        **options,  # pyright: ignore[reportArgumentType]
    )
    started.start()
    return started


def verdict(running: Watch) -> str:
    deadline_s = time.monotonic() + 10
    while running.verdict is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    return running.verdict


def test_only_failures_in_a_row_count() -> None:
    count = FailureCount()
    assert [count.add("a", ok=ok) for ok in (False, False, True, False)] == [1, 2, 0, 1]
    assert count.add("b", ok=False) == 1


def test_the_limit_of_failures_in_a_row_is_the_verdict() -> None:
    probe = ScriptedProbe(one="x.x.xx.")
    assert verdict(watch(probe)) == "one does not answer (2 probes in a row: silent)"
    assert probe.asked == 6


def test_every_broken_cascade_is_named() -> None:
    said = verdict(watch(ScriptedProbe(one="x", two="x"), lambda: [ONE, TWO]))
    assert "one does not answer" in said
    assert "two does not answer" in said


@pytest.mark.parametrize(("script", "probes"), [("x", 1), (".xx", 3)])
def test_after_a_recovery_the_first_probe_decides(script: str, probes: int) -> None:
    probe = ScriptedProbe(one=script)
    assert "one does not answer" in verdict(watch(probe, first_failures=1))
    assert probe.asked == probes


def test_no_probe_is_sent_before_the_server_is_ready() -> None:
    probe = ScriptedProbe(unready=5, one="x")
    running = watch(probe, start_timeout_s=10.0)
    verdict(running)
    assert running.ready
    assert probe.unready < 0
    never = watch(ScriptedProbe(unready=10**9, one="x"), start_timeout_s=0.01)
    assert "not ready after 0.01 s" in verdict(never)
    assert not never.ready


def test_a_watch_that_fails_says_so() -> None:
    def cascades() -> list[ServedCascade]:
        raise LookupError("no list")

    assert "LookupError: no list" in verdict(watch(ScriptedProbe(one="."), cascades))


def test_a_stopped_watch_has_no_verdict() -> None:
    asked: list[Watch] = []

    def cascades() -> list[ServedCascade]:
        while not asked:
            time.sleep(0.001)
        asked[0].stop()
        return [ONE]

    running = watch(ScriptedProbe(one="x"), cascades, failures=1)
    asked.append(running)
    running._thread.join(10)
    assert running.verdict is None


def test_a_hurried_watch_needs_as_many_failures_and_no_interval() -> None:
    probe = ScriptedProbe(one="..xxx")
    started = Watch(cast("Probe", probe), lambda: [ONE], interval_s=3600, failures=3)
    started.start()
    wait_until(lambda: probe.asked == 1)
    started.hurry()
    assert verdict(started).startswith("one does not answer (3 probes in a row")
    assert probe.asked == 5


def test_a_hurried_watch_of_a_healthy_server_calms_down() -> None:
    probe = ScriptedProbe(one=".")
    started = Watch(cast("Probe", probe), lambda: [ONE], interval_s=3600, failures=2)
    started.start()
    wait_until(lambda: probe.asked == 1)
    started.hurry()
    wait_until(lambda: probe.asked >= 4)
    assert started.verdict is None
    started.stop()
