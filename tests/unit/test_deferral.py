"""Deferred rows: gathered, bounded, never lost."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cascadebert_core.batching import CallLimits, next_call
from cascadebert_core.deferral import DeferralQueue, DeferralWorker
from cascadebert_core.errors import Unavailable
from cascadebert_core.job import Job, Row
from cascadebert_core.policy import ONE_CALL
from cascadebert_core.route import route_from_thresholds
from cascadebert_core.tokenization import EncodedRow

LIMITS = CallLimits(buckets=(4, 8, 16), max_rows=8, max_tokens=ONE_CALL, call_tokens=ONE_CALL)
together = partial(next_call, limits=LIMITS)


def make_rows(*lengths: int) -> list[Row]:
    """Make rows of one job with these numbers of tokens."""
    job = Job(["x"] * len(lengths), route_from_thresholds((0.5,)), n_labels=2)
    rows = job.rows()
    for row, length in zip(rows, lengths, strict=True):
        ids = np.zeros(length, np.int32)
        row.encoded = EncodedRow(ids, ids, truncated=False)
    return rows


def indices(rows: list[Row]) -> list[int]:
    return [row.index for row in rows]


def test_rows_of_different_requests_share_a_call_oldest_first() -> None:
    queue = DeferralQueue(100)
    first, second = make_rows(3), make_rows(4, 2)
    queue.offer(first)
    queue.offer(second)
    assert queue.take(together) == first + second


def test_longer_rows_wait_for_a_call_of_their_own_length() -> None:
    queue = DeferralQueue(100)
    queue.offer(make_rows(3, 10, 4, 2))
    assert indices(queue.take(together)) == [0, 2, 3]
    assert indices(queue.take(together)) == [1]


def test_shorter_rows_ride_along_with_a_long_one() -> None:
    queue = DeferralQueue(100)
    queue.offer(make_rows(10, 3))
    assert indices(queue.take(together)) == [0, 1]


def test_a_call_takes_no_more_rows_than_the_stage_does() -> None:
    queue = DeferralQueue(100)
    queue.offer(make_rows(*[3] * 5))
    two = partial(next_call, limits=replace(LIMITS, max_rows=2))
    assert indices(queue.take(two)) == [0, 1]
    assert indices(queue.take(two)) == [2, 3]


def test_what_is_cheaper_in_a_call_of_its_own_waits_for_it() -> None:
    queue = DeferralQueue(100)
    queue.offer(make_rows(10, 3, 12, 2))
    cheap = partial(next_call, limits=replace(LIMITS, call_tokens=0))
    assert indices(queue.take(cheap)) == [0, 2]
    assert indices(queue.take(cheap)) == [1, 3]


def test_rows_of_several_calls_are_taken_one_call_at_a_time_the_oldest_first() -> None:
    queue = DeferralQueue(100)
    queue.offer(make_rows(*[10] * 7))
    small = partial(next_call, limits=replace(LIMITS, max_tokens=50))  # three rows of 16 tokens
    assert indices(queue.take(small)) == [0, 1]  # of 2, 2 and 3
    assert indices(queue.take(small)) == [2, 3]
    assert indices(queue.take(small)) == [4, 5, 6]


def test_a_full_queue_refuses_a_request_whole() -> None:
    queue = DeferralQueue(2)
    assert queue.offer(make_rows(3))
    assert not queue.is_full()
    assert queue.offer(make_rows(3, 3))  # a request is never split, so that one larger than the
    assert queue.is_full()  # queue may pass too
    assert not queue.offer(make_rows(3))
    assert len(queue) == 3
    assert len(queue.take(together)) == 3
    assert queue.offer(make_rows(3))


def test_a_closed_queue_refuses_rows_and_gives_out_those_it_has() -> None:
    queue = DeferralQueue(10)
    queue.offer(make_rows(3))
    queue.close()
    with pytest.raises(Unavailable, match="unloading"):
        queue.offer(make_rows(3))
    assert len(queue.take(together)) == 1
    assert queue.take(together) == []


def test_closing_wakes_a_thread_that_waits_for_rows() -> None:
    queue = DeferralQueue(1)
    taken: list[list[Row]] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(together)))
    thread.start()
    queue.close()
    thread.join(5)
    assert taken == [[]]


def test_a_worker_continues_when_a_call_raises() -> None:
    queue = DeferralQueue(10)
    failed: list[tuple[list[Row], Exception]] = []
    passed: list[Row] = []

    def advance(rows: list[Row]) -> None:
        if rows[0].encoded is not None and len(rows[0].encoded) == 3:
            raise MemoryError("of the thread, not of a stage")
        passed.extend(rows)

    worker = DeferralWorker(
        queue,
        advance,
        lambda rows, exc: failed.append((rows, exc)),
        choose=together,
        calls_in_flight=1,
        name="test",
    )
    bad, good = make_rows(3), make_rows(8)
    queue.offer(bad)
    queue.offer(good)
    queue.close()
    assert worker.join(5)
    assert [rows for rows, _ in failed] == [bad]
    assert isinstance(failed[0][1], MemoryError)
    assert passed == good


def test_a_worker_that_hangs_is_not_waited_for() -> None:
    queue = DeferralQueue(10)
    release = threading.Event()

    def hang(rows: list[Row]) -> None:
        release.wait(10)

    worker = DeferralWorker(
        queue,
        hang,
        lambda rows, exc: None,
        choose=together,
        calls_in_flight=1,
        name="test",
    )
    queue.offer(make_rows(3))
    queue.close()
    assert not worker.join(0.05)
    release.set()
    assert worker.join(5)
