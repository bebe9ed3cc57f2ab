"""The one who waits for a request that is answered after `execute`."""

from __future__ import annotations

import threading
from typing import Any


class Caller:
    """Triton's response sender of one request, from any thread.

    The final response frees what Triton knows of the request: 2.51 ends with a segmentation fault
    where it is asked about cancellation meanwhile, or later.
    """

    def __init__(self, sender: Any) -> None:
        """Wrap a sender that has sent nothing.

        Args:
            sender: an `InferenceResponseSender`.
        """
        self._sender = sender
        self._lock = threading.Lock()
        self._answered = False

    def has_cancelled(self) -> bool:
        """Whether the caller has given up; an answered one has not."""
        with self._lock:
            return not self._answered and bool(self._sender.is_cancelled())

    def answer(self, response: Any, final: int) -> None:
        """Send the only response, with the flag that says so."""
        with self._lock:
            self._answered = True
            self._sender.send(response, flags=final)
