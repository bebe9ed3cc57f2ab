"""The caller of a request that is answered after `execute`."""

from __future__ import annotations

import threading
from typing import Any


class Caller:
    """Triton's response sender of one request; threads may share it.

    The final response frees the request in Triton. To ask 2.51 about cancellation during that or
    afterwards is a segmentation fault, so a lock and a flag prevent it.
    """

    def __init__(self, sender: Any) -> None:
        """Wrap a sender that has sent nothing yet.

        Args:
            sender: An `InferenceResponseSender`.
        """
        self._sender = sender
        self._lock = threading.Lock()
        self._answered = False

    def has_cancelled(self) -> bool:
        """Return whether the caller has cancelled; False once it is answered."""
        with self._lock:
            return not self._answered and bool(self._sender.is_cancelled())

    def answer(self, response: Any, final: int) -> None:
        """Send the only response, with Triton's flag for the final one."""
        with self._lock:
            self._answered = True
            self._sender.send(response, flags=final)
