"""Whether the rows of an `execute` run at once, or join the first stage's queue."""

from __future__ import annotations

import time
from collections.abc import Callable

# Between two looks at how much waits.
_LOOK_EVERY_S = 1.0


class Intake:
    """Keeps the queue of Triton's scheduler short, which the model cannot see and nobody bounds.

    Rows that run inside `execute` are answered the cheapest way, but while they run, requests
    gather in the scheduler's queue. (Its own limit on that queue is no help: with it, 2.51 leaves
    requests that could run until a wait of 500 ms is over.) A batch of more than half the largest
    size may mean that more waits behind it. So once a second such a batch is only taken in, not
    run: `execute` returns at once, is given all that waits, and it gathers in the queue of the
    first stage, which is bounded. When that queue is empty again, rows run at once as before.
    Under overload it never is, and so everything passes through it.
    """

    def __init__(self, max_batch_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing queued.

        Args:
            max_batch_size: rows that Triton hands over at most.
            clock: seconds that never run backwards.
        """
        self._max_batch_size = max_batch_size
        self._clock = clock
        self._next_look_s = clock()

    def queues(self, rows: int, waiting: int) -> bool:
        """Whether these rows join the queue.

        Args:
            rows: that Triton has handed over in one call.
            waiting: rows in the first stage's queue.
        """
        if waiting:
            return True
        # Of two batches one after the other that left requests behind, one is over half full.
        if 2 * rows <= self._max_batch_size or self._clock() < self._next_look_s:
            return False
        self._next_look_s = self._clock() + _LOOK_EVERY_S
        return True
