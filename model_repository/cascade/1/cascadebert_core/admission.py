"""Whether the rows of an `execute` run within it, or join the first stage's queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# Between two looks at how much waits.
_LOOK_EVERY_S = 1.0
# Who was not alone so long ago may not be alone now.
_COMPANY_S = 1.0


class Admission:
    """Keeps the queue of Triton's scheduler short, which the model cannot see and nobody bounds.

    Rows that run inside `execute` are answered the cheapest way, but while they run, requests
    gather in the scheduler's queue. Where requests come side by side, the cascade lets rows that
    are too few for all instances join the queue too, so that what comes next begins beside them; a
    client that sends one request at a time never pays for that.

    A batch of more than half the largest size may mean that more waits behind it. (The scheduler's
    own limit on its queue is no help: with it, 2.51 leaves requests that could run until a wait of
    500 ms is over.) So once a second the cascade looks: such batches are only taken in, not run,
    until a smaller one shows that nothing waits any more, or as many rows were taken in as the
    queue of the first stage may hold. Where that queue is no more than half full by then, rows run
    at once again, beside those of the queue; under overload it is fuller, and so everything passes
    through it, and what it cannot hold is turned away.
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
        self._company_until_s = -math.inf

    def saw(self, requests: int, others: bool) -> None:
        """Learn whether requests come side by side.

        Args:
            requests: that Triton has handed over together.
            others: whether others were under way when they came.
        """
        if requests > 1 or others:
            self._company_until_s = self._clock() + _COMPANY_S

    def has_company(self) -> bool:
        """Whether requests came side by side lately."""
        return self._clock() < self._company_until_s

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
