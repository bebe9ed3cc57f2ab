"""The order of the rows of an epoch: little padding, and hard rows in every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# Batches whose rows are sorted by length together: enough for batches of like rows, few enough
# that an epoch is still in random order.
_BATCHES_TOGETHER = 32


def epoch_order(
    lengths: Sequence[int],
    batch_size: int,
    rng: np.random.Generator,
    hard: NDArray[np.bool_] | None = None,
) -> list[int]:
    """Indices of all rows, each once; consecutive `batch_size` of them are a batch.

    Rows of like length share a batch, as with Trainer's `group_by_length`. Where it is known which
    rows are hard, every batch gets its share of them (or they are as evenly spread as they can be,
    where there are fewer hard rows than batches).

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch.
        rng: of the order.
        hard: shape (n,).
    """
    shuffled = rng.permutation(len(lengths))
    batches: list[NDArray[np.intp]] = []
    # A whole number of batches at a time, each group with its share of the hard rows.
    spread = _evenly_mixed(shuffled, hard)
    for group in _groups(spread, batch_size * _BATCHES_TOGETHER):
        by_length = group[np.argsort(-np.asarray(lengths)[group], kind="stable")]
        mixed = _evenly_mixed(by_length, hard)
        batches += list(_groups(mixed, batch_size))
    # The last batch may be short, and stays where it is.
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    order = [full[i] for i in rng.permutation(len(full))] + rest
    return [int(i) for batch in order for i in batch]


def _evenly_mixed(rows: NDArray[np.intp], hard: NDArray[np.bool_] | None) -> NDArray[np.intp]:
    """Easy and hard rows, each in their order, at even distances from one another."""
    if hard is None:
        return rows
    kinds = [rows[~hard[rows]], rows[hard[rows]]]
    # Row i of k comes to (i + 1/2) / k of the way.
    places = np.concatenate([(np.arange(len(kind)) + 0.5) / max(1, len(kind)) for kind in kinds])
    return np.concatenate(kinds)[np.argsort(places, kind="stable")]


def _groups(rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
