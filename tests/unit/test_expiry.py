"""Jobs are ended when their time is up, and not kept beyond their own end."""

from __future__ import annotations

import threading
import time

from cascadebert_core.errors import Unavailable
from cascadebert_core.expiry import ExpiryTimer
from cascadebert_core.job import Job
from cascadebert_core.route import route_from_thresholds


def make_job() -> Job:
    return Job(["x"], route_from_thresholds((0.5,)), n_labels=2)


def test_jobs_are_ended_in_the_order_of_their_deadlines() -> None:
    expired: list[Job] = []
    last = threading.Event()

    def expire(job: Job) -> None:
        expired.append(job)
        job.fail(Unavailable("time is up"))
        if len(expired) == 2:
            last.set()

    timer = ExpiryTimer(expire)
    now_s = time.monotonic()
    late, soon, answered = make_job(), make_job(), make_job()
    timer.watch(late, now_s + 0.2)
    timer.watch(answered, now_s + 0.1)
    timer.watch(soon, now_s + 0.05)
    answered.fail(Unavailable("ended before"))
    assert last.wait(10)
    assert time.monotonic() >= now_s + 0.2
    assert expired == [soon, late]
    assert timer.stop() == []


def test_stopping_hands_back_what_has_not_ended() -> None:
    timer = ExpiryTimer(lambda job: job.fail(Unavailable("never")))
    open_job, ended = make_job(), make_job()
    for job in (open_job, ended):
        timer.watch(job, time.monotonic() + 1000)
    ended.fail(Unavailable("by itself"))
    assert timer.stop() == [open_job]
    assert open_job.error is None


def test_jobs_that_have_ended_are_not_kept_until_they_are_due() -> None:
    timer = ExpiryTimer(lambda job: None)
    far_s = time.monotonic() + 1000
    for _ in range(5000):
        job = make_job()
        timer.watch(job, far_s)
        job.fail(Unavailable("by itself"))
    assert len(timer._heap) <= 65  # memory is the point
    timer.stop()


def test_the_timer_outlives_an_end_that_raises() -> None:
    ended = threading.Event()
    first, second = make_job(), make_job()

    def expire(job: Job) -> None:
        if job is first:
            raise RuntimeError("cannot be ended")
        ended.set()

    timer = ExpiryTimer(expire)
    timer.watch(first, time.monotonic())
    timer.watch(second, time.monotonic() + 0.05)
    assert ended.wait(10)
    timer.stop()


def test_a_deadline_in_centuries_does_not_end_the_timer() -> None:
    """A caller may ask for it: the parameter has 64 bits of microseconds."""
    ended, waiting = threading.Event(), threading.Event()
    timer = ExpiryTimer(lambda job: ended.set())
    wait = timer._changed.wait

    def waits(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(timeout)

    timer._changed.wait = waits
    timer.watch(make_job(), time.monotonic() + 2**63 * 1e-6)
    assert waiting.wait(10)
    timer.watch(make_job(), time.monotonic() + 0.05)
    assert ended.wait(10)
    timer.stop()
