"""How much of a check fits in the time that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

CaseT = TypeVar("CaseT")


class Allowance:
    """The time of a check, and what was learnt about its pace."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now.

        Args:
            seconds: For all of the check; None: as long as it takes.
            clock: Returns seconds and never runs backwards.
        """
        self._seconds = seconds
        self._clock = clock
        self._began_s = clock()
        self._work = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._seconds is not None

    def done(self, work: float) -> None:
        """Note work that was done, in any unit."""
        self._work += work

    def fits(self, work: float) -> bool:
        """Whether so much more work ends in time, at the pace so far; the first always does."""
        if self._seconds is None or not self._work:
            return True
        elapsed_s = self._clock() - self._began_s
        return elapsed_s + work * elapsed_s / self._work <= self._seconds

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return self._seconds is not None and self._clock() - self._began_s > self._seconds

    def in_order(self, cases: Sequence[CaseT]) -> list[CaseT]:
        """The cases; with a limit the first, the last, the middle, and so on into the gaps."""
        if not self.is_limited or not cases:
            return list(cases)
        order, step = [0, len(cases) - 1], len(cases)
        while step > 1:
            step = -(-step // 2)
            order += range(0, len(cases), step)
        return [cases[i] for i in dict.fromkeys(order)]
