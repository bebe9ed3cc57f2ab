"""The attempts of a call: when another one may follow, and what is said about it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ._deadline import Deadline, RetryPolicy
from ._faults import CLOSED, PROTOCOL, REFUSED, UNRESOLVED
from .errors import CascadeClientError, ServerUnavailable

OnRetry: TypeAlias = Callable[[CascadeClientError, float], object]

MakeArguments: TypeAlias = Callable[[float | None], Mapping[str, Any]]
"""Makes an attempt's arguments from the seconds that remain."""


class Attempts:
    """What one client knows about trying again.

    Attributes:
        answered: Whether a server has answered a call.
    """

    def __init__(self, policy: RetryPolicy, on_retry: OnRetry | None = None):
        """Start before the first answer.

        Args:
            policy: When to try again if a server is unavailable.
            on_retry: Called before each pause with the error and the seconds of the pause.
        """
        self.answered = False
        self._policy = policy
        self._on_retry = on_retry

    def delay_s(self, error: CascadeClientError, attempts: int, deadline: Deadline) -> float | None:
        """Return the pause before another attempt, or None if it could not help."""
        if not isinstance(error, ServerUnavailable) or error.fault == PROTOCOL:
            return None
        absent = error.fault in (REFUSED, UNRESOLVED, CLOSED) and not self.answered
        if absent and not self._policy.wait_for_server:
            return None
        return self._policy.delay_s(attempts, deadline.remaining_s())

    def delay_of_short_call_s(self, attempts: int, deadline: Deadline) -> float | None:
        """Return the pause after a short call that had no answer within its own limit."""
        return self._policy.delay_s(attempts, deadline.remaining_s())

    def tell(self, error: CascadeClientError, delay_s: float) -> None:
        """Tell the caller that another attempt follows."""
        if self._on_retry is not None:
            self._on_retry(error, delay_s)
