"""Buckets, padding and chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_core.batching import bucket_of, chunks_by_length, pad_rows
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


@given(st.lists(st.integers(1, 99), max_size=40), st.integers(1, 9))
def test_chunks_hold_every_row_once_in_as_few_calls_as_can_be(
    lengths: list[int], most: int
) -> None:
    chunks = chunks_by_length(lengths, most)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    assert len(chunks) == -(-len(lengths) // most)
    assert all(len(chunk) <= most for chunk in chunks)


def test_rows_that_need_several_calls_share_them_by_length() -> None:
    assert chunks_by_length([9, 1, 8, 2], 2) == [[1, 3], [2, 0]]
