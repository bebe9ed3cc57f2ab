"""How long a stage takes, from the calls that it has answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

# Weight of the newest call in the moving averages: the last ten or so count.
_WEIGHT = 0.2
# What was measured longer ago may have been a hiccup: the next call is let through, and what it
# takes is what counts then.
_STALE_S = 2.0


class LatencyEstimator:
    """Moving averages of one stage's calls; threads measure at the same time."""

    def __init__(
        self,
        max_batch_size: int,
        calls_in_flight: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet.

        Args:
            max_batch_size: rows of one call at most.
            calls_in_flight: calls that may run at a time.
            clock: seconds that never run backwards.
        """
        self._max_batch_size = max_batch_size
        self._calls_in_flight = max(1, calls_in_flight)
        self._clock = clock
        self._lock = threading.Lock()
        self._call_s = 0.0
        self._row_s = 0.0
        self._running = 0
        self._measured_s: float | None = None

    @contextmanager
    def call(
        self, rows: int, instance: AbstractContextManager[object] | None = None
    ) -> Generator[None, None, None]:
        """Measure one call; one that raises teaches nothing.

        Args:
            rows: of the call.
            instance: held while the call runs; the wait for it is not measured.
        """
        with self._lock:
            self._running += 1
        try:
            with instance or nullcontext():
                started_s = self._clock()
                yield
                seconds = self._clock() - started_s
            self._learn(seconds, rows)
        finally:
            with self._lock:
                self._running -= 1

    @property
    def running(self) -> int:
        """Calls that run at this moment, or wait for an instance to do so."""
        return self._running

    def expected_s(self, waiting: int) -> float:
        """Seconds until a row that comes now would be answered.

        Args:
            waiting: rows before it.

        Returns:
            0 where nothing is known: before the first call, and where nobody waits for a stage
            that was not measured lately.
        """
        with self._lock:
            busy = self._running >= self._calls_in_flight
            if self._measured_s is None or (self._is_stale() and not waiting and not busy):
                return 0.0
            # Row by row, or in full calls at the pace of those of late, which were smaller perhaps.
            calls = -(-waiting // self._max_batch_size)
            ahead_s = min(waiting * self._row_s, calls * self._call_s) / self._calls_in_flight
            # Until a thread is free, the calls that run are half done on average.
            return ahead_s + (0.5 * self._call_s if busy else 0.0) + self._call_s

    def _learn(self, seconds: float, rows: int) -> None:
        with self._lock:
            weight = 1.0 if self._is_stale() else _WEIGHT
            self._call_s += weight * (seconds - self._call_s)
            self._row_s += weight * (seconds / rows - self._row_s)
            self._measured_s = self._clock()

    def _is_stale(self) -> bool:
        return self._measured_s is None or self._clock() - self._measured_s > _STALE_S
