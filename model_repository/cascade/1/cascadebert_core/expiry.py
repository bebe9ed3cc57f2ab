"""Ends jobs at their deadline, even if their rows wait for a stage that hangs."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from itertools import count

from .job import Job

_LOGGER = logging.getLogger(__name__)

# Jobs that are due within this time of each other are ended together.
_GRAIN_S = 0.002
_PURGE_FROM = 64
# A caller may set a deadline in centuries, which is more than a condition can wait for.
_LONGEST_WAIT_S = 60.0


class ExpiryTimer:
    """A thread that ends jobs when they are due."""

    def __init__(self, expire: Callable[[Job], None]) -> None:
        """Start the thread.

        Args:
            expire: Ends a job. It is not called for a job that has ended.
        """
        self._expire = expire
        self._heap: list[tuple[float, int, Job]] = []
        self._numbers = count()
        self._purge_at = _PURGE_FROM
        self._lock = threading.Lock()  # in C; to enter a condition is Python
        self._changed = threading.Condition(self._lock)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="expiry", daemon=True)
        self._thread.start()

    def watch(self, job: Job, due_s: float) -> None:
        """End the job at `due_s`, on the clock of `time.monotonic`, unless it has ended by then."""
        with self._lock:
            heapq.heappush(self._heap, (due_s, next(self._numbers), job))
            if len(self._heap) >= self._purge_at:
                # Most jobs end long before they are due. They must not be kept until then.
                self._heap = [entry for entry in self._heap if not entry[2].ended]
                heapq.heapify(self._heap)
                self._purge_at = max(_PURGE_FROM, 2 * len(self._heap))
            if self._heap and self._heap[0][2] is job:
                self._changed.notify()

    def stop(self) -> list[Job]:
        """Stop the thread and return the jobs that have not ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return [job for _, _, job in self._heap if not job.ended]

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._is_due():
                    self._changed.wait(self._pause_s())
                if self._stopping:
                    return
                due: list[Job] = []
                while self._is_due():
                    due.append(heapq.heappop(self._heap)[2])
            for job in due:
                if not job.ended:
                    self._expire_or_log(job)

    def _expire_or_log(self, job: Job) -> None:
        try:
            self._expire(job)
        except Exception:  # the thread must continue for the other jobs
            _LOGGER.exception("a request could not be ended at its deadline")

    def _is_due(self) -> bool:
        return bool(self._heap) and self._heap[0][0] <= time.monotonic()

    def _pause_s(self) -> float | None:
        if not self._heap:
            return None
        return min(max(_GRAIN_S, self._heap[0][0] - time.monotonic()), _LONGEST_WAIT_S)
