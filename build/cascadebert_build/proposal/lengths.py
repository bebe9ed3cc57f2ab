"""A member's maximum length, chosen from the lengths of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of texts under one tokenizer, special ones included.

    Attributes:
        median: Of a text in the middle.
        p99: 99% of the texts have no more.
        longest: Of the longest text.
    """

    median: int
    p99: int
    longest: int

    def __str__(self) -> str:
        return (
            f"half of the texts have up to {self.median} tokens, 99% up to {self.p99}, the longest "
            f"{self.longest}"
        )


def lengths_of_counts(counts: NDArray[np.integer[Any]]) -> Lengths:
    """Summarise token counts of shape (n,), n > 0."""
    median, p99 = np.percentile(counts, (50, 99), method="higher")
    return Lengths(int(median), int(p99), int(counts.max()))


def max_length_of(longest: int, positions: int | None) -> int:
    """The smallest usual length that holds all texts, within the checkpoint's positions.

    A larger one costs nothing: a text is padded to its own bucket, not to the maximum.

    Args:
        longest: Tokens of the longest text.
        positions: The most that the checkpoint allows; None: no limit is known.
    """
    allowed = [length for length in _LENGTHS if positions is None or length <= positions]
    holding = [length for length in allowed if length >= longest]
    if holding:
        return holding[0]
    if allowed:
        return allowed[-1]
    assert positions is not None
    return positions
