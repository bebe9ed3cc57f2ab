"""Rows to padded batches: buckets, padding, and what may share a call of a stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .contract import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from .policy import StagePolicy
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


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What a call of a stage may hold, and what it costs.

    Attributes:
        buckets: padded lengths in tokens, ascending.
        max_rows: of one call.
        max_tokens: of one call, padded; one row may have more.
        call_tokens: what a call costs beside its tokens, in padded tokens.
    """

    buckets: tuple[int, ...]
    max_rows: int
    max_tokens: int
    call_tokens: int

    @classmethod
    def of_stage(cls, stage: StagePolicy) -> CallLimits:
        """Those of the policy."""
        return cls(stage.buckets, stage.max_batch_size, stage.max_call_tokens, stage.call_tokens)

    def rows(self, length: int) -> int:
        """How many rows of this padded length one call may hold."""
        return max(1, min(self.max_rows, self.max_tokens // length))


def plan_calls(lengths: Sequence[int], limits: CallLimits) -> list[list[int]]:
    """Split rows into the calls that cost least: their padded tokens, and a price for each call.

    On a CPU a short row in a call of long ones costs as much as they do, and calls of one bucket
    each are cheaper; on a GPU a call costs as much as thousands of tokens, and one call is.

    Args:
        lengths: tokens of each row.
        limits: of the stage.

    Returns:
        Lists of indices into `lengths`: rows of shorter buckets first, and those of one bucket in
        the order in which they were given. Rows too many for one call are in calls of equal size.
    """
    bucket = [bucket_of(length, limits.buckets) for length in lengths]
    order = sorted(range(len(lengths)), key=bucket.__getitem__)
    padded = [bucket[i] for i in order]
    # A call ends where a bucket does, or for want of room.
    edges = [i for i in range(len(order)) if i == 0 or padded[i] != padded[i - 1]]
    edges.append(len(order))
    # By edge: what the rows before it cost at least, and the edge at which their last calls begin.
    cost, begin = [0], [0]
    for end in range(1, len(edges)):
        found: list[int] = []
        for start in range(end):
            rows, length = edges[end] - edges[start], padded[edges[end] - 1]
            calls = -(-rows // limits.rows(length))
            found.append(cost[start] + rows * length + calls * limits.call_tokens)
        best = min(range(end), key=found.__getitem__)
        cost.append(found[best])
        begin.append(best)
    chunks: list[list[int]] = []
    end = len(edges) - 1
    while end:
        part = order[edges[begin[end]] : edges[end]]
        chunks += _in_equal_parts(part, limits.rows(padded[edges[end] - 1]))[::-1]
        end = begin[end]
    return chunks[::-1]


def next_call(lengths: Sequence[int], limits: CallLimits) -> list[int]:
    """Which of the rows that wait are called next: the oldest, and those that go well with it.

    Rows that would stretch its padding stay for a later call, in which the oldest of them comes
    first.

    Args:
        lengths: tokens of each row, at least one, oldest first.
        limits: of the stage.

    Returns:
        Indices into `lengths`, ascending.
    """
    longest = bucket_of(lengths[0], limits.buckets)
    fitting = [i for i, length in enumerate(lengths) if length <= longest][: limits.max_rows]
    chunks = plan_calls([lengths[i] for i in fitting], limits)
    return sorted(fitting[i] for i in next(chunk for chunk in chunks if 0 in chunk))


def _in_equal_parts(rows: list[int], most: int) -> list[list[int]]:
    """As few parts as have at most `most` rows each; none is larger than another by two rows."""
    n_parts = -(-len(rows) // most)
    edges = [len(rows) * i // n_parts for i in range(n_parts + 1)]
    return [rows[start:end] for start, end in pairwise(edges)]


def split_across_instances(
    chunks: Sequence[list[int]],
    lengths: Sequence[int],
    limits: CallLimits,
    parallel: int,
) -> list[list[int]]:
    """Halve the dearest calls until as many may run at a time, where halves cost little more.

    Args:
        chunks: lists of indices into `lengths`, a call each.
        lengths: tokens of each row.
        limits: of the stage.
        parallel: calls that may run at a time.

    Returns:
        The calls; where several run at a time, dearest first, so that none begins when all others
        have ended.
    """
    if parallel == 1:
        return list(chunks)

    def tokens(chunk: list[int]) -> int:
        return len(chunk) * bucket_of(max(lengths[i] for i in chunk), limits.buckets)

    calls = sorted(chunks, key=tokens, reverse=True)
    while calls and len(calls) < parallel:
        dearest = calls[0]
        if len(dearest) == 1 or tokens(dearest) < _WORTH_HALVING * limits.call_tokens:
            break
        middle = len(dearest) // 2
        calls[:1] = [dearest[:middle], dearest[middle:]]
        calls.sort(key=tokens, reverse=True)
    return calls
