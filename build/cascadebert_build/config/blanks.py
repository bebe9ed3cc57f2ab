"""Rows of a data file without a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascadebert_client.sources import text_problem

_MOST_NUMBERS = 10


@dataclass(frozen=True, slots=True)
class Blank:
    """A row without a text.

    Attributes:
        number: Its line or record in the source, from 1.
        column: The first of its columns that is blank.
        problem: What is wrong with its cell there, with the remedy.
    """

    number: int
    column: str
    problem: str


def blank_of(number: int, columns: Sequence[str], cells: Sequence[Any]) -> Blank | None:
    """Return what is blank in a row; None if every text is there.

    Args:
        number: The line or record of the row, from 1.
        columns: The columns of its text, and of its pair if it has one.
        cells: What they hold.
    """
    for column, cell in zip(columns, cells, strict=True):
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return Blank(number, column, f"is {cell}, a missing value: leave the row out")
        if isinstance(cell, str) and not cell.strip():
            return Blank(number, column, text_problem(cell) or "is blank: leave the row out")
    return None


def message_of_blanks(source: str, blanks: Sequence[Blank]) -> str:
    """The message for rows without a text: how many, which, and how to drop them.

    Args:
        source: The file or data set.
        blanks: One or more, in the order of the source.
    """
    first = blanks[0]
    message = f"{source}:{first.number}: {first.column!r} {first.problem}"
    if len(blanks) == 1:
        return message
    numbers = ", ".join(str(each.number) for each in blanks[:_MOST_NUMBERS])
    more = len(blanks) - _MOST_NUMBERS
    numbers += f" and {more} more" if more > 0 else ""
    columns = sorted({each.column for each in blanks})
    return (
        f"{message}. {len(blanks)} rows have no text, and this is the first ({numbers}). In pandas "
        f"this drops them: {_in_pandas(columns)}"
    )


def _in_pandas(columns: Sequence[str]) -> str:
    kept = [f"df[{column!r}].fillna('').str.strip().ne('')" for column in columns]
    return f"df = df[{' & '.join(kept)}]"
