"""Audits in the background of a cascade over stages that are plain functions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cascadebert_core.audit
from cascadebert_core.audit import Auditor
from cascadebert_core.batching import StageBatch
from cascadebert_core.confidence_sequence import (
    BROKEN,
    HOLDS,
    UNDECIDED,
    audit_interval,
    verdict_of,
)
from cascadebert_core.errors import Unavailable
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from cascadebert_core.route import route_from_thresholds
from cascadebert_core.stage import RunStage
from cascadebert_core.tokenization import Text
from tests.support.plain_cascade import Bench, Recorder, by_words
from tests.support.policies import make_policy, write_tokenizer
from tests.support.waiting import wait_until

# Ids of tests.support.policies.
NOT, VERY = 8, 9


def contrary(stage: int, batch: StageBatch) -> np.ndarray:
    """As `by_words`, but the last stage turns what it reads with a "very"."""
    logits = by_words(stage, batch)
    very = (batch.tensors["input_ids"] == VERY).any(axis=1)
    return np.where(very[:, None] & (stage > 0), -logits, logits)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    monkeypatch.setattr(cascadebert_core.audit, "_REST", 0.0)
    monkeypatch.setattr(cascadebert_core.audit, "_POLL_S", 0.001)
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(policy: Policy | None = None, run: RunStage = contrary) -> Bench:
        made.append(Bench(tmp_path, policy or make_policy(0.9, audit_rate=1.0), run))
        return made[-1]

    yield build
    for bench in made:
        bench.cascade.close()


def wait_for(recorder: Recorder, rows: int, point: str = "default") -> dict[str, int]:
    """Return the counts of an operating point, once they are of `rows` rows."""

    def found() -> dict[str, int]:
        audits = dict(recorder.audits)
        return {result: n for (name, result), n in audits.items() if name == point and n}

    wait_until(lambda: sum(found().values()) >= rows)
    assert sum(found().values()) == rows
    return found()


def test_every_row_is_compared_with_the_last_stage(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.begin(bench.job("good"), bench.job("very good", "not good"), bench.job("not very good"))
    # The first agrees, the second does not, the others were answered by the last stage itself.
    assert wait_for(bench.recorder, 4) == {"agreed": 3, "disagreed": 1}
    assert sum(rows for stage, rows, _ in bench.calls if stage == 1) == 2 + 2
    assert bench.recorder.exits == {0: 2, 1: 2}  # audits are no answers


def test_nothing_is_audited_unless_the_policy_says_so(make: Callable[..., Bench]) -> None:
    bench = make(make_policy(0.9))
    before = threading.active_count()
    bench.begin(bench.job("very good", "not good"))
    bench.cascade.close()
    assert not bench.recorder.audits
    assert [stage for stage, _, _ in bench.calls] == [0, 1]
    assert threading.active_count() <= before


def test_only_rows_of_an_operating_point_are_covered(make: Callable[..., Bench]) -> None:
    policy = replace(
        make_policy(0.9, audit_rate=1.0), operating_points={"default": (0.9,), "fast": (0.0,)}
    )
    bench = make(policy)
    for parameters in ({"threshold": 0.9}, {"stage": 0}, {"stage": 1}):
        bench.begin(bench.job("very good", **parameters))
    bench.begin(bench.job("not good", operating_point="fast"), bench.job("good"))
    assert wait_for(bench.recorder, 1, "fast") == {"disagreed": 1}
    assert wait_for(bench.recorder, 1) == {"agreed": 1}


def test_rows_that_leave_a_middle_stage_are_audited_too(make: Callable[..., Bench]) -> None:
    bench = make(
        make_policy(0.9, 0.9, audit_rate=1.0),
        lambda stage, batch: -by_words(1, batch) if stage == 2 else by_words(stage, batch),
    )
    bench.begin(bench.job("not good"))
    assert wait_for(bench.recorder, 1) == {"disagreed": 1}


def test_a_cascade_of_one_stage_agrees_with_itself(make: Callable[..., Bench]) -> None:
    bench = make(make_policy(audit_rate=1.0))
    bench.begin(bench.job("good", "bad"))
    assert wait_for(bench.recorder, 2) == {"agreed": 2}
    assert [stage for stage, _, _ in bench.calls] == [0]


def test_the_share_of_the_rows_is_the_rate_and_differs_from_load_to_load(
    make: Callable[..., Bench],
) -> None:
    shares: list[list[bool]] = []
    for _ in range(2):
        recorder = Recorder()
        auditor = Auditor(0.2, lambda t: np.zeros(len(t), int), observer=recorder, may_run=bool)
        route = route_from_thresholds((0.9,), "default")
        jobs = [Job(["a"], route, 2) for _ in range(4000)]
        for job in jobs:
            auditor.draw(job)
        auditor.stop()
        auditor.join()
        shares.append([bool(job.listeners) for job in jobs])
        assert 0.16 < np.mean(shares[-1]) < 0.24  # six standard deviations
    assert shares[0] != shares[1]


def test_answers_do_not_wait_for_an_audit(make: Callable[..., Bench]) -> None:
    release, auditing = threading.Event(), threading.Event()

    def slow_audits(stage: int, batch: StageBatch) -> np.ndarray:
        # Rows without a "not" come to the last stage only for their audit.
        if stage == 1 and not (batch.tensors["input_ids"] == NOT).any():
            auditing.set()
            assert release.wait(10)
        return contrary(stage, batch)

    bench = make(run=slow_audits)
    bench.begin(bench.job("good"))
    assert auditing.wait(10)
    for _ in range(50):
        sure, unsure = bench.job("good"), bench.job("not good")
        assert bench.begin(sure, unsure) == [True, False]  # waits for both answers
    assert not bench.recorder.audits
    release.set()
    assert wait_for(bench.recorder, 101) == {"agreed": 101}


def test_audits_leave_the_stage_to_rows_that_wait_for_it(make: Callable[..., Bench]) -> None:
    first_call, release = threading.Event(), threading.Event()

    def held(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1 and not first_call.is_set():
            first_call.set()
            assert release.wait(10)
        return contrary(stage, batch)

    bench = make(run=held)
    checks = 0
    queued_rows = bench.cascade.queued_rows

    def counted() -> list[int]:
        nonlocal checks
        checks += 1
        return queued_rows()

    bench.cascade.queued_rows = counted
    ended: list[Job] = []
    unsure = [bench.job("not good") for _ in range(9)]
    bench.cascade.begin([unsure[0]], lambda job: ended.append)
    assert first_call.wait(10)
    # Drawn, decided, and behind rows that wait for the only thread of the last stage.
    bench.cascade.begin(unsure[1:], lambda job: ended.append)
    bench.begin(bench.job("good", "good"))
    before = checks
    wait_until(lambda: checks > before + 5)
    assert [rows for stage, rows, _ in bench.calls if stage == 1] == [1]
    release.set()
    assert wait_for(bench.recorder, 11) == {"agreed": 11}
    assert [rows for stage, rows, _ in bench.calls if stage == 1] == [1, 8, 2]


def test_calls_are_small_and_results_come_in_the_order_of_the_rows(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    told: list[int] = []
    counted = bench.recorder.audited

    def record(operating_point: str, agreed: int, disagreed: int) -> None:
        told.append(disagreed)
        counted(operating_point, agreed, disagreed)

    bench.recorder.audited = record
    # Eight that disagree, which take time, and then ones that agree at once.
    bench.begin(bench.job(*["very good"] * 8, *["not good"] * 8))
    assert wait_for(bench.recorder, 16) == {"agreed": 8, "disagreed": 8}
    # The first call may begin before all rows of the request are marked as decided.
    assert 1 <= max(told) <= 4
    assert sorted(told, key=bool, reverse=True) == told


def draw_rows(auditor: Auditor, n: int, *, exit_stage: int) -> list[Job]:
    jobs: list[Job] = []
    for _ in range(n):
        job = Job(["a"], route_from_thresholds((0.9,), "default"), 2)
        auditor.draw(job)
        jobs.append(job)
    for job in jobs:
        confident = np.array([[0.0, 1.0]], np.float32)
        job.settle(np.array([0]), confident, np.ones(1, np.float32), exit_stage)
    return jobs


@pytest.mark.parametrize("exit_stage", [0, 1])
def test_a_full_queue_drops_rows_wherever_they_exit(exit_stage: int) -> None:
    """Early exits wait and late ones do not; what is dropped must not depend on it."""
    recorder, free = Recorder(), threading.Event()
    auditor = Auditor(
        1.0,
        lambda texts: np.ones(len(texts), int),
        observer=recorder,
        may_run=free.is_set,
        max_waiting=10,
    )
    draw_rows(auditor, 25, exit_stage=exit_stage)
    assert wait_for(recorder, 15) == {"dropped": 15}
    free.set()
    assert wait_for(recorder, 25) == {"dropped": 15, "agreed": 10}
    draw_rows(auditor, 5, exit_stage=exit_stage)
    assert wait_for(recorder, 30) == {"dropped": 15, "agreed": 15}
    auditor.stop()
    auditor.join()


def test_a_failing_audit_is_counted_and_touches_no_request(make: Callable[..., Bench]) -> None:
    def broken(stage: int, batch: StageBatch) -> np.ndarray:
        ids = batch.tensors["input_ids"]
        if stage == 1 and not (ids == NOT).any():
            raise Unavailable("out of memory")
        return contrary(stage, batch)

    bench = make(run=broken)
    jobs = [bench.job("good"), bench.job("not good"), bench.job("very good")]
    bench.begin(*jobs)
    assert wait_for(bench.recorder, 3) == {"agreed": 1, "failed": 2}
    assert all(job.error is None for job in jobs)
    bench.begin(bench.job("not good"))  # the thread lives on
    assert wait_for(bench.recorder, 4) == {"agreed": 2, "failed": 2}


def test_logits_that_are_not_finite_are_no_disagreement(make: Callable[..., Bench]) -> None:
    def spoiled(stage: int, batch: StageBatch) -> np.ndarray:
        logits = contrary(stage, batch)
        return np.full_like(logits, np.nan) if stage == 1 else logits

    bench = make(run=spoiled)
    bench.begin(bench.job("good"))
    assert wait_for(bench.recorder, 1) == {"failed": 1}


def test_rows_without_an_answer_are_unknown_and_not_lost(make: Callable[..., Bench]) -> None:
    def broken(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1 and (batch.tensors["input_ids"] == NOT).any():
            raise Unavailable("out of memory")
        return contrary(stage, batch)

    bench = make(run=broken)
    failed, late = bench.job("good", "not good"), bench.job("good", deadline_s=0.0)
    bench.begin(failed, late)
    assert failed.error is not None
    assert late.error is not None
    bench.begin(bench.job("good"))
    # Deferred rows time out before others: left out, they would take agreements with them.
    assert wait_for(bench.recorder, 4) == {"agreed": 1, "failed": 3}


def test_an_observer_that_fails_ends_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    counted = bench.recorder.audited
    failed = threading.Event()

    def flaky(operating_point: str, agreed: int, disagreed: int) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("shared memory is used up")
        counted(operating_point, agreed, disagreed)

    bench.recorder.audited = flaky
    bench.begin(bench.job("good"))
    assert failed.wait(10)
    bench.begin(bench.job("good"))
    assert wait_for(bench.recorder, 1) == {"agreed": 1}


def test_closing_waits_for_the_call_that_runs_and_for_no_other(make: Callable[..., Bench]) -> None:
    auditing, release = threading.Event(), threading.Event()

    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            auditing.set()
            assert release.wait(10)
        return contrary(stage, batch)

    bench = make(run=slow)
    bench.begin(bench.job(*["good"] * 60))
    assert auditing.wait(10)
    threading.Timer(0.1, release.set).start()
    bench.cascade.close()
    # Of 60 rows a call takes four at most, and fewer where it begins before the others are queued.
    (audited,) = [rows for stage, rows, _ in bench.calls if stage == 1]
    assert 1 <= audited <= 4
    assert not [t for t in threading.enumerate() if t.name == "audit" and t.is_alive()]


def test_a_drift_is_seen_and_its_absence_too(make: Callable[..., Bench]) -> None:
    """Traffic that disagrees once in 500 rows, then once in ten; the guarantee is once in 100."""
    bench = make()
    delta, limit = 0.05, 0.01

    def serve(rows: int, every: int) -> str:
        before = sum(bench.recorder.audits.values())
        texts = ["very good" if i % every == every - 1 else "not good" for i in range(rows)]
        for start in range(0, rows, 50):
            bench.begin(bench.job(*texts[start : start + 50]))
        counts = wait_for(bench.recorder, before + rows)
        interval = audit_interval(counts["agreed"], counts.get("disagreed", 0), 0, delta)
        return verdict_of(interval, limit)

    assert serve(100, 500) == UNDECIDED
    assert serve(2900, 500) == HOLDS
    assert serve(1500, 10) == BROKEN


def test_what_is_audited_is_a_fair_sample_also_where_much_is_dropped() -> None:
    """Three rows of ten exit early and are wrong. They alone take time to audit."""
    recorder = Recorder()

    def slowly_zero(texts: list[Text]) -> np.ndarray:
        time.sleep(0.0005)
        return np.zeros(len(texts), int)

    auditor = Auditor(0.5, slowly_zero, observer=recorder, may_run=lambda: True, max_waiting=12)
    early = np.random.default_rng(0).random(20_000) < 0.3
    for start in range(0, len(early), 10):
        for exits in early[start : start + 10]:
            draw_rows(auditor, 1, exit_stage=0 if exits else 1)
        time.sleep(0.0005)
    auditor.stop()
    auditor.join()
    counts = {result: n for (_, result), n in recorder.audits.items()}
    audited = counts["agreed"] + counts["disagreed"]
    assert counts["dropped"] > 500
    assert audited > 500
    five_deviations = 5 * (0.3 * 0.7 / audited) ** 0.5
    assert counts["disagreed"] / audited == pytest.approx(0.3, abs=five_deviations)


def test_a_long_time_without_drift_raises_no_alarm(make: Callable[..., Bench]) -> None:
    """The rate is exactly the guaranteed one; a test looks after each 60 of 6,000 rows."""
    bench = make(make_policy(0.9, audit_rate=0.5))
    disagrees = np.random.default_rng(4).random(6000) < 0.05
    alarms = 0
    for start in range(0, 6000, 60):
        bench.begin(bench.job(*np.where(disagrees[start : start + 60], "very good", "not good")))
        counts = dict(bench.recorder.audits)
        agreed, disagreed = (counts.get(("default", r), 0) for r in ("agreed", "disagreed"))
        alarms += verdict_of(audit_interval(agreed, disagreed, 0, 0.001), 0.05) == BROKEN
    assert alarms == 0
    assert sum(bench.recorder.audits.values()) > 2000
