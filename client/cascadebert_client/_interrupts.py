"""Waits of the main thread that a signal always ends."""

# A signal that comes just before a thread waits for a lock does not end the wait, and Python's
# handler runs only after it. So a wait has slices; gRPC's own waits do the same.

import contextlib
import queue
from concurrent.futures import Future
from concurrent.futures import TimeoutError as SliceOver
from typing import TypeVar

ValueT = TypeVar("ValueT")

_SLICE_S = 0.2


def result_of(future: Future[ValueT]) -> ValueT:
    """Return `future.result()`; a signal is handled while it waits."""
    while not future.done():
        with contextlib.suppress(SliceOver):
            return future.result(_SLICE_S)
    return future.result()


def next_of(source: "queue.SimpleQueue[ValueT]") -> ValueT:
    """Return `source.get()`; a signal is handled while it waits."""
    while True:
        with contextlib.suppress(queue.Empty):
            return source.get(timeout=_SLICE_S)
