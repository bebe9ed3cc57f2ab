"""Rows to padded batches: buckets, padding, and what may share a call of a stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from .tokenization import EncodedRow

# Two halves of a call cost as much as the whole and the price of one more call. A call is halved
# where that is a twelfth at most.
_WORTH_HALVING = 12


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


def chunks_by_cost(
    lengths: Sequence[int], max_rows: int, buckets: Sequence[int], call_tokens: int
) -> list[list[int]]:
    """Split rows into the calls that cost least: their padded tokens, and a price for each call.

    On a CPU a short row in a call of long ones costs as much as they do, and calls of one bucket
    each are cheaper; on a GPU a call costs as much as thousands of tokens, and one call is.

    Args:
        lengths: tokens of each row.
        max_rows: of one call.
        buckets: padded lengths in tokens, ascending.
        call_tokens: what a call costs beside its tokens, in padded tokens.

    Returns:
        Lists of indices into `lengths`, shorter rows first, each of at most `max_rows`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [bucket_of(lengths[i], buckets) for i in order]
    # A call ends where a bucket does, or for want of room.
    edges = [i for i in range(len(order)) if i == 0 or padded[i] != padded[i - 1]]
    edges.append(len(order))
    # By edge: what the rows before it cost at least, and the edge at which their last calls begin.
    cost, begin = [0], [0]
    for end in range(1, len(edges)):
        found: list[int] = []
        for start in range(end):
            rows = edges[end] - edges[start]
            calls = -(-rows // max_rows)
            found.append(cost[start] + rows * padded[edges[end] - 1] + calls * call_tokens)
        best = min(range(end), key=found.__getitem__)
        cost.append(found[best])
        begin.append(best)
    chunks: list[list[int]] = []
    end = len(edges) - 1
    while end:
        part = order[edges[begin[end]] : edges[end]]
        chunks += [part[i : i + max_rows] for i in range(0, len(part), max_rows)][::-1]
        end = begin[end]
    return chunks[::-1]


def halved_for_parallel(
    chunks: Sequence[list[int]],
    lengths: Sequence[int],
    buckets: Sequence[int],
    call_tokens: int,
    parallel: int,
) -> list[list[int]]:
    """Halve the dearest calls until as many may run at a time, where halves cost little more.

    Args:
        chunks: lists of indices into `lengths`, a call each.
        lengths: tokens of each row.
        buckets: padded lengths in tokens, ascending.
        call_tokens: what a call costs beside its tokens, in padded tokens.
        parallel: calls that may run at a time.

    Returns:
        The calls; where several run at a time, dearest first, so that none begins when all others
        have ended.
    """
    if parallel == 1:
        return list(chunks)

    def tokens(chunk: list[int]) -> int:
        return len(chunk) * bucket_of(max(lengths[i] for i in chunk), buckets)

    calls = sorted(chunks, key=tokens, reverse=True)
    while calls and len(calls) < parallel:
        dearest = calls[0]
        if len(dearest) == 1 or tokens(dearest) < _WORTH_HALVING * call_tokens:
            break
        middle = len(dearest) // 2
        calls[:1] = [dearest[:middle], dearest[middle:]]
        calls.sort(key=tokens, reverse=True)
    return calls
