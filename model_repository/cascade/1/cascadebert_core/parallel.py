"""Several calls of one stage at a time, as many as it has instances."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor


class ParallelCalls:
    """Threads that take calls in turn; the caller's own is one of them.

    A single call runs where it is asked for: no thread is woken, and nothing is waited for.
    """

    def __init__(self, limit: int, name: str) -> None:
        """Start no thread before it is needed.

        Args:
            limit: calls at a time, at least 1.
            name: of the threads.
        """
        self.limit = max(1, limit)
        self._pool = (
            ThreadPoolExecutor(self.limit - 1, thread_name_prefix=name) if self.limit > 1 else None
        )

    def run(self, calls: Sequence[Callable[[], None]]) -> None:
        """Run calls, in their order as threads are free; back when all have ended.

        Args:
            calls: that do not raise.
        """
        turns = _Turns(iter(calls))
        helpers = min(self.limit, len(calls)) - 1
        futures = [self._pool.submit(turns.take) for _ in range(helpers)] if self._pool else []
        turns.take()
        for future in futures:
            # One that waits for its turn behind another caller's has nothing to do any more.
            if not future.cancel():
                future.result()

    def close(self) -> None:
        """End the threads once they are idle; a call that hangs keeps its own."""
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
