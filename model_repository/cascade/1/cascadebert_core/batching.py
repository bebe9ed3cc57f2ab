"""Rows to padded batches: buckets, padding, and what may share a call of a stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from .tokenization import EncodedRow


@dataclass(frozen=True, slots=True)
class StageBatch:
    """The padded input of one call of a stage.

    Attributes:
        tensors: int32 arrays of shape (rows, length), by the names that the stage takes.
        trace: of one of the requests in it, for the call to be part of; None without tracing.
    """

    tensors: dict[str, NDArray[np.int32]]
    trace: object | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and padded length in tokens."""
        rows, length = self.tensors[INPUT_IDS].shape
        return rows, length


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tokens.

    Raises:
        ValueError: no bucket does.
    """
    index = bisect_left(buckets, length)
    if index == len(buckets):
        raise ValueError(f"a row of {length} tokens is longer than the largest bucket of {buckets}")
    return buckets[index]


def pad_rows(
    rows: Sequence[EncodedRow],
    inputs: Sequence[str],
    buckets: Sequence[int],
    pad_id: int,
    trace: object | None = None,
) -> StageBatch:
    """Pad rows on the right to the bucket of the longest.

    Absolute positions start at the first token, so right padding is what keeps a row's logits
    those of the row alone, whatever side a tokenizer would pad on by itself.

    Args:
        rows: at least one.
        inputs: names of the tensors to make.
        buckets: padded lengths, ascending.
        pad_id: the token id of padding; RoBERTa's positions depend on it.
        trace: for the batch to carry.
    """
    length = bucket_of(max(map(len, rows)), buckets)
    shape = (len(rows), length)
    filled = {
        INPUT_IDS: np.full(shape, pad_id, dtype=np.int32),
        ATTENTION_MASK: np.zeros(shape, dtype=np.int32),
    }
    if TOKEN_TYPE_IDS in inputs:
        filled[TOKEN_TYPE_IDS] = np.zeros(shape, dtype=np.int32)
    for i, row in enumerate(rows):
        filled[INPUT_IDS][i, : len(row)] = row.ids
        filled[ATTENTION_MASK][i, : len(row)] = 1
        if TOKEN_TYPE_IDS in inputs:
            filled[TOKEN_TYPE_IDS][i, : len(row)] = row.type_ids
    return StageBatch(filled, trace)


def chunks_by_length(lengths: Sequence[int], max_rows: int) -> list[list[int]]:
    """Split rows into as few calls as `max_rows` allows.

    One call where all rows fit; else rows of like length share one, which saves padding.

    Returns:
        Lists of indices into `lengths`, each of at most `max_rows`.
    """
    if len(lengths) <= max_rows:
        return [list(range(len(lengths)))] if lengths else []
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + max_rows] for start in range(0, len(order), max_rows)]
