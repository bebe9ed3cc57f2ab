"""Rows of an asynchronous stream, gathered into requests while they arrive."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any

from ._rows import Chunker, Utf8Row


class Gathering:
    """Reads rows in a task of its own, so that a slow source holds up no answer.

    Rows gather, up to those of one request, while no request is taken.
    """

    def __init__(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        rows_per_request: int,
        max_rows: int,
        validated: bool = False,
    ):
        """Begin to read.

        Args:
            rows: The rows.
            rows_per_request: The most rows in one request.
            max_rows: The most rows that may be read and not yet answered; see `answered`.
            validated: Whether they are `Utf8Row`; if not, each is checked as it is read.
        """
        self.changed = asyncio.Event()
        """Set if rows have come or the rows have ended. The owner clears it before it waits."""
        self._rows = rows
        self._max_rows = max_rows
        self._chunker = Chunker(rows_per_request)
        self._add = self._chunker.add_encoded if validated else self._chunker.add
        self._full: list[Utf8Row] = []
        self._unanswered = 0
        self._room = asyncio.Event()
        # The reader waits for room, or has not begun. Then `take` gives no partial request, since
        # there may be more rows without waiting for the source.
        self._paused = True
        self._stopped = False
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(self._ended)

    def take(self) -> list[Utf8Row]:
        """Return the rows of a request: a full one, or those that are there.

        The list is empty if there are none, or if more can be read without waiting for the source.
        """
        if self._full:
            rows, self._full = self._full, []
            self._room.set()
            return rows
        return [] if self._paused else self._chunker.rest()

    def answered(self, n_rows: int) -> None:
        """Make room for as many rows as have got their answers."""
        self._unanswered -= n_rows
        self._room.set()

    @property
    def is_over(self) -> bool:
        """Whether the rows have ended; `take` may still have some."""
        return self._reader.done()

    def raise_failure(self) -> None:
        """Raise what ended the rows too early, once they are over.

        Raises:
            Exception: A row is wrong, or the source failed.
        """
        self._reader.result()

    def stop(self) -> None:
        """Read no further row. `end` waits until this is so."""
        if not self._stopped:  # a second cancellation would end the source's clean-up
            self._stopped = True
            self._reader.cancel()

    async def end(self) -> None:
        """Stop reading, and wait until the source is closed."""
        self.stop()
        await asyncio.gather(self._reader, return_exceptions=True)

    def _ended(self, reader: "asyncio.Future[None]") -> None:
        if not reader.cancelled():
            reader.exception()  # `raise_failure` raises it, unless the stream was left before
        self._paused = False
        self.changed.set()

    async def _read(self) -> None:
        self._paused = False
        async with aclosing(_as_async(self._rows)) as source:
            async for row in source:
                # A source can swallow its cancellation.
                if self._stopped:
                    return
                self._full = self._add(row) or []
                self._unanswered += 1
                self.changed.set()
                if self._full or self._unanswered >= self._max_rows:
                    await self._wait_for_room()
                    self.changed.set()

    async def _wait_for_room(self) -> None:
        self._paused = True
        while self._full or self._unanswered >= self._max_rows:
            self._room.clear()
            await self._room.wait()
        self._paused = False


async def _as_async(
    items: Iterable[Any] | AsyncIterable[Any],
) -> AsyncGenerator[Any, None]:
    if not isinstance(items, AsyncIterable):
        for item in items:
            yield item
        return
    try:
        async for item in items:
            yield item
    finally:
        # The garbage collector would close it later, in another task.
        if isinstance(items, AsyncGenerator):
            await items.aclose()
