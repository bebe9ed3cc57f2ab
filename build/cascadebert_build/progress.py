"""Progress lines on stderr; `cascadebert_client.cli.progress` shows how far a step is."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from cascadebert_client.cli.progress import Advance, aside, counted, is_showing, shown

__all__ = ["Advance", "Note", "aside", "counted", "is_showing", "say", "showing", "shown", "timed"]


class Note:
    """The text at the end of a step's line."""

    text = ""

    def __call__(self, text: str) -> None:
        """Set the text."""
        self.text = text


@contextmanager
def showing(step: str, name: str) -> Generator[None, None, None]:
    """Show a step while it runs if that takes long, and print nothing when it ends."""
    with shown(_begin(step, name)):
        yield


@contextmanager
def timed(step: str, name: str) -> Generator[Note, None, None]:
    """Print the duration and the result of a step when it ends.

    While it runs, a terminal shows a bar, or seconds if nothing is counted. Elsewhere a step that
    takes longer than 5 s writes a line, and then one every 30 s.
    """
    start = time.monotonic()
    note = Note()
    with shown(_begin(step, name)):
        yield note
    say(step, name, f"{time.monotonic() - start:6.1f} s  {note.text}")


def say(step: str, name: str, text: str) -> None:
    """Print one progress line."""
    with aside():
        sys.stderr.write(f"{_begin(step, name)} {text}\n")
        sys.stderr.flush()


def _begin(step: str, name: str) -> str:
    return f"{step:8} {name:12}"
