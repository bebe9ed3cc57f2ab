"""Every row once an epoch, little padding, and hard rows in every batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadebert_build.training.sampling import epoch_order


@settings(deadline=None)
@given(
    n=st.integers(1, 400),
    batch_size=st.integers(1, 33),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_every_row_is_drawn_once_and_batches_are_full(
    n: int, batch_size: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 128, n).tolist()
    hard = rng.random(n) < share
    order = epoch_order(lengths, batch_size, rng, hard)
    assert sorted(order) == list(range(n))


def test_every_batch_has_its_share_of_hard_rows() -> None:
    rng = np.random.default_rng(0)
    n, batch_size = 10_007, 32
    lengths = rng.integers(3, 128, n)
    hard = rng.random(n) < 0.1
    order = np.array(epoch_order(lengths.tolist(), batch_size, rng, hard))
    batches = order[: n // batch_size * batch_size].reshape(-1, batch_size)
    counts = hard[batches].sum(axis=1)
    # 3.2 of 32 on average; a random order would leave 3% of the batches without any.
    assert counts.min() >= 1
    assert counts.max() <= 6


def test_batches_have_rows_of_similar_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 128, 20_000)
    for hard in (None, rng.random(len(lengths)) < 0.2):
        order = np.array(epoch_order(lengths.tolist(), 32, rng, hard))
        batches = lengths[order].reshape(-1, 32)
        padded = batches.max(axis=1, keepdims=True) * np.ones(32)
        random = lengths[rng.permutation(len(lengths))].reshape(-1, 32)
        wasted = 1 - lengths.sum() / padded.sum()
        wasted_at_random = 1 - lengths.sum() / (random.max(axis=1) * 32).sum()
        assert wasted < 0.1 < wasted_at_random


def test_epochs_differ_and_seeds_repeat() -> None:
    lengths = list(range(3, 103))
    rng = np.random.default_rng(0)
    first, second = epoch_order(lengths, 8, rng), epoch_order(lengths, 8, rng)
    assert first != second
    assert first == epoch_order(lengths, 8, np.random.default_rng(0))
