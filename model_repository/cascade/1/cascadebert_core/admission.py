"""Whether new rows run within `execute` or join the first stage's queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_PROBE_EVERY_S = 1.0
# Treat traffic as concurrent for this long after the last overlap.
_CONCURRENT_FOR_S = 1.0


class Admission:
    """Keeps the queue of Triton's scheduler short, which is unbounded and hidden from the model.

    Rows that run within `execute` are answered at the lowest cost, but new requests wait in the
    scheduler's queue meanwhile. Two rules move rows to the bounded queue of the first stage:

    1. If requests are concurrent, a batch too small for all instances of the stage is queued, so
       that the next batch can run beside it. A client that sends one request at a time never waits
       for this.
    2. A batch of more than half the largest size may mean that the scheduler holds more requests.
       Once a second such a batch starts a probe: batches are queued, not run, until a smaller one
       shows that the scheduler's queue is empty, or until as many rows as the first stage's queue
       may hold have been taken. If that queue is then at most half full, rows run at once again.
       Under overload it is fuller: then all rows pass through it, and what it cannot hold is
       rejected.

    A limit on the scheduler's own queue is no alternative. With one, 2.51 sometimes leaves runnable
    requests waiting until an idle wait of 500 ms is over.

    Rule 2, with batches of at most 64 rows and a queue of at most 1,024::

        time    rows  queued  state                                    the rows
        0.00 s    33       0  over half of 64: the probe starts        are queued
        0.01 s    64      33  probing                                  are queued
        0.02 s    20      97  half of 64 or less: the probe ends       run at once
        0.99 s    64       0  less than 1 s after the last probe       run at once
        1.00 s    64       0  the next probe starts                    are queued
        1.01 s     8     600  the probe ends, but the queue is over    are queued
                              half full
        1.20 s     8     512  the queue is half full                   run at once
    """

    def __init__(
        self,
        max_batch_size: int,
        max_queued_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with an empty queue.

        Args:
            max_batch_size: The most rows that Triton passes to one `execute`.
            max_queued_rows: The limit of the first stage's queue.
            clock: Returns seconds and never runs backwards.
        """
        self._max_batch_size = max_batch_size
        self._max_queued_rows = max_queued_rows
        self._clock = clock
        self._next_probe_s = clock()
        self._probing = False
        self._rows_in_probe = 0
        self._concurrent_until_s = -math.inf

    def arrived(self, requests: int, others_running: bool) -> None:
        """Record the requests of one `execute`.

        Args:
            requests: How many Triton has passed together.
            others_running: Whether earlier requests have not ended yet.
        """
        if requests > 1 or others_running:
            self._concurrent_until_s = self._clock() + _CONCURRENT_FOR_S

    def runs_at_once(
        self, rows: int, queued_rows: int, fills_instances: Callable[[], bool]
    ) -> bool:
        """Decide whether rows run within `execute`; if not, they join the first stage's queue.

        Args:
            rows: The rows of one `execute`.
            queued_rows: Rows in the first stage's queue.
            fills_instances: Returns whether the rows make a call for every instance of the stage;
                asked only if requests are concurrent.
        """
        if self._must_queue(rows, queued_rows):
            return False
        return self._clock() >= self._concurrent_until_s or fills_instances()

    def _must_queue(self, rows: int, queued_rows: int) -> bool:
        # If requests stay in the scheduler's queue, one of two successive batches is over half
        # full.
        large = 2 * rows > self._max_batch_size
        now_s = self._clock()
        if large and now_s >= self._next_probe_s:
            self._probing, self._rows_in_probe = True, 0
            self._next_probe_s = now_s + _PROBE_EVERY_S
        elif not large or self._rows_in_probe > self._max_queued_rows:
            self._probing = False
        self._rows_in_probe += rows
        return self._probing or queued_rows > self._max_queued_rows // 2
