"""The labels of multi-label rows: lists of labels, or a column of 0 and 1 for each label."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, cast

from ..errors import UsageError
from .labels import Label

# As it stands in a file: one label, or a list of labels.
LabelOrSet = Label | tuple[Label, ...]

# As pandas writes integers, floats and booleans.
_ONES, _ZEROS = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


def members_of_set(label: LabelOrSet, names: Collection[str]) -> tuple[Label, ...]:
    """The labels in a row's set, as they are written.

    Args:
        label: A list; or a text, which is a JSON array or else a single label.
        names: The names of all labels. A text that is one of them is a single label.
    """
    if isinstance(label, tuple):
        return label
    if isinstance(label, str) and label not in names and label.lstrip().startswith("["):
        try:
            found = cast("list[Any]", json.loads(label))
        except (ValueError, RecursionError):
            return (label,)
        if all(type(each) in {int, str} for each in found):
            return tuple(found)
    return (label,)


def set_of_columns(values: Sequence[Any], columns: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of the columns that have a 1.

    Args:
        values: One for each column, in text or as JSON has them.
        columns: The columns, which have the names of the labels.
        where: The row's place, for messages.

    Raises:
        UsageError: A value is neither 0 nor 1.
    """
    found: list[str] = []
    for value, column in zip(values, columns, strict=True):
        text = str(value).strip().lower()
        if text not in _ONES | _ZEROS:
            raise UsageError(
                f"{where}: {column!r} is {value!r}: give 1 if the row has this label, else 0"
            )
        if text in _ONES:
            found.append(column)
    return tuple(found)
