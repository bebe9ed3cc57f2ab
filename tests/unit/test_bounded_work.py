"""Full queues, deadlines and failing stages: errors, or answers that are marked as degraded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cascadebert_core.deadlines
from cascadebert_core.batching import StageBatch
from cascadebert_core.errors import Cancelled, DeadlineExceeded, InternalError, Unavailable
from cascadebert_core.job import Job
from cascadebert_core.policy import Policy
from tests.support.plain_cascade import Bench, Recorder, by_words
from tests.support.policies import make_policy, write_tokenizer
from tests.support.waiting import wait_until


class Blocked:
    """Stages of which one waits for `release` in each call."""

    def __init__(self, stage: int = 1) -> None:
        self.release = threading.Event()
        self.entered = threading.Event()
        self._stage = stage

    def __call__(self, stage: int, batch: StageBatch) -> np.ndarray:
        if stage == self._stage:
            self.entered.set()
            assert self.release.wait(20)
        return by_words(min(stage, 1), batch)


def limited(degrade: bool, max_queued_rows: int = 2, **changes: object) -> Policy:
    policy = make_policy(0.9)
    stages = tuple(replace(stage, max_queued_rows=max_queued_rows) for stage in policy.stages)
    return replace(policy, stages=stages, degrade=degrade, **changes)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    write_tokenizer(tmp_path)
    made: list[Bench] = []

    def build(policy: Policy, run: Callable[[int, StageBatch], np.ndarray] = by_words) -> Bench:
        made.append(Bench(tmp_path, policy, run))
        return made[-1]

    yield build
    for bench in made:
        bench.cascade.close()


def begin(bench: Bench, *jobs: Job) -> None:
    """Begin jobs without waiting for them."""
    bench.cascade.begin(jobs, lambda job: lambda _: None)


def fill(bench: Bench, stages: Blocked) -> list[Job]:
    """Begin a job that the second stage runs, and two that wait for it."""
    jobs = [bench.job("not good") for _ in range(3)]
    begin(bench, jobs[0])
    assert stages.entered.wait(10)
    begin(bench, jobs[1])
    begin(bench, jobs[2])
    assert bench.cascade.queued_rows() == [0, 2]
    return jobs


def test_when_a_queue_is_full_only_requests_that_need_it_are_rejected(
    make: Callable[..., Bench],
) -> None:
    stages = Blocked()
    bench = make(limited(degrade=False), stages)
    accepted = fill(bench, stages)
    refused, mixed, sure = bench.job("not bad"), bench.job("good", "not bad"), bench.job("good")
    assert bench.begin(refused, mixed, sure) == [True, True, True]
    for job in (refused, mixed):
        assert isinstance(job.error, Unavailable)
        assert "stage 1 (test_1) has 2 rows waiting" in str(job.error)
    assert sure.error is None
    assert sure.exit_stage[0] == 0
    stages.release.set()
    wait_until(lambda: all(job.ended for job in accepted))
    assert [job.exit_stage[0] for job in accepted] == [1, 1, 1]
    assert not any(job.degraded.any() for job in accepted)
    assert bench.recorder.n_began == bench.recorder.n_ended == 6


def test_if_the_policy_allows_it_the_best_answer_so_far_is_given(
    make: Callable[..., Bench],
) -> None:
    stages = Blocked()
    bench = make(limited(degrade=True), stages)
    accepted = fill(bench, stages)
    mixed = bench.job("good", "not bad", "very good")
    assert bench.begin(mixed) == [True]
    assert mixed.error is None
    assert mixed.degraded.tolist() == [False, True, False]
    assert mixed.exit_stage.tolist() == [0, 0, 0]
    assert mixed.confidence[1] < 0.9
    assert mixed.confidence[1] == mixed.probabilities[1].max()
    assert bench.recorder.degraded_by == {"overload": 1}
    stages.release.set()
    wait_until(lambda: all(job.ended for job in accepted))
    assert bench.recorder.exits == {0: 2, 1: 3}  # a degraded row is not an exit


def test_a_row_that_was_degraded_is_not_sent_on(make: Callable[..., Bench]) -> None:
    """Other rows of its request may still be on their way, so the request has not ended."""
    stages = Blocked()
    bench = make(limited(degrade=True, max_queued_rows=1), stages)
    # More than half of what Triton hands over: it joins the first stage's queue, and passes it in
    # calls of 8 rows. The second stage is at one of them, and another may fill its queue.
    job = bench.job(*["not good"] * 40)
    begin(bench, job)
    wait_until(lambda: int(job.degraded.sum()) + bench.cascade.queued_rows()[1] + 8 == 40)
    assert not job.ended
    degraded = job.degraded.copy()
    stages.release.set()
    wait_until(lambda: job.ended)
    assert job.error is None
    assert (job.degraded == degraded).all()
    assert job.exit_stage.tolist() == np.where(degraded, 0, 1).tolist()


def test_a_request_for_one_stage_never_gets_anothers_answer(make: Callable[..., Bench]) -> None:
    stages = Blocked()
    bench = make(limited(degrade=True), stages)
    fill(bench, stages)
    forced = bench.job("good", stage=1)
    assert bench.begin(forced) == [True]
    assert isinstance(forced.error, Unavailable)
    stages.release.set()


def test_the_most_confident_of_several_stages_answers(make: Callable[..., Bench]) -> None:
    policy = replace(make_policy(0.999, 0.999), degrade=True)

    for surer in (0, 1):

        def run(stage: int, batch: StageBatch, surer: int = surer) -> np.ndarray:
            if stage == 2:
                raise Unavailable("the model is unloaded")
            sure = 2.0 if stage == surer else 0.5
            return np.full((batch.shape[0], 2), [-sure, sure], np.float32)

        bench = make(policy, run)
        job = bench.job("good")
        bench.begin(job)
        assert job.degraded.tolist() == [True]
        assert job.exit_stage.tolist() == [surer]
        assert bench.recorder.degraded_by == {"fault": 1}


@pytest.mark.parametrize("degrade", [False, True])
def test_a_stage_that_fails(make: Callable[..., Bench], degrade: bool) -> None:
    def broken(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            raise Unavailable("the model is unloaded")
        return by_words(stage, batch)

    bench = make(limited(degrade=degrade), broken)
    job = bench.job("good", "not good")
    bench.begin(job)
    if degrade:
        assert job.error is None
        assert job.degraded.tolist() == [False, True]
        assert bench.recorder.degraded_by == {"fault": 1}
    else:
        assert isinstance(job.error, Unavailable)
    first = make(limited(degrade=degrade), lambda s, b: np.zeros((1, 1), np.float32))
    nothing_to_fall_back_on = first.job("good")
    first.begin(nothing_to_fall_back_on)
    assert isinstance(nothing_to_fall_back_on.error, InternalError)


def test_requests_end_at_their_deadline_although_a_stage_hangs(make: Callable[..., Bench]) -> None:
    for degrade in (False, True):
        stages = Blocked()
        bench = make(limited(degrade=degrade, max_queued_rows=100), stages)
        due_s = time.monotonic() + 0.3
        jobs = [bench.job("good", "not good", deadline_s=due_s) for _ in range(5)]
        bench.begin(*jobs)
        if degrade:
            assert time.monotonic() < due_s + 5  # in time, unless the machine is busy
            assert [job.degraded.tolist() for job in jobs] == [[False, True]] * 5
            assert bench.recorder.degraded_by == {"deadline": 5}
        else:
            assert all(isinstance(job.error, DeadlineExceeded) for job in jobs)
            assert all("request timeout expired" in str(job.error) for job in jobs)
        # The hanging call returns; its answers come too late.
        stages.release.set()
        answered = bench.job("not bad")
        bench.begin(answered)
        assert answered.exit_stage[0] == 1
        assert bench.recorder.n_began == bench.recorder.n_ended == 6


def test_a_request_without_a_deadline_has_the_policys(make: Callable[..., Bench]) -> None:
    stages = Blocked()
    bench = make(limited(degrade=False, request_timeout_s=0.2), stages)
    job = bench.job("not good")
    bench.begin(job)
    assert isinstance(job.error, DeadlineExceeded)
    assert "request_timeout_s, 0.2 s" in str(job.error)
    stages.release.set()


@pytest.mark.parametrize("degrade", [False, True])
def test_a_deadline_that_the_next_stage_cannot_meet_costs_no_call(
    make: Callable[..., Bench], degrade: bool
) -> None:
    def slow(stage: int, batch: StageBatch) -> np.ndarray:
        if stage == 1:
            time.sleep(0.3)
        return by_words(stage, batch)

    bench = make(limited(degrade=degrade), slow)
    patient = bench.job("not good")
    bench.begin(patient)
    assert patient.exit_stage[0] == 1
    hasty = bench.job("not good", deadline_s=time.monotonic() + 0.2)
    assert bench.begin(hasty) == [True]
    if degrade:
        assert hasty.degraded.all()
        assert bench.recorder.degraded_by == {"deadline": 1}
    else:
        assert isinstance(hasty.error, DeadlineExceeded)
        assert "stage 1 (test_1) would answer in about 0." in str(hasty.error)
    assert [stage for stage, _, _ in bench.calls] == [0, 1, 0]


def test_a_cancelled_request_costs_no_further_call(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascadebert_core.deadlines, "_CHECK_CANCELLED_AFTER_S", 0.0)
    stages = Blocked()
    bench = make(limited(degrade=True, max_queued_rows=100), stages)
    first, cancelled, other = (bench.job("not good") for _ in range(3))
    begin(bench, first)
    assert stages.entered.wait(10)

    def callback(job: Job) -> Callable[[Job], None]:
        job.cancelled = lambda: job is cancelled
        return lambda _: None

    bench.cascade.begin([cancelled, other], callback)
    stages.release.set()
    wait_until(lambda: cancelled.ended and other.ended)
    assert isinstance(cancelled.error, Cancelled)
    assert other.exit_stage[0] == 1
    assert sum(rows for stage, rows, _ in bench.calls if stage == 1) == 2


def test_a_flood_fills_the_first_stages_queue_and_is_then_rejected(
    make: Callable[..., Bench],
) -> None:
    stages = Blocked(stage=0)
    bench = make(limited(degrade=True, max_queued_rows=40), stages)
    ended: list[Job] = []
    flood = [bench.job(*["good"] * 8) for _ in range(8)]
    for job in flood:
        # The largest batch that Triton passes: more may wait behind it.
        bench.cascade.begin(
            [job, *(bench.job(*["good"] * 8) for _ in range(6))], lambda _: ended.append
        )
    refused = [job for job in flood if job.ended]
    assert refused
    assert all(isinstance(job.error, Unavailable) for job in refused)
    assert bench.cascade.queued_rows()[0] <= 48
    stages.release.set()
    wait_until(lambda: all(job.ended for job in flood))
    assert all(job.error is None for job in flood if job not in refused)
    wait_until(lambda: bench.recorder.n_began == bench.recorder.n_ended)
    # Afterwards rows run at once again.
    assert bench.begin(bench.job("good")) == [True]


def test_closing_ends_what_a_hanging_stage_holds(make: Callable[..., Bench]) -> None:
    stages = Blocked()
    bench = make(limited(degrade=False), stages)
    jobs = fill(bench, stages)
    bench.cascade.close(timeout_s=0.1)
    assert all(isinstance(job.error, Unavailable) for job in jobs)
    assert all("unloading" in str(job.error) for job in jobs)
    stages.release.set()


def test_a_call_that_fails_after_some_of_its_rows_were_decided(make: Callable[..., Bench]) -> None:
    """The decided rows keep their answers, and no row is decided twice."""
    for degrade in (False, True):
        bench = make(limited(degrade=degrade, max_queued_rows=100))
        recorder = bench.recorder

        def fail_once(
            stage: int, seconds: Sequence[float], rows: Sequence[int], recorder: Recorder = recorder
        ) -> None:
            recorder.answered = Recorder.answered.__get__(recorder)
            raise MemoryError

        recorder.answered = fail_once
        job = bench.job("good", "not good", "bad")
        assert bench.begin(job) == [True]
        # No answer of the deferred row was kept yet, so it cannot be degraded.
        assert isinstance(job.error, InternalError)
        assert job.exit_stage.tolist() == [0, -1, 0]
        again = bench.job("good", "not good")
        bench.begin(again)
        assert again.exit_stage.tolist() == [0, 1]


def test_what_cannot_be_degraded_has_all_of_its_time(make: Callable[..., Bench]) -> None:
    stages = Blocked()
    bench = make(limited(degrade=True, max_queued_rows=100), stages)
    due_s = time.monotonic() + 0.5
    forced = bench.job("good", stage=1, deadline_s=due_s)
    bench.begin(forced)
    assert time.monotonic() >= due_s
    assert isinstance(forced.error, DeadlineExceeded)
    stages.release.set()


def test_rows_of_ended_requests_leave_the_queue(make: Callable[..., Bench]) -> None:
    stages = Blocked()
    bench = make(limited(degrade=False, max_queued_rows=2), stages)
    _, *waiting = fill(bench, stages)
    for job in waiting:
        job.fail(Cancelled("gone"))
    late = bench.job("not bad")
    begin(bench, late)
    assert late.error is None
    stages.release.set()
    wait_until(lambda: late.ended)
    assert late.exit_stage[0] == 1
    assert sum(rows for stage, rows, _ in bench.calls if stage == 1) == 2
