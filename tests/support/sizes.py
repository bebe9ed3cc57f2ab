"""How long a test runs: short in CI, long for `make soak`."""

from __future__ import annotations

import os


def sized(short: int, long: int) -> int:
    """`long` where the environment sets CASCADEBERT_LONG, else `short`."""
    return long if os.environ.get("CASCADEBERT_LONG") else short
