"""An estimate of how long a stage takes, from its calls so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

# Weight of the newest call in the moving averages: about the last ten calls count.
_WEIGHT = 0.2
# An estimate older than this is not trusted, since the last call may have been an outlier: the next
# call is let through, and its time replaces the averages.
_STALE_S = 2.0


class LatencyEstimator:
    """Moving averages over the calls of one stage; threads may measure at the same time.

    Attributes:
        clock: Returns seconds and never runs backwards.
        running: Calls that run now or wait for an instance.
    """

    def __init__(
        self,
        max_batch_size: int,
        calls_in_flight: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without measurements.

        Args:
            max_batch_size: The most rows in one call.
            calls_in_flight: The most concurrent calls.
            clock: Returns seconds and never runs backwards.
        """
        self._max_batch_size = max_batch_size
        self._calls_in_flight = max(1, calls_in_flight)
        self.clock = clock
        self._lock = threading.Lock()
        self._call_s = 0.0
        self._row_s = 0.0
        self.running = 0
        self._measured_s: float | None = None

    def call(self, rows: int, instance: AbstractContextManager[object] | None = None) -> _Call:
        """Measure one call in a `with` statement, unless it raises.

        Args:
            rows: The rows of the call.
            instance: Held while the call runs. The wait for it is not measured.
        """
        return _Call(self, rows, instance or nullcontext())

    def expected_s(self, waiting: int) -> float:
        """Estimate the seconds until a row that is queued now is answered.

        Args:
            waiting: Rows in the queue before it.

        Returns:
            Seconds; 0 before the first call, and if the last measurement is old, no row is queued
            and an instance is free.
        """
        with self._lock:
            busy = self.running >= self._calls_in_flight
            if self._measured_s is None or (self._is_stale() and not waiting and not busy):
                return 0.0
            # Recent calls may have been small, so the queue takes the time of its rows or of full
            # calls, whichever is less.
            calls = -(-waiting // self._max_batch_size)
            ahead_s = min(waiting * self._row_s, calls * self._call_s) / self._calls_in_flight
            # A call that runs is half done on average.
            return ahead_s + (0.5 * self._call_s if busy else 0.0) + self._call_s

    def _learn(self, seconds: float, rows: int, now_s: float) -> None:
        fresh = self._measured_s is not None and now_s - self._measured_s <= _STALE_S
        weight = _WEIGHT if fresh else 1.0
        self._call_s += weight * (seconds - self._call_s)
        self._row_s += weight * (seconds / rows - self._row_s)
        self._measured_s = now_s

    def _is_stale(self) -> bool:
        return self._measured_s is None or self.clock() - self._measured_s > _STALE_S

    def began(self) -> None:
        """Count a call that runs or waits for an instance."""
        with self._lock:
            self.running += 1

    def failed(self) -> None:
        """Count a call no more."""
        with self._lock:
            self.running -= 1

    def ended(self, rows: int, started_s: float, ended_s: float) -> None:
        """Count a call no more, and learn from its time."""
        with self._lock:
            self.running -= 1
            self._learn(ended_s - started_s, rows, ended_s)


class _Call:
    """One call; a class, because a generator's context costs twice as much."""

    __slots__ = ("_estimator", "_instance", "_rows", "_started_s")

    def __init__(
        self, estimator: LatencyEstimator, rows: int, instance: AbstractContextManager[object]
    ) -> None:
        self._estimator = estimator
        self._rows = rows
        self._instance = instance
        self._started_s = 0.0

    def __enter__(self) -> None:
        self._estimator.began()
        try:
            self._instance.__enter__()
        except BaseException:
            self._estimator.failed()
            raise
        self._started_s = self._estimator.clock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        estimator = self._estimator
        ended_s = estimator.clock()
        self._instance.__exit__(None, None, None)
        if kind is None:
            estimator.ended(self._rows, self._started_s, ended_s)
        else:
            estimator.failed()
