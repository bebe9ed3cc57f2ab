"""Progress lines on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager


class Note:
    """The text at the end of a step's line."""

    text = ""

    def __call__(self, text: str) -> None:
        """Set the text."""
        self.text = text


@contextmanager
def timed(step: str, name: str) -> Generator[Note, None, None]:
    """Print the duration and the result of a step when it ends.

    A terminal shows a counter of seconds while the step runs.
    """
    start = time.monotonic()
    note = Note()
    ended = threading.Event()
    ticker = threading.Thread(target=_tick, args=(step, name, start, ended), daemon=True)
    if sys.stderr.isatty():
        ticker.start()
    try:
        yield note
    finally:
        ended.set()
        if ticker.ident is not None:
            ticker.join()
    say(step, name, f"{time.monotonic() - start:6.1f} s  {note.text}")


def say(step: str, name: str, text: str) -> None:
    """Print one progress line."""
    sys.stderr.write(f"{step:8} {name:12} {text}\n")
    sys.stderr.flush()


def _tick(step: str, name: str, start: float, ended: threading.Event) -> None:
    # Keep the stream of the start: code that redirects stderr later must not get these lines.
    stream = sys.stderr
    while True:
        stream.write(f"{step:8} {name:12} {time.monotonic() - start:6.0f} s …\r")
        stream.flush()
        if ended.wait(1.0):
            return
