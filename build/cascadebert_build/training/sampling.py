"""The order of rows in an epoch: little padding, and hard rows in every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# Number of batches whose rows are sorted by length together: enough for batches of similar length,
# few enough to keep the epoch in random order.
_BATCHES_TOGETHER = 32


def epoch_order(
    lengths: Sequence[int],
    batch_size: int,
    rng: np.random.Generator,
    hard: NDArray[np.bool_] | None = None,
) -> list[int]:
    """Indices of all rows, each once; consecutive `batch_size` of them are a batch.

    Rows of similar length share a batch, as with Trainer's `group_by_length`. If `hard` is given,
    hard rows are spread evenly over the batches.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows in a batch.
        rng: Decides the order.
        hard: Whether a row is hard, shape (n,).
    """
    shuffled = rng.permutation(len(lengths))
    batches: list[NDArray[np.intp]] = []
    # Each group is a whole number of batches, with its share of the hard rows.
    spread = _evenly_mixed(shuffled, hard)
    for group in _groups(spread, batch_size * _BATCHES_TOGETHER):
        by_length = group[np.argsort(-np.asarray(lengths)[group], kind="stable")]
        mixed = _evenly_mixed(by_length, hard)
        batches += list(_groups(mixed, batch_size))
    # The last batch may be short and stays last.
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    order = [full[i] for i in rng.permutation(len(full))] + rest
    return [int(i) for batch in order for i in batch]


def _evenly_mixed(rows: NDArray[np.intp], hard: NDArray[np.bool_] | None) -> NDArray[np.intp]:
    """Easy and hard rows mixed at even distances; each kind keeps its order."""
    if hard is None:
        return rows
    kinds = [rows[~hard[rows]], rows[hard[rows]]]
    # Row i of the k rows of a kind goes to the position (i + 1/2) / k, from 0 to 1.
    places = np.concatenate([(np.arange(len(kind)) + 0.5) / max(1, len(kind)) for kind in kinds])
    return np.concatenate(kinds)[np.argsort(places, kind="stable")]


def _groups(rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
