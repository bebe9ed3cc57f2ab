"""The queue of a stage: rows of many requests, which threads run in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

from .errors import Unavailable
from .job import Row

# Takes the tokens of each queued row, oldest first; two rows at least, as a single row is no
# choice. Returns the indices of the rows to run next, at least one.
Choose = Callable[[Sequence[int]], Iterable[int]]


class DeferralQueue:
    """Rows that wait for one stage, oldest first.

    The queue is bounded. When it is full, rows are refused immediately: a thread that waited for
    room would hold up rows that do not need this stage.

    Attributes:
        max_rows: The limit.
    """

    def __init__(self, max_rows: int) -> None:
        """Make an empty queue.

        Args:
            max_rows: While as many rows or more are queued, rows are refused. The rows of one
                request are accepted or refused together, so the queue may exceed this by one
                request.
        """
        self.max_rows = max_rows
        self._rows: deque[Row] = deque()
        self._closed = False
        self._lock = threading.Lock()
        # Holds one item if there may be something to do and no thread has been told. A queue in C
        # wakes a thread at a fraction of the price of `threading.Condition`, which is Python.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._told = False

    def __len__(self) -> int:
        """Return how many rows are queued."""
        return len(self._rows)

    def is_full(self) -> bool:
        """Return whether rows would be refused now."""
        if len(self._rows) < self.max_rows:
            return False
        with self._lock:
            return self._is_full()

    def offer(self, rows: Sequence[Row]) -> bool:
        """Append rows, without waking a thread; `notify` does so for rows of several requests.

        Returns:
            Whether the rows were accepted; if not, the queue is full and has none of them.

        Raises:
            Unavailable: The queue is closed; it has none of the rows.
        """
        with self._lock:
            if self._closed:
                raise Unavailable("the cascade is unloading: send the request again")
            if self._is_full():
                return False
            self._rows.extend(rows)
            return True

    def notify(self) -> None:
        """Wake a thread for the rows that were appended."""
        with self._lock:
            self._wake()

    def take(self, choose: Choose) -> list[Row]:
        """Wait for rows and remove those of the next call.

        Args:
            choose: Chooses these rows; the others stay for a later call.

        Returns:
            The chosen rows, oldest first; an empty list once the queue is closed and empty.
        """
        while True:
            with self._lock:
                chosen = self._take(choose)
                if self._rows or self._closed:  # something is left for another thread
                    self._wake()
                if chosen or self._closed:
                    return chosen
            self._wakes.get()
            self._told = False

    def close(self) -> None:
        """Refuse further rows; queued rows are still taken."""
        with self._lock:
            self._closed = True
            self._wake()

    def _take(self, choose: Choose) -> list[Row]:
        """Remove the rows of the next call, under the lock; return no rows if none waits."""
        rows = [row for row in self._rows if not row.job.ended]
        if len(rows) < 2:  # there is no choice
            self._rows.clear()
            return rows
        chosen = set(choose([_length(row) for row in rows]))
        self._rows = deque(row for i, row in enumerate(rows) if i not in chosen)
        return [rows[i] for i in sorted(chosen)]

    def _wake(self) -> None:
        """Wake a thread, under the lock, unless one has been told already."""
        if not self._told:
            self._told = True
            self._wakes.put(None)

    def _is_full(self) -> bool:
        """Return whether the queue is full, under the lock, of rows whose jobs have not ended."""
        if len(self._rows) >= self.max_rows:
            self._rows = deque(row for row in self._rows if not row.job.ended)
        return len(self._rows) >= self.max_rows


class DeferralWorker:
    """Threads that run the rows of a queue, each thread one call at a time.

    Rows that are queued while a call runs form the next call. So batches grow with the load, and a
    single row never waits for others.
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
            queue: The queue to take rows from.
            advance: Decides, queues or fails each of the rows that it gets.
            on_error: Gets the rows if `advance` raises.
            choose: Chooses the rows of one call.
            calls_in_flight: The number of threads.
            name: The prefix of the threads' names.
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
        """Wait until the closed queue is empty and its last rows are decided.

        The thread of a call that never returns is left to end with the process.

        Returns:
            Whether all threads have ended in time.
        """
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while rows := self._queue.take(self._choose):
            try:
                self._advance(rows)
            except Exception as exc:  # noqa: BLE001 - the thread must continue for the other rows
                self._on_error(rows, exc)


def _length(row: Row) -> int:
    assert row.encoded is not None, "rows are encoded for a stage before they are queued for it"
    return len(row.encoded)
