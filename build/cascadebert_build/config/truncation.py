"""Rows that are longer than a member's maximum length, and so are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Percent of the rows that the recommended length holds whole.
HELD = 99


@dataclass(frozen=True, slots=True)
class Truncation:
    """How many rows one member cuts.

    Attributes:
        member: The member's name.
        max_length: Tokens, special ones included, that it keeps of a row.
        rows: Number of rows.
        cut: Number of rows that have more tokens.
        holds: The smallest `max_length` that holds `HELD` percent of the rows whole.
        longest: Tokens of the longest row.
        max_positions: The largest `max_length` that the checkpoint allows; None: any.
    """

    member: str
    max_length: int
    rows: int
    cut: int
    holds: int
    longest: int
    max_positions: int | None = None

    def __str__(self) -> str:
        """What is cut, and what would hold almost all rows."""
        text = (
            f"{self.cut:,} of {self.rows:,} rows have more than max_length = {self.max_length} "
            f"tokens and are cut"
        )
        if self.holds <= self.max_length:
            return f"{text}; {HELD}% are whole, and the longest has {self.longest:,}"
        text += f"; max_length = {self.holds} would hold {HELD}% of them"
        if self.max_positions is not None and self.holds > self.max_positions:
            text += f", but the checkpoint has positions for {self.max_positions} only"
        return text


def truncation_of_counts(
    counts: NDArray[np.integer[Any]],
    *,
    member: str,
    max_length: int,
    max_positions: int | None = None,
) -> Truncation:
    """Count the rows that are cut.

    Args:
        counts: Tokens of every row before it is cut, special ones included, shape (n,), n > 0.
        member: The member's name.
        max_length: Tokens that it keeps.
        max_positions: The largest `max_length` that its checkpoint allows; None: any.
    """
    ordered = np.sort(np.asarray(counts))
    held = -(-HELD * len(ordered) // 100)
    return Truncation(
        member,
        max_length,
        rows=len(ordered),
        cut=int((ordered > max_length).sum()),
        holds=int(ordered[held - 1]),
        longest=int(ordered[-1]),
        max_positions=max_positions,
    )
