"""When rows join the first stage's queue instead of running at once."""

from __future__ import annotations

from cascadebert_core.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_small_batches_run_at_once_and_leave_nothing_behind_them() -> None:
    admission = Admission(64, 1024, Clock())
    assert not any(admission.queues(rows, waiting=0) for rows in (1, 8, 32))


def test_once_a_second_batches_that_may_leave_others_behind_are_taken_in() -> None:
    clock = Clock()
    admission = Admission(64, 1024, clock)
    assert admission.queues(33, waiting=0)
    assert admission.queues(64, waiting=33)  # and what waited behind it
    assert not admission.queues(20, waiting=97)  # nothing does any more, and that was not much
    clock.now_s = 0.99
    assert not admission.queues(64, waiting=0)
    clock.now_s = 1.0
    assert admission.queues(64, waiting=0)


def test_under_overload_everything_passes_through_the_queue() -> None:
    clock = Clock()
    admission = Admission(64, 1024, clock)
    assert all(admission.queues(64, waiting=64 * i) for i in range(16))
    assert admission.queues(5, waiting=1000)
    assert admission.queues(64, waiting=600)
    assert not admission.queues(64, waiting=512)


def test_a_client_that_sends_one_request_at_a_time_has_no_company() -> None:
    admission = Admission(64, 1024, Clock())
    assert not admission.has_company()
    admission.saw(1, others=False)
    assert not admission.has_company()


def test_company_is_remembered_for_a_second() -> None:
    clock = Clock()
    for requests, others in ((2, False), (1, True)):
        admission = Admission(64, 1024, clock)
        admission.saw(requests, others)
        assert admission.has_company()
    clock.now_s += 0.9
    admission.saw(1, others=False)
    assert admission.has_company()
    clock.now_s += 0.1
    assert not admission.has_company()


def test_a_look_ends_when_it_has_taken_in_what_the_queue_may_hold() -> None:
    """Requests of many rows each fill more than half a batch, however few their callers."""
    clock = Clock()
    admission = Admission(64, 256, clock)
    taken_in = [admission.queues(64, waiting=0) for _ in range(10)]
    assert taken_in == [True] * 5 + [False] * 5
    clock.now_s = 1.0
    assert admission.queues(64, waiting=0)
