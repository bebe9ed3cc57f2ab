"""What a benchmark is doing, on stderr."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One line, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
