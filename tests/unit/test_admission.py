"""When rows join the first stage's queue instead of running at once."""

from __future__ import annotations

import pytest

from cascadebert_core.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def at_once(admission: Admission, rows: int, queued_rows: int = 0, *, fills: bool = True) -> bool:
    return admission.runs_at_once(rows, queued_rows, lambda: fills)


def test_small_batches_run_at_once() -> None:
    admission = Admission(64, 1024, Clock())
    assert all(at_once(admission, rows) for rows in (1, 8, 32))


def test_the_timeline_of_the_docstring() -> None:
    clock = Clock()
    admission = Admission(64, 1024, clock)
    for now_s, rows, queued_rows, expected in (
        (0.0, 33, 0, False),
        (0.01, 64, 33, False),
        (0.02, 20, 97, True),
        (0.99, 64, 0, True),
        (1.0, 64, 0, False),
        (1.01, 8, 600, False),
        (1.2, 8, 512, True),
    ):
        clock.now_s = now_s
        assert at_once(admission, rows, queued_rows) is expected, now_s


def test_under_overload_all_rows_pass_through_the_queue() -> None:
    admission = Admission(64, 1024, Clock())
    assert not any(at_once(admission, 64, 64 * i) for i in range(16))
    assert not at_once(admission, 5, 1000)
    assert not at_once(admission, 64, 600)
    assert at_once(admission, 64, 512)


def test_a_probe_ends_when_it_has_taken_as_many_rows_as_the_queue_holds() -> None:
    """Requests of many rows each fill more than half a batch, however few clients send them."""
    clock = Clock()
    admission = Admission(64, 256, clock)
    assert [at_once(admission, 64) for _ in range(10)] == [False] * 5 + [True] * 5
    clock.now_s = 1.0
    assert not at_once(admission, 64)


def test_a_client_that_sends_one_request_at_a_time_is_never_queued() -> None:
    admission = Admission(64, 1024, Clock())
    for _ in range(2):
        assert at_once(admission, 1, fills=False)
        admission.arrived(1, others_running=False)


@pytest.mark.parametrize(("requests", "others_running"), [(2, False), (1, True)])
def test_while_requests_are_concurrent_only_rows_for_all_instances_run_at_once(
    requests: int, others_running: bool
) -> None:
    clock = Clock()
    admission = Admission(64, 1024, clock)
    admission.arrived(requests, others_running)
    clock.now_s = 0.9
    admission.arrived(1, others_running=False)
    assert not at_once(admission, 1, fills=False)
    assert at_once(admission, 1, fills=True)
    clock.now_s = 1.0
    assert at_once(admission, 1, fills=False)
