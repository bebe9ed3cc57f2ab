"""Deferred rows: gathered, bounded, never lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from cascadebert_core.deferral import DeferralQueue
from cascadebert_core.errors import Unavailable
from cascadebert_core.job import Job, Row
from cascadebert_core.route import route_from_thresholds
from cascadebert_core.tokenization import EncodedRow

BUCKETS = (4, 8, 16)


def make_rows(*lengths: int) -> list[Row]:
    """Rows of one job with so many tokens each."""
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
    queue.put(first)
    queue.put(second)
    assert queue.take(8, BUCKETS) == first + second


def test_longer_rows_wait_for_a_call_of_their_own_length() -> None:
    queue = DeferralQueue(100)
    queue.put(make_rows(3, 10, 4, 2))
    assert indices(queue.take(8, BUCKETS)) == [0, 2, 3]
    assert indices(queue.take(8, BUCKETS)) == [1]


def test_shorter_rows_ride_along_with_a_long_one() -> None:
    queue = DeferralQueue(100)
    queue.put(make_rows(10, 3))
    assert indices(queue.take(8, BUCKETS)) == [0, 1]


def test_a_call_takes_no_more_rows_than_the_stage_does() -> None:
    queue = DeferralQueue(100)
    queue.put(make_rows(*[3] * 5))
    assert indices(queue.take(2, BUCKETS)) == [0, 1]
    assert indices(queue.take(2, BUCKETS)) == [2, 3]


def wait_in_thread(queue: DeferralQueue) -> tuple[threading.Thread, threading.Event]:
    """A thread that waits for room; the event says that it found some."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (queue.wait_for_room(), done.set()))
    thread.start()
    return thread, done


def test_a_full_queue_makes_its_feeders_wait_until_there_is_room() -> None:
    queue = DeferralQueue(2)
    queue.wait_for_room()
    queue.put(make_rows(3, 3))
    thread, done = wait_in_thread(queue)
    assert not done.wait(0.1)
    assert len(queue.take(1, BUCKETS)) == 1
    assert done.wait(5)
    thread.join()


def test_a_put_never_waits_so_that_one_large_request_cannot_hang() -> None:
    queue = DeferralQueue(2)
    queue.put(make_rows(3, 3, 3))
    queue.put(make_rows(3))
    assert len(queue.take(8, BUCKETS)) == 4


def test_a_closed_queue_refuses_rows_and_gives_out_those_it_has() -> None:
    queue = DeferralQueue(10)
    queue.put(make_rows(3))
    queue.close()
    with pytest.raises(Unavailable, match="unloading"):
        queue.put(make_rows(3))
    assert len(queue.take(8, BUCKETS)) == 1
    assert queue.take(8, BUCKETS) == []


def test_closing_wakes_whoever_waits_for_room() -> None:
    queue = DeferralQueue(1)
    queue.put(make_rows(3))
    thread, done = wait_in_thread(queue)
    queue.close()
    thread.join(5)
    assert done.is_set()
