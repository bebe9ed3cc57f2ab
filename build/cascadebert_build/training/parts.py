"""The rows of a training: those to learn from, and those that choose the epoch."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config.rows import Rows
from ..errors import UsageError
from .config import one_label

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a training.

    Attributes:
        train: Rows to learn from.
        validation: Rows that choose the epoch.
        indices: The index of each training row in the data, shape (n,).
        hard: Whether a training row is hard, shape (n,); None: not known.
    """

    train: Rows
    validation: Rows
    indices: NDArray[np.int64]
    hard: NDArray[np.bool_] | None


def training_rows(
    rows: Rows,
    names: tuple[str, ...],
    seed: int,
    validation: Rows | None,
    hard: NDArray[np.bool_] | None,
) -> TrainingRows:
    """Hold out a tenth of the rows if no validation rows are given.

    Args:
        rows: All rows, with labels.
        names: The names of the labels.
        seed: Of the split.
        validation: Rows that choose the epoch, if they are given.
        hard: Whether a row is hard, shape (n,); None: not known.

    Raises:
        UsageError: There are too few rows, a label is unknown, or all rows to learn from have the
            same label.
    """
    rows.label_indices(names)  # before the split, so that every row is checked
    kept = list(range(len(rows.texts)))
    if validation is None:
        kept, held_out = split_indices(rows, _VALIDATION_SHARE, seed)
        validation = rows.subset(held_out)
    train = rows.subset(kept)
    labels = set(train.label_indices(names).tolist())
    if len(labels) < 2:
        raise UsageError(one_label(train, names[labels.pop()]))
    indices = np.array(kept, dtype=np.int64)
    return TrainingRows(train, validation, indices, None if hard is None else hard[indices])


def split_rows(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two disjoint parts, the second with `share` of the rows, drawn with `seed`.

    Raises:
        UsageError: There are too few rows to split.
    """
    first, second = split_indices(rows, share, seed)
    return rows.subset(first), rows.subset(second)


def split_indices(rows: Rows, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The indices of the rows in each part of `split_rows`, ascending."""
    n_second = round(len(rows.texts) * share)
    if not 0 < n_second < len(rows.texts):
        raise UsageError(f"{rows.source} has {len(rows.texts)} rows: too few to hold some out")
    order = list(range(len(rows.texts)))
    random.Random(seed).shuffle(order)
    return sorted(order[n_second:]), sorted(order[:n_second])
