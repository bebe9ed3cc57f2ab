"""Requests of a stream whose answers are under way."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from ._interrupts import result_of
from ._types import Classification

Answer: TypeAlias = Callable[[], list[Classification]]
"""Returns the answers to a request, or raises its error, without waiting long."""


class StartedCall(Protocol):
    """A call that tritonclient has started."""

    def cancel(self) -> None:
        """Cancel it; of a call that has ended, nothing."""
        ...


class Pending:
    """One request of a window."""

    def __init__(self, future: Future[Answer], call: StartedCall | None = None):
        """Describe it.

        Args:
            future: Gets the answer when it has arrived.
            call: The call that brings it; None if a thread does.
        """
        self._future = future
        self._call = call

    def is_over(self) -> bool:
        """Return whether `answers` returns without waiting."""
        return self._future.done()

    def answers(self) -> list[Classification]:
        """Wait for the answers, and return them; a signal is handled while it waits."""
        return result_of(self._future)()

    def cancel(self) -> None:
        """Do not wait for it any more."""
        if self._call is not None:
            self._call.cancel()
        else:
            self._future.cancel()


def failed(error: BaseException) -> Pending:
    """Return a request that cannot be sent: its error waits for its turn like an answer."""
    future: Future[Answer] = Future()
    future.set_exception(error)
    return Pending(future)
