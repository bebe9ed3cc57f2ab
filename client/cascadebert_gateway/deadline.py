"""Time limits inside one task."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType

from .errors import ApiError


class within:  # noqa: N801 - it reads as a statement, like asyncio.timeout, which 3.10 lacks
    """`with within(seconds, error):` raises `error` if the block takes longer."""

    __slots__ = ("_error", "_late", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, error: ApiError):
        """Say what is raised after how many seconds."""
        self._seconds = seconds
        self._error = error
        self._late = False

    def __enter__(self) -> None:
        """Start the clock of the current task."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, self._seconds), self._end)

    def _end(self) -> None:
        self._late = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the clock.

        Raises:
            ApiError: The block took too long.
        """
        self._timer.cancel()
        if not self._late:
            return
        if sys.version_info >= (3, 11) and self._task is not None and self._task.uncancel() > 0:
            return  # the task is cancelled for another reason, too
        if kind is None or issubclass(kind, asyncio.CancelledError):
            raise self._error from None
