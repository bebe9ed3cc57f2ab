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
    size may mean that more waits behind it. So once a second the cascade looks: such batches are
    only taken in, not run, until a smaller one shows that nothing waits any more, or as many rows
    were taken in as the queue of the first stage may hold. Where that queue is no more than half
    full by then, rows run at once again, beside those of the queue; under overload it is fuller,
    and so everything passes through it, and what it cannot hold is turned away.
    """

    def __init__(
        self,
        max_batch_size: int,
        max_queued_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing queued.

        Args:
            max_batch_size: rows that Triton hands over at most.
            max_queued_rows: of the first stage.
            clock: seconds that never run backwards.
        """
        self._max_batch_size = max_batch_size
        self._max_queued_rows = max_queued_rows
        self._clock = clock
        self._next_look_s = clock()
        self._looking = False
        self._taken_in = 0

    def queues(self, rows: int, waiting: int) -> bool:
        """Whether these rows join the queue.

        Args:
            rows: that Triton has handed over in one call.
            waiting: rows in the first stage's queue.
        """
        # Of two batches one after the other that left requests behind, one is over half full.
        more = 2 * rows > self._max_batch_size
        now_s = self._clock()
        if more and now_s >= self._next_look_s:
            self._looking, self._taken_in = True, 0
            self._next_look_s = now_s + _LOOK_EVERY_S
        elif not more or self._taken_in > self._max_queued_rows:
            self._looking = False
        self._taken_in += rows
        return self._looking or waiting > self._max_queued_rows // 2
