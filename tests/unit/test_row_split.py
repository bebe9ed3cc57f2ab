"""Held-out rows are split into disjoint parts, always in the same way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascadebert_build.config.rows import Rows
from cascadebert_build.tuning.row_split import split_rows_for_tuning


def rows_of(n: int, *, labelled: bool = True) -> Rows:
    labels = tuple(i % 2 for i in range(n)) if labelled else None
    return Rows(tuple(f"row {i}" for i in range(n)), labels, "test")


@given(st.integers(1, 600), st.booleans())
def test_every_row_has_one_part(n: int, labelled: bool) -> None:
    rows = rows_of(n, labelled=labelled)
    split = split_rows_for_tuning(rows)
    parts = [split.temperature, split.design, split.test, split.report, split.duplicates]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    np.testing.assert_array_equal(
        split.thresholds, np.sort(np.concatenate([split.design, split.test]))
    )
    again = split_rows_for_tuning(replace(rows, source="elsewhere"))
    for one, other in zip(parts[:4], [again.temperature, again.design, again.test, again.report],
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_shares() -> None:
    counts = split_rows_for_tuning(rows_of(1000)).counts()
    assert counts == {
        "temperature": 200, "design": 200, "test": 400, "report": 200, "duplicates": 0,
    }  # fmt: skip
    for rows, temperatures in ((rows_of(1000, labelled=False), True), (rows_of(1000), False)):
        split = split_rows_for_tuning(rows, temperatures=temperatures)
        assert len(split.temperature) == 0
        assert len(split.test) == 600
    assert len(split_rows_for_tuning(rows_of(240)).temperature) == 0  # 48 would be too few


def test_duplicates_count_once_if_they_are_to_be_dropped() -> None:
    pairs = (("a", "bc"), ("ab", "c"), ("a", "bc"), ("a", "bc"), ("ab", "c"))
    rows = Rows(pairs, None, "test")
    assert len(split_rows_for_tuning(rows).duplicates) == 0  # real inputs may repeat
    split = split_rows_for_tuning(rows, drop_duplicates=True)
    assert split.duplicates.tolist() == [2, 3, 4]
    rest = np.concatenate([split.design, split.test, split.report])
    assert sorted(rest.tolist()) == [0, 1]


def test_the_report_does_not_depend_on_the_other_parts() -> None:
    with_temperatures = split_rows_for_tuning(rows_of(872))
    without = split_rows_for_tuning(rows_of(872), temperatures=False)
    np.testing.assert_array_equal(with_temperatures.report, without.report)
    unlabelled = split_rows_for_tuning(rows_of(872, labelled=False))
    np.testing.assert_array_equal(with_temperatures.report, unlabelled.report)
