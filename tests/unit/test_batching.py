"""Buckets, padding and chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_core.batching import (
    CallLimits,
    bucket_of,
    next_call,
    pad_rows,
    plan_calls,
    split_across_instances,
)
from cascadebert_core.policy import ONE_CALL
from cascadebert_core.tokenization import EncodedRow


def row(*ids: int) -> EncodedRow:
    return EncodedRow(np.array(ids, np.int32), np.ones(len(ids), np.int32), truncated=False)


@pytest.mark.parametrize(("length", "bucket"), [(1, 4), (4, 4), (5, 8), (16, 16)])
def test_a_row_gets_the_smallest_bucket_that_holds_it(length: int, bucket: int) -> None:
    assert bucket_of(length, (4, 8, 16)) == bucket


def test_a_row_longer_than_every_bucket_is_an_error() -> None:
    with pytest.raises(ValueError, match="17 tokens"):
        bucket_of(17, (4, 8, 16))


def test_padding_is_on_the_right_with_the_tokenizers_own_id() -> None:
    batch = pad_rows(
        [row(5, 6), row(7, 8, 9)], ("input_ids", "attention_mask", "token_type_ids"), (4, 8), 1
    )
    assert batch.shape == (2, 4)
    assert batch.tensors["input_ids"].tolist() == [[5, 6, 1, 1], [7, 8, 9, 1]]
    assert batch.tensors["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch.tensors["token_type_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert {tensor.dtype for tensor in batch.tensors.values()} == {np.dtype(np.int32)}


def test_only_the_inputs_of_the_model_are_made() -> None:
    assert set(pad_rows([row(1)], ("input_ids", "attention_mask"), (4,), 0).tensors) == {
        "input_ids",
        "attention_mask",
    }


BUCKETS = tuple(range(16, 113, 16))


def limits_of(
    max_rows: int = 64,
    call_tokens: int = 0,
    max_tokens: int = ONE_CALL,
    buckets: tuple[int, ...] = BUCKETS,
) -> CallLimits:
    return CallLimits(buckets, max_rows, max_tokens, call_tokens)


def cheapest(lengths: list[int], limits: CallLimits) -> int:
    """The least that calls of these rows can cost, of all ways to cut them by length."""
    padded = sorted(bucket_of(length, BUCKETS) for length in lengths)
    cost = [0]
    for end in range(1, len(padded) + 1):
        starts = range(max(0, end - limits.rows(padded[end - 1])), end)
        cost.append(min(cost[s] + (end - s) * padded[end - 1] + limits.call_tokens for s in starts))
    return cost[-1]


@given(
    st.lists(st.integers(1, 99), max_size=40),
    st.integers(1, 9),
    st.sampled_from([0, 10, 100, 1000, ONE_CALL]),
    st.sampled_from([1, 100, 200, 400, ONE_CALL]),
)
def test_calls_hold_every_row_once_and_cost_little_more_than_they_must(
    lengths: list[int], most: int, call_tokens: int, max_tokens: int
) -> None:
    limits = limits_of(most, call_tokens, max_tokens)
    chunks = plan_calls(lengths, limits)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    padded = [bucket_of(max(lengths[i] for i in chunk), BUCKETS) for chunk in chunks]
    for chunk, length in zip(chunks, padded, strict=True):
        assert 0 < len(chunk) <= most
        assert len(chunk) == 1 or len(chunk) * length <= max_tokens
    cost = sum(
        len(chunk) * length + call_tokens for chunk, length in zip(chunks, padded, strict=True)
    )
    # Calls begin and end with buckets: each may have one call that is not full.
    n_buckets = len({bucket_of(length, BUCKETS) for length in lengths})
    assert cost <= cheapest(lengths, limits) + n_buckets * call_tokens
    if max_tokens == ONE_CALL:
        assert cost <= 1.25 * cheapest(lengths, limits)
    if call_tokens == max_tokens == ONE_CALL:
        assert len(chunks) == -(-len(lengths) // most)


@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=40),
    st.sampled_from([0, 10, 100, ONE_CALL]),
    st.sampled_from([1, 100, 400, ONE_CALL]),
)
def test_the_next_call_is_one_call_with_the_oldest_row_and_none_longer(
    lengths: list[int], call_tokens: int, max_tokens: int
) -> None:
    limits = limits_of(9, call_tokens, max_tokens)
    chosen = next_call(lengths, limits)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    longest = bucket_of(lengths[0], BUCKETS)
    assert all(lengths[i] <= longest for i in chosen)
    assert len(plan_calls([lengths[i] for i in chosen], limits)) == 1


@given(
    st.lists(st.integers(1, 99), max_size=40),
    st.sampled_from([0, 1, 10, 100, ONE_CALL]),
    st.integers(1, 5),
)
def test_halves_hold_every_row_once_and_cost_a_twelfth_more_at_most(
    lengths: list[int], call_tokens: int, parallel: int
) -> None:
    def cost(calls: list[list[int]]) -> int:
        padded = (len(call) * bucket_of(max(lengths[i] for i in call), BUCKETS) for call in calls)
        return sum(padded) + len(calls) * call_tokens

    limits = limits_of(16, call_tokens)
    chunks = plan_calls(lengths, limits)
    calls = split_across_instances(chunks, lengths, limits, parallel)
    assert sorted(i for call in calls for i in call) == list(range(len(lengths)))
    assert all(calls)
    assert len(calls) <= max(parallel, len(chunks))
    assert cost(calls) <= (1 + (parallel - 1) / 12) * cost(chunks)
    if parallel == 1:
        assert calls == chunks


def test_the_examples_of_the_docstrings() -> None:
    lengths, buckets = [90, 10, 12], (16, 96)
    assert plan_calls(lengths, limits_of(call_tokens=20, buckets=buckets)) == [[1, 2], [0]]
    assert plan_calls(lengths, limits_of(call_tokens=1000, buckets=buckets)) == [[1, 2, 0]]
    lengths, limits = [96] * 8 + [16] * 4, limits_of(call_tokens=20, buckets=buckets)
    b, a = plan_calls(lengths, limits)
    assert split_across_instances([b, a], lengths, limits, 3) == [a[:4], a[4:], b]


def test_a_large_call_is_halved_for_idle_instances() -> None:
    lengths, limits = [90] * 8 + [10] * 4, limits_of(call_tokens=20)
    chunks = plan_calls(lengths, limits)
    assert [len(chunk) for chunk in chunks] == [4, 8]
    assert split_across_instances(chunks, lengths, limits, 2) == [chunks[1], chunks[0]]
    three = split_across_instances(chunks, lengths, limits, 3)
    assert three == [chunks[1][:4], chunks[1][4:], chunks[0]]
    costly = limits_of(call_tokens=ONE_CALL)
    assert split_across_instances(chunks, lengths, costly, 3) == [chunks[1], chunks[0]]
    assert split_across_instances([[0]], lengths, limits_of(), 3) == [[0]]


def test_rows_share_a_call_where_its_price_is_above_the_padding() -> None:
    lengths = [90, 10, 12, 85]
    assert plan_calls(lengths, limits_of(call_tokens=0)) == [[1, 2], [0, 3]]
    # Two rows of 80 more tokens each.
    assert plan_calls(lengths, limits_of(call_tokens=159)) == [[1, 2], [0, 3]]
    assert plan_calls(lengths, limits_of(call_tokens=161)) == [[1, 2, 0, 3]]
    few = limits_of(2, ONE_CALL, buckets=(4, 8, 16))
    assert plan_calls([9, 1, 8, 2], few) == [[1, 3], [2, 0]]
    assert plan_calls([], limits_of()) == []


def test_rows_too_many_for_a_call_are_in_calls_of_one_size_in_their_order() -> None:
    assert plan_calls([10] * 9, limits_of(4)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    tokens = limits_of(max_tokens=128)
    assert plan_calls([10] * 9, tokens) == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert plan_calls([60, 30, 60, 60], tokens) == [[1], [0], [2, 3]]
    # One row is always a call.
    assert plan_calls([90, 90], limits_of(max_tokens=50)) == [[0], [1]]
