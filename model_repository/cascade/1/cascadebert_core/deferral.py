"""Rows on their way to a stage: gathered across requests, run on threads of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .errors import Unavailable
from .job import Row

# Of the rows that wait, by their tokens, oldest first: the indices of those that are taken, at
# least one.
Choose = Callable[[Sequence[int]], Iterable[int]]


class DeferralQueue:
    """Rows that wait for one stage, oldest first.

    It is bounded, and nobody waits for room: who finds it full decides at once what becomes of the
    rows. So the rows that were found sure are never held back by a stage that they do not need.
    """

    def __init__(self, max_rows: int) -> None:
        """Refuse rows while `max_rows` or more wait.

        The rows of one request are taken or refused together, so at most a request more may wait.
        """
        self._max_rows = max_rows
        self._rows: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Rows that wait at this moment."""
        return len(self._rows)

    def is_full(self) -> bool:
        """Whether rows would be refused at this moment."""
        with self._changed:
            if len(self._rows) >= self._max_rows:
                self._drop_ended()
            return len(self._rows) >= self._max_rows

    def offer(self, rows: Sequence[Row]) -> bool:
        """Append rows; False where the queue is full, and none of them is in it.

        Nobody is told before `tell`, so that the rows of several requests are taken together.

        Raises:
            Unavailable: the queue is closed; the rows are not in it.
        """
        with self._changed:
            if self._closed:
                raise Unavailable("the cascade is unloading: send the request again")
            if self.is_full():
                return False
            self._rows.extend(rows)
            return True

    def tell(self) -> None:
        """Wake a thread for the rows that were offered."""
        with self._changed:
            self._changed.notify()

    def take(self, choose: Choose) -> list[Row]:
        """Wait for rows and remove those of the next call; the others stay for a later one.

        Args:
            choose: which of those that wait.

        Returns:
            The chosen rows, oldest first; none once the queue is closed and empty.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._rows or self._closed)
                self._drop_ended()
                if self._rows:
                    break
                if self._closed:
                    return []
            rows = list(self._rows)
            chosen = set(choose([_length(row) for row in rows]))
            self._rows = deque(row for i, row in enumerate(rows) if i not in chosen)
            if self._rows:  # for another thread that waits
                self._changed.notify()
            return [rows[i] for i in sorted(chosen)]

    def _drop_ended(self) -> None:
        """Forget rows that nobody waits for any more."""
        if any(row.job.ended for row in self._rows):
            self._rows = deque(row for row in self._rows if not row.job.ended)

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
        on_error: Callable[[list[Row], Exception], None],
        *,
        choose: Choose,
        calls_in_flight: int,
        name: str,
    ) -> None:
        """Start the threads.

        Args:
            queue: to take from.
            advance: decides, queues or fails every row that it is given.
            on_error: given the rows of an `advance` that raised instead.
            choose: the rows of one `advance`.
            calls_in_flight: threads.
            name: of the threads.
        """
        self._queue = queue
        self._advance = advance
        self._on_error = on_error
        self._choose = choose
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True)
            for i in range(calls_in_flight)
        ]
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait until the closed queue is empty and its last rows are decided; False: not in time.

        A call that never returns keeps its thread, which ends with the process.
        """
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while rows := self._queue.take(self._choose):
            try:
                self._advance(rows)
            except Exception as exc:  # noqa: BLE001 - the thread must live on for the other rows
                self._on_error(rows, exc)


def _length(row: Row) -> int:
    assert row.encoded is not None, "rows are encoded for a stage before they are queued for it"
    return len(row.encoded)
