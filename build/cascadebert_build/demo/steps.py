"""The demo's steps on stderr: what comes, how long it takes, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from ..progress import aside, shown


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
        """Announce a step and show it while it runs.

        Args:
            what: What the step does.
            expected: How long it takes on 2 cores, such as "about 2 minutes".
        """
        self._done += 1
        number = f"[{self._done}/{self._count}]"
        announce(f"{number} {what}: {expected}")
        start = time.monotonic()
        with shown(number):
            yield
        announce(f"      done in {time.monotonic() - start:.0f} s")


def announce(text: str) -> None:
    """Print one line on stderr, which is for progress."""
    with aside():
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
