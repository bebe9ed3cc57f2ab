"""The deadline of a call, and when it is tried again."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ._checks import is_real
from .errors import DeadlineExceeded, InvalidRequest, Target

# About 31 years, which gRPC and the protobuf field for microseconds can hold.
_LONGEST_TIMEOUT_S = 1e9


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment by which an answer must be there.

    Attributes:
        timeout_s: The caller's time limit in seconds; None for no deadline.
        expires_at_s: The moment in seconds of `clock`; infinite for no deadline.
        clock: A monotonic clock, in seconds.
    """

    timeout_s: float | None
    expires_at_s: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)

    @classmethod
    def after(
        cls, timeout_s: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> "Deadline":
        """Return the deadline in `timeout_s` seconds.

        Args:
            timeout_s: Seconds, positive and finite; None for no deadline.
            clock: A monotonic clock, in seconds.

        Raises:
            InvalidRequest: `timeout_s` is not a positive, finite number.
        """
        if timeout_s is None:
            return cls(None, math.inf, clock)
        if not is_real(timeout_s) or not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
            raise InvalidRequest(
                f"timeout_s is {timeout_s!r}: give seconds above 0, or None for no deadline"
            )
        return cls(float(timeout_s), clock() + float(timeout_s), clock)

    def remaining_s(self) -> float | None:
        """Return the seconds left: 0 after the deadline, None without one."""
        if self.timeout_s is None:
            return None
        return max(0.0, self.expires_at_s - self.clock())

    def require_time(self, target: Target) -> float | None:
        """Return the seconds left for a call to `target`, or None without a deadline.

        Raises:
            DeadlineExceeded: The deadline has passed.
        """
        remaining_s = self.remaining_s()
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded(
                f"{self.timeout_s:g} s passed before {target} could answer: raise timeout_s",
                target=target,
            )
        return remaining_s


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try a call again if the server is unavailable.

    Delays double from `first_delay_s` up to `max_delay_s`. Each is shortened by up to half at
    random, so that clients that failed together do not return together. With a deadline the call is
    tried until the next delay would exceed the deadline, and without one a fixed number of times.

    Attributes:
        first_delay_s: Seconds before the second attempt.
        max_delay_s: The longest pause between attempts, in seconds.
        attempts_without_deadline: The number of attempts if there is no deadline; 1 never retries.
        wait_for_server: Whether to try again if no connection comes about before the client has got
            its first answer. Later that is a restart, and always tried again.
    """

    first_delay_s: float = 0.1
    max_delay_s: float = 2.0
    attempts_without_deadline: int = 3
    wait_for_server: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.max_delay_s:
            raise InvalidRequest(
                f"retry delays of {self.first_delay_s:g} s up to {self.max_delay_s:g} s: "
                "the first must be above 0 and no longer than the longest"
            )
        if self.attempts_without_deadline < 1:
            raise InvalidRequest(
                f"{self.attempts_without_deadline} attempts: 1 is the fewest (no retry)"
            )

    def delay_s(
        self,
        failed_attempts: int,
        remaining_s: float | None,
        jitter: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the pause before the next attempt in seconds, or None to give up.

        Args:
            failed_attempts: The number of attempts so far, at least 1.
            remaining_s: Seconds left until the deadline; None without one.
            jitter: Draws from [0, 1).
        """
        if remaining_s is None and failed_attempts >= self.attempts_without_deadline:
            return None
        # The bound keeps the float from overflowing.
        doubled_s = self.first_delay_s * 2.0 ** min(failed_attempts - 1, 64)
        delay_s = min(doubled_s, self.max_delay_s) * (1 - jitter() / 2)
        return delay_s if remaining_s is None or delay_s < remaining_s else None
