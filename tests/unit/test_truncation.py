"""How many rows a member cuts, and which length would hold almost all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.config.truncation import HELD, truncation_of_counts
from cascadebert_core.windows import MEAN, Windows


def test_rows_are_cut_above_the_maximum_only() -> None:
    counts = np.array([10] * 90 + [32] * 5 + [33, 40, 60, 70, 500])
    found = truncation_of_counts(counts, member="small", max_length=32)
    assert (found.rows, found.cut, found.holds, found.longest) == (100, 5, 70, 500)
    assert "5 of 100 rows" in str(found)
    assert "max_length = 70 would hold 99%" in str(found)
    assert "positions" not in str(found)
    limited = truncation_of_counts(counts, member="small", max_length=32, max_positions=64)
    assert "positions for 64" in str(limited)


def test_a_length_that_holds_almost_all_rows_is_not_to_be_raised() -> None:
    found = truncation_of_counts(np.array([10] * 99 + [50]), member="small", max_length=32)
    assert (found.cut, found.holds) == (1, 10)
    assert "would hold" not in str(found)
    assert "the longest has 50" in str(found)
    assert "1 of 100 rows has more than max_length = 32 tokens and is cut" in str(found)


def test_rows_in_windows_are_cut_after_the_last_window() -> None:
    windows = Windows(MEAN, 6, 4)
    # A window has 30 tokens of the text and 2 special ones; four hold 30 + 3 * 24.
    counts = np.array([10] * 90 + [32] * 5 + [33, 40, 104, 105, 500])
    found = truncation_of_counts(
        counts, member="small", max_length=32, windows=windows, window_size=30
    )
    assert (found.cut, found.windowed, found.max_windows) == (2, 5, 4)
    assert found.is_notable
    assert "5 of 100 rows have more than max_length = 32 tokens and are read" in str(found)
    assert "2 of them are cut after max_windows = 4" in str(found)
    short = truncation_of_counts(
        counts[:95], member="small", max_length=32, windows=windows, window_size=30
    )
    assert (short.cut, short.windowed, short.is_notable) == (0, 0, False)


@given(st.lists(st.integers(3, 10_000), min_size=1, max_size=300), st.integers(3, 512))
def test_the_length_that_holds_is_the_smallest_one(counts: list[int], max_length: int) -> None:
    found = truncation_of_counts(np.array(counts), member="m", max_length=max_length)
    assert found.cut == sum(count > max_length for count in counts)
    whole = sum(count <= found.holds for count in counts)
    assert 100 * whole >= HELD * len(counts)
    fewer = sum(count < found.holds for count in counts)
    assert 100 * fewer < HELD * len(counts)


@pytest.mark.parametrize("n", [1, 99, 100, 101])
def test_a_share_of_a_hundred_rows_is_not_rounded_up(n: int) -> None:
    found = truncation_of_counts(np.arange(1, n + 1), member="m", max_length=3)
    assert found.holds == -(-99 * n // 100)
