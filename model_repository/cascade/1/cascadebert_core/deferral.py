"""Deferred rows on their way to a stage: gathered across requests, run on a thread of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from .batching import bucket_of
from .errors import Unavailable
from .job import Row


class DeferralQueue:
    """Rows that wait for one stage, oldest first.

    It is bounded, though a put never waits: whoever is about to make rows for it waits for room
    first. So rows that were found sure are never held back, while the wait holds up `execute`,
    and further requests gather in the queue of Triton's scheduler.
    """

    def __init__(self, max_rows: int) -> None:
        """Hold `max_rows`, and what one call of the stage before may add to them."""
        self._max_rows = max_rows
        self._rows: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def wait_for_room(self) -> None:
        """Wait while the queue is full; a closed one makes nobody wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._rows) < self._max_rows)

    @property
    def empty(self) -> bool:
        """Whether no row waits at this moment."""
        return not self._rows

    def put(self, rows: Sequence[Row]) -> None:
        """Append rows.

        Raises:
            Unavailable: the queue is closed; the rows are not in it.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the cascade is unloading: send the request again")
            self._rows.extend(rows)
            self._changed.notify_all()

    def take(self, max_rows: int, buckets: Sequence[int]) -> list[Row]:
        """Wait for rows and remove those of the next call: the oldest, and what fits with it.

        Rows that would stretch the padding of the call stay for the next one, in which the
        oldest of them comes first.

        Returns:
            1 to `max_rows` rows; none once the queue is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._closed)
            if not self._rows:
                return []
            limit = bucket_of(_length(self._rows[0]), buckets)
            taken: list[Row] = []
            left: deque[Row] = deque()
            for row in self._rows:
                fits = len(taken) < max_rows and _length(row) <= limit
                (taken if fits else left).append(row)
            self._rows = left
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Refuse further rows; those that are in are still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class DeferralWorker:
    """Threads that carry the rows of a queue through a stage, each one call at a time.

    While a call runs, the rows deferred meanwhile gather into the next one: batches grow with
    the load, and a lone row never waits for company.
    """

    def __init__(
        self,
        queue: DeferralQueue,
        advance: Callable[[list[Row]], None],
        *,
        max_batch_size: int,
        buckets: Sequence[int],
        calls_in_flight: int,
        name: str,
    ) -> None:
        self._queue = queue
        self._advance = advance
        self._max_batch_size = max_batch_size
        self._buckets = buckets
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True)
            for i in range(calls_in_flight)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the closed queue is empty and its last rows are decided."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while rows := self._queue.take(self._max_batch_size, self._buckets):
            self._advance(rows)


def _length(row: Row) -> int:
    assert row.encoded is not None, "rows are encoded for a stage before they are queued for it"
    return len(row.encoded)
