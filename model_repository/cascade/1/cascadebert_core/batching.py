"""Rows to padded batches: buckets, padding, and which rows share a call of a stage."""

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

# The halves of a call cost as much as the whole plus the price of one more call. A call is halved
# only if that price is at most a twelfth of its tokens.
_WORTH_HALVING = 12
# From this many rows on, arrays of all rows' tokens are faster than a loop over the rows.
_MANY = 8


@dataclass(slots=True, eq=False)
class StageBatch:
    """The padded input of one call of a stage. It is never changed.

    Attributes:
        tensors: int32 arrays of shape (rows, length), by input name.
        trace: The trace of one of its requests, which the call joins; None without tracing.
    """

    tensors: dict[str, NDArray[np.int32]]
    trace: object | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and padded length in tokens."""
        rows, length = self.tensors[INPUT_IDS].shape
        return rows, length


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds `length` tokens.

    Raises:
        ValueError: No bucket is long enough.
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
    """Pad rows on the right to the bucket of the longest row.

    Absolute positions start at the first token. So only right padding keeps a row's logits equal to
    those of the row alone, and a tokenizer's own padding side is ignored.

    Args:
        rows: The rows, at least one.
        inputs: Names of the tensors to make.
        buckets: Padded lengths in tokens, ascending.
        pad_id: The token id of padding; RoBERTa's positions depend on it.
        trace: The trace that the batch carries.
    """
    of_rows = [row.ids for row in rows]
    lengths = [len(ids) for ids in of_rows]
    shape = (len(rows), bucket_of(max(lengths), buckets))
    ids = np.empty(shape, dtype=np.int32)
    ids.fill(pad_id)
    mask = np.zeros(shape, dtype=np.int32)
    filled = {INPUT_IDS: ids, ATTENTION_MASK: mask}
    types = None
    if TOKEN_TYPE_IDS in inputs:
        types = filled[TOKEN_TYPE_IDS] = np.zeros(shape, dtype=np.int32)
    if len(rows) < _MANY:
        for i, row in enumerate(rows):
            n = lengths[i]
            ids[i, :n] = of_rows[i]
            mask[i, :n] = 1
            if types is not None:
                types[i, :n] = row.type_ids
        return StageBatch(filled, trace)
    # True at the tokens, row by row, which is the order of the rows' tokens one after another.
    held = np.arange(shape[1]) < np.array(lengths)[:, None]
    ids[held] = np.concatenate(of_rows)
    mask[held] = 1
    if types is not None:
        types[held] = np.concatenate([row.type_ids for row in rows])
    return StageBatch(filled, trace)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The limits and the cost of a call of a stage.

    Attributes:
        buckets: Padded lengths in tokens, ascending.
        max_rows: The most rows in one call.
        max_tokens: The most padded tokens in one call; a single row may have more.
        call_tokens: The price of a call besides its tokens, in padded tokens.
    """

    buckets: tuple[int, ...]
    max_rows: int
    max_tokens: int
    call_tokens: int

    @classmethod
    def of_stage(cls, stage: StagePolicy) -> CallLimits:
        """Return the limits that the policy sets."""
        return cls(stage.buckets, stage.max_batch_size, stage.max_call_tokens, stage.call_tokens)

    def rows(self, length: int) -> int:
        """Return how many rows of this padded length one call may hold."""
        return max(1, min(self.max_rows, self.max_tokens // length))


def plan_calls(lengths: Sequence[int], limits: CallLimits) -> list[list[int]]:
    """Split rows into the calls that cost least, in padded tokens plus a price for each call.

    On a CPU the price is small, and a short row padded to a long one's length costs as much as that
    row: each bucket gets a call. On a GPU the price is thousands of tokens: buckets share a call.

    Three rows of 90, 10 and 12 tokens, with buckets of 16 and 96::

        calls                  padded tokens    cost at a price of 20    at a price of 1,000
        [10, 12], [90]         32 + 96 = 128    168 (chosen)             2,128
        [10, 12, 90]           3 * 96 = 288     308                      1,288 (chosen)

    Args:
        lengths: Tokens of each row.
        limits: The stage's limits.

    Returns:
        Lists of indices into `lengths`. Rows of shorter buckets come first, and rows of one bucket
        keep their order. Rows that need several calls are spread evenly over them.
    """
    if not lengths:
        return []
    buckets = limits.buckets
    padded_to = bucket_of(max(lengths), buckets)
    if bucket_of(min(lengths), buckets) == padded_to:  # the common case needs no search
        return _in_equal_parts(list(range(len(lengths))), limits.rows(padded_to))
    bucket = [buckets[bisect_left(buckets, length)] for length in lengths]
    order = sorted(range(len(lengths)), key=bucket.__getitem__)
    padded = [bucket[i] for i in order]
    # A call ends at the end of a bucket, or when it is full.
    edges = [i for i in range(len(order)) if i == 0 or padded[i] != padded[i - 1]]
    edges.append(len(order))
    # For each edge: the lowest cost of the rows before it, and the edge where the last call starts.
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
    """Choose the rows of the next call: the oldest, and others that share a call with it cheaply.

    Rows of longer buckets than the oldest row's are left for a later call.

    Args:
        lengths: Tokens of each queued row, at least one, oldest first.
        limits: The stage's limits.

    Returns:
        Indices into `lengths`, ascending.
    """
    longest = bucket_of(lengths[0], limits.buckets)
    fitting = [i for i, length in enumerate(lengths) if length <= longest][: limits.max_rows]
    chunks = plan_calls([lengths[i] for i in fitting], limits)
    return sorted(fitting[i] for i in next(chunk for chunk in chunks if 0 in chunk))


def _in_equal_parts(rows: list[int], most: int) -> list[list[int]]:
    """Split rows into the fewest parts of at most `most` rows; their sizes differ by at most 1."""
    n_parts = -(-len(rows) // most)
    if n_parts == 1:
        return [rows]
    edges = [len(rows) * i // n_parts for i in range(n_parts + 1)]
    return [rows[start:end] for start, end in pairwise(edges)]


def split_by_windows(
    chunks: Sequence[list[int]], windows: Sequence[int], most: int
) -> list[list[int]]:
    """Split calls whose texts have more windows than fit, so that texts are answered sooner.

    Args:
        chunks: The planned calls, as lists of indices into `windows`.
        windows: Windows of each text, at least 1.
        most: The windows that fit into a call. A text of more is alone; its stage calls again.

    Returns:
        The calls, in the same order.
    """
    split: list[list[int]] = []
    for chunk in chunks:
        part: list[int] = []
        room = most
        for i in chunk:
            if part and windows[i] > room:
                split.append(part)
                part, room = [], most
            part.append(i)
            room -= windows[i]
        split.append(part)
    return split


def split_across_instances(
    chunks: Sequence[list[int]],
    lengths: Sequence[int],
    limits: CallLimits,
    parallel: int,
) -> list[list[int]]:
    """Halve the most expensive calls while instances are idle, if halves cost little more.

    Eight rows of 96 tokens (A) and four of 16 (B), three idle instances, a call's price of 20
    tokens, and time in tokens::

        time    A and B as planned                 A halved into A1 and A2
           0    A and B start, one instance idle   A1, A2 and B start
          84    B ends                             B ends
         404                                       A1 and A2 end: all is done
         788    A ends: all is done

    Args:
        chunks: The planned calls, as lists of indices into `lengths`.
        lengths: Tokens of each row.
        limits: The stage's limits.
        parallel: How many instances are idle.

    Returns:
        The calls. If several may run at the same time, the most expensive come first, so that no
        long call starts when the others are done.
    """
    if parallel == 1:
        return list(chunks)

    def tokens(chunk: list[int]) -> int:
        return len(chunk) * bucket_of(max(lengths[i] for i in chunk), limits.buckets)

    calls = sorted(chunks, key=tokens, reverse=True)
    while calls and len(calls) < parallel:
        largest = calls[0]
        if len(largest) == 1 or tokens(largest) < _WORTH_HALVING * limits.call_tokens:
            break
        middle = len(largest) // 2
        calls[:1] = [largest[:middle], largest[middle:]]
        calls.sort(key=tokens, reverse=True)
    return calls
