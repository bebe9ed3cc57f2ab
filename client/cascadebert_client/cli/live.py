"""Answers to rows that come slowly, as from a pipe: each is sent as soon as it is there."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from .._interrupts import next_of, result_of
from .._rows import Row
from .._types import Classification


class _Waiting:
    """Rows that were read and not yet sent. Thread-safe."""

    def __init__(self, most: int):
        self._most = most
        self._rows: deque[Row] = deque()
        self._ended = False
        self._changed = threading.Condition()

    def put(self, row: Row) -> bool:
        """Add a row when there is room; False if the rest is not wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._rows) < self._most)
            if self._ended:
                return False
            self._rows.append(row)
            self._changed.notify_all()
            return True

    def end(self, *, now: bool = False) -> None:
        """No row follows; `now` also drops those that wait."""
        with self._changed:
            self._ended = True
            if now:
                self._rows.clear()
            self._changed.notify_all()

    def take(self, most: int) -> list[Row]:
        """Return the rows that wait, at least one; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._rows)
            taken = [self._rows.popleft() for _ in range(min(most, len(self._rows)))]
            self._changed.notify_all()
            return taken


def answers_to_slow_rows(
    rows: Iterator[Row],
    classify: Callable[[list[Row]], list[Classification]],
    *,
    rows_per_request: int,
    max_concurrency: int,
    stop: Callable[[], None],
) -> Generator[list[Classification], None, None]:
    """Yield the answers of one request after the other, in the order of the rows.

    While fewer than `max_concurrency` requests are in flight, a row waits for no other row. Then
    rows gather, up to `rows_per_request` in a request.

    Args:
        rows: The rows. They are read in a thread.
        classify: Sends one request. It is called in threads.
        rows_per_request: The most rows in one request.
        max_concurrency: The most requests in flight.
        stop: Ends a wait for the next row, and the requests in flight.

    Raises:
        Exception: What `rows` or `classify` raises, after the answers to the rows before it.
    """
    waiting = _Waiting(rows_per_request * max_concurrency)
    slots = threading.Semaphore(max_concurrency)
    answers: SimpleQueue[Future[list[Classification]] | None] = SimpleQueue()
    failures: list[Exception] = []
    ended = threading.Event()

    def read() -> None:
        try:
            for row in rows:
                if not waiting.put(row):
                    return
        except Exception as exc:  # noqa: BLE001 - it is raised in the caller's thread
            failures.append(exc)
        finally:
            waiting.end()

    def send() -> None:
        while slots.acquire() and not ended.is_set():
            batch = waiting.take(rows_per_request)
            if not batch:
                break
            answers.put(threads.submit(classify, batch))
        answers.put(None)

    # Two threads more: the reader's and the sender's.
    threads = ThreadPoolExecutor(max_concurrency + 2, thread_name_prefix="cascadebert")
    try:
        reader = threads.submit(read)
        threads.submit(send)
        while (future := next_of(answers)) is not None:
            yield result_of(future)
            slots.release()
        reader.result()
        if failures:
            raise failures[0]
    finally:
        ended.set()
        waiting.end(now=True)
        slots.release()
        with contextlib.suppress(OSError):
            stop()
        threads.shutdown(cancel_futures=True)
