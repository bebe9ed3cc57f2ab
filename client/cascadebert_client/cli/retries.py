"""What a terminal shows while a client tries again."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from ..errors import CascadeClientError

_EVERY_S = 5.0


class RetryNotes:
    """Writes why a call is tried again: the first time, and then every few seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Write nothing yet.

        Args:
            stream: Where to write; a progress bar there moves down.
            clock: Returns seconds and never runs backwards.
        """
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._next_s = float("-inf")

    def __call__(self, error: CascadeClientError, delay_s: float) -> None:
        """Note an error and the pause after it, in seconds."""
        with self._lock:
            now_s = self._clock()
            if now_s < self._next_s:
                return
            self._next_s = now_s + _EVERY_S
            tqdm.write(f"trying again in {delay_s:.1f} s: {error}", file=self._stream)


def notes_on_terminal() -> RetryNotes | None:
    """Return notes on stderr if it is a terminal; None otherwise."""
    return RetryNotes(sys.stderr) if sys.stderr.isatty() else None
