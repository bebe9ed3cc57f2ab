"""Another operating point while much is waiting: what the policy says, and when it applies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# The load, relative to the limit, below which the switch may go back.
_CALM = 0.5
# A return that lasted less than the hold was too early. Each time the next hold is twice as long,
# up to this many times the policy's.
_LONGEST_HOLD = 16


@dataclass(frozen=True, slots=True)
class UnderLoad:
    """The operating point of requests that name none, while the load is above a limit.

    Attributes:
        operating_point: A point of the policy that is not the default.
        queued_rows: The limit of the rows in all queues together; 0: there is none.
        latency_s: The limit of the expected seconds until a deferred row is answered; 0: there is
            none.
        hold_s: Seconds that the load must be below half of the limits before the default returns.
    """

    operating_point: str
    queued_rows: int
    latency_s: float
    hold_s: float

    def load(self, queued_rows: int, expected_s: Callable[[], float], instances: int = 1) -> float:
        """Return the load relative to the nearest limit; above 1 it is too high.

        Args:
            queued_rows: Rows in all queues of one instance of the cascade.
            expected_s: Returns the expected seconds until a row that is deferred now is answered.
                It is asked only if there is a limit.
            instances: How many instances share the limit of the rows.
        """
        load = queued_rows * instances / self.queued_rows if self.queued_rows else 0.0
        return max(load, expected_s() / self.latency_s) if self.latency_s else load


class LoadSwitch:
    """Decides which of two operating points applies, with hysteresis.

    With a hold of 5 s, and the load relative to the limit::

        time    load   applies      why
         0.0 s   0.9   the default
         0.1 s   1.1   the faster   above the limit: at once
         2.0 s   0.4   the faster   below half of the limit, and since now
         4.0 s   0.6   the faster   above half: the 5 s start again
         4.5 s   0.3   the faster
         9.5 s   0.2   the default  5 s below half of the limit
        12.0 s   1.2   the faster   back after 2.5 s, which is less than the hold: the next hold is
                                    10 s, since the load has not gone, only its effect

    Threads may call it at the same time.
    """

    def __init__(
        self,
        hold_s: float,
        on_switch: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with the default.

        Args:
            hold_s: See `UnderLoad`.
            on_switch: Called at each switch, with whether the faster point applies now. It is
                called under a lock, so it must not call back.
            clock: Returns seconds and never runs backwards.
        """
        self._shortest_hold_s = self._hold_s = hold_s
        self._on_switch = on_switch
        self._clock = clock
        self._lock = threading.Lock()
        self._active = False
        self._calm_since_s: float | None = None
        self._returned_s: float | None = None

    def is_active(self, load: float) -> bool:
        """Return whether the faster point applies, now that the load is known.

        Args:
            load: Relative to the limit; see `UnderLoad.load`.
        """
        with self._lock:
            if not self._active:
                if load > 1:
                    self._leave_default()
            elif load > _CALM:
                self._calm_since_s = None
            elif self._calm_since_s is None:
                self._calm_since_s = self._clock()
            if self._calm_since_s is not None and self._has_held(self._calm_since_s):
                self._return_to_default()
            return self._active

    def _has_held(self, since_s: float) -> bool:
        return self._clock() - since_s >= self._hold_s

    def _leave_default(self) -> None:
        too_early = self._returned_s is not None and not self._has_held(self._returned_s)
        longest_s = _LONGEST_HOLD * self._shortest_hold_s
        self._hold_s = min(2 * self._hold_s, longest_s) if too_early else self._shortest_hold_s
        self._active = True
        self._on_switch(True)

    def _return_to_default(self) -> None:
        self._active = False
        self._calm_since_s = None
        self._returned_s = self._clock()
        self._on_switch(False)
