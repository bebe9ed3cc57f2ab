"""Concurrent calls of one stage, as many as it has instances."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue


class Instances:
    """A stage's instances; a `with` block holds one, and waits until one is free.

    A queue of tickets in C costs a fifth of `threading.BoundedSemaphore`, which is Python.
    """

    __slots__ = ("_free",)

    def __init__(self, number: int) -> None:
        """Make all of them free."""
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)

    def __enter__(self) -> None:
        """Take an instance."""
        self._free.get()

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._free.put(None)


class ParallelCalls:
    """A pool of threads for calls; the thread that asks for calls takes part in them.

    A single call runs on that thread alone, without waking another.
    """

    def __init__(self, limit: int, name: str) -> None:
        """Make the pool; it starts a thread when it first needs one.

        Args:
            limit: The most concurrent calls of one `run`, at least 1.
            name: The prefix of the threads' names.
        """
        self.limit = max(1, limit)
        self._pool = (
            ThreadPoolExecutor(self.limit - 1, thread_name_prefix=name) if self.limit > 1 else None
        )

    def run(self, calls: Sequence[Callable[[], None]]) -> None:
        """Start calls in their order, as threads become free, and return when all have ended.

        Args:
            calls: Functions that do not raise.
        """
        if len(calls) == 1:
            calls[0]()
            return
        turns = _Turns(iter(calls))
        helpers = min(self.limit, len(calls)) - 1
        futures = [self._pool.submit(turns.take) for _ in range(helpers)] if self._pool else []
        turns.take()
        for future in futures:
            # A helper that has not started yet has nothing left to do.
            if not future.cancel():
                future.result()

    def close(self) -> None:
        """Let the threads end when they are idle; a call that hangs keeps its thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class _Turns:
    def __init__(self, calls: Iterator[Callable[[], None]]) -> None:
        self._calls = calls
        self._lock = threading.Lock()

    def take(self) -> None:
        while True:
            with self._lock:
                call = next(self._calls, None)
            if call is None:
                return
            call()
