"""Rows that are longer than a member's maximum length, and so are cut or read in windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.windows import Windows

# Percent of the rows that the recommended length holds whole.
HELD = 99


@dataclass(frozen=True, slots=True)
class Truncation:
    """How many rows one member cuts.

    Attributes:
        member: The member's name.
        max_length: Tokens, special ones included, that it keeps of a row.
        rows: Number of rows.
        cut: Number of rows that have more tokens than it reads.
        holds: The smallest `max_length` that holds `HELD` percent of the rows whole.
        longest: Tokens of the longest row.
        max_positions: The largest `max_length` that the checkpoint allows; None: any.
        windowed: Number of rows that it reads in several windows.
        max_windows: The most windows of a row; 0 if it reads no windows.
    """

    member: str
    max_length: int
    rows: int
    cut: int
    holds: int
    longest: int
    max_positions: int | None = None
    windowed: int = 0
    max_windows: int = 0

    @property
    def is_notable(self) -> bool:
        """Whether a row is longer than `max_length`."""
        return self.cut > 0 or self.windowed > 0

    def __str__(self) -> str:
        """What is cut or read in windows, and what would hold almost all rows."""
        if self.max_windows:
            return self._str_of_windows()
        text = (
            f"{self.cut:,} of {self.rows:,} rows {_have(self.cut)} more than max_length = "
            f"{self.max_length} tokens and {_are(self.cut)} cut"
        )
        if self.holds <= self.max_length:
            return f"{text}; {HELD}% are whole, and the longest has {self.longest:,}"
        text += f"; max_length = {self.holds} would hold {HELD}% of them"
        if self.max_positions is not None and self.holds > self.max_positions:
            text += f", but the checkpoint has positions for {self.max_positions} only"
        return text

    def _str_of_windows(self) -> str:
        text = (
            f"{self.windowed:,} of {self.rows:,} rows {_have(self.windowed)} more than "
            f"max_length = {self.max_length} tokens and {_are(self.windowed)} read in "
            f"windows; the longest has {self.longest:,}"
        )
        if self.cut:
            text += f"; {self.cut:,} of them {_are(self.cut)} cut after max_windows = "
            text += f"{self.max_windows} windows"
        return text


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def truncation_of_counts(
    counts: NDArray[np.integer[Any]],
    *,
    member: str,
    max_length: int,
    max_positions: int | None = None,
    windows: Windows | None = None,
    window_size: int = 0,
) -> Truncation:
    """Count the rows that are cut.

    Args:
        counts: Tokens of every row before it is cut, special ones included, shape (n,), n > 0.
        member: The member's name.
        max_length: Tokens that it keeps.
        max_positions: The largest `max_length` that its checkpoint allows; None: any.
        windows: How it reads longer rows; None: it cuts them.
        window_size: Tokens of a window without special tokens.
    """
    ordered = np.sort(np.asarray(counts))
    longer = int((ordered > max_length).sum())
    cut = longer
    if windows is not None:
        cut = int((ordered - (max_length - window_size) > windows.held(window_size)).sum())
    held = -(-HELD * len(ordered) // 100)
    return Truncation(
        member,
        max_length,
        rows=len(ordered),
        cut=cut,
        holds=int(ordered[held - 1]),
        longest=int(ordered[-1]),
        max_positions=max_positions,
        windowed=0 if windows is None else longer,
        max_windows=0 if windows is None else windows.most,
    )
