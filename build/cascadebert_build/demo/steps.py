"""The demo's steps on stderr: what comes, how long it takes, and that it still runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

# A step that prints nothing by itself says how long it has run, this often.
_SECONDS_BETWEEN_SIGNS: Final = 20.0


class Steps:
    """Numbers the steps of a run, and announces each with its expected duration."""

    def __init__(self, count: int) -> None:
        """Start with no step done.

        Args:
            count: The number of steps.
        """
        self._count = count
        self._done = 0

    @contextmanager
    def step(self, what: str, expected: str) -> Generator[None, None, None]:
        """Announce a step and run it. Where no terminal shows bars, a line tells that it runs.

        Args:
            what: What the step does.
            expected: How long it takes on 2 cores, such as "about 2 minutes".
        """
        self._done += 1
        announce(f"[{self._done}/{self._count}] {what}: {expected}")
        ended = threading.Event()
        start = time.monotonic()
        signs = threading.Thread(target=_show_signs, args=(what, start, ended), daemon=True)
        if not sys.stderr.isatty():
            signs.start()
        try:
            yield
        finally:
            ended.set()
            if signs.ident is not None:
                signs.join()
        announce(f"      done in {time.monotonic() - start:.0f} s")


def announce(text: str) -> None:
    """Print one line on stderr, which is for progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _show_signs(what: str, start: float, ended: threading.Event) -> None:
    # Keep the stream of the start: code that redirects stderr later must not get these lines.
    stream = sys.stderr
    while not ended.wait(_SECONDS_BETWEEN_SIGNS):
        stream.write(f"      … {what}: {time.monotonic() - start:.0f} s so far\n")
        stream.flush()
