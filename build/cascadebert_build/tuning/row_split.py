"""Splits held-out rows into disjoint parts, one for each purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import Text

from ..config.rows import Rows

SEED = 0
_TEMPERATURE_SHARE = 0.2
_REPORT_SHARE = 0.2
_DESIGN_SHARE = 0.2
# A temperature fitted on fewer rows is mostly noise.
MIN_TEMPERATURE_ROWS = 50


@dataclass(frozen=True, slots=True)
class RowSplit:
    """Ascending indices of the rows for each purpose; every row has one.

    Attributes:
        temperature: Fit temperatures; empty without labels or with few rows.
        design: Choose the sequence in which settings are tested, if the method needs one.
        test: Test the settings.
        report: Choose nothing; `evaluate` reports on them by default.
        duplicates: Left out, since an earlier row has the same text and duplicates are dropped.
    """

    temperature: NDArray[np.intp]
    design: NDArray[np.intp]
    test: NDArray[np.intp]
    report: NDArray[np.intp]
    duplicates: NDArray[np.intp]

    @property
    def thresholds(self) -> NDArray[np.intp]:
        """Rows that choose thresholds if no sequence is needed: `design` and `test`."""
        return np.sort(np.concatenate([self.design, self.test]))

    def counts(self) -> dict[str, int]:
        """Number of rows of each part."""
        return {
            "temperature": len(self.temperature),
            "design": len(self.design),
            "test": len(self.test),
            "report": len(self.report),
            "duplicates": len(self.duplicates),
        }


def split_rows_for_tuning(
    rows: Rows, *, temperatures: bool = True, drop_duplicates: bool = False
) -> RowSplit:
    """Split rows with `SEED`; the same rows always give the same parts.

    Args:
        rows: Held out of the members' training, with the distribution of future inputs.
        temperatures: Whether temperatures are to be fitted.
        drop_duplicates: Use each text once. This is right if rows were copied. It is wrong if real
            inputs repeat: a guarantee is about inputs, and a frequent one counts more often.
    """
    distinct = first_of_texts(rows) if drop_duplicates else np.arange(len(rows.texts))
    duplicates = np.setdiff1d(np.arange(len(rows.texts)), distinct)
    order = np.random.default_rng(SEED).permutation(distinct)
    n = len(order)
    n_temperature = round(n * _TEMPERATURE_SHARE)
    if not temperatures or rows.labels is None or n_temperature < MIN_TEMPERATURE_ROWS:
        n_temperature = 0
    # The report is first, so that its rows do not depend on the other parts.
    ends = np.cumsum([round(n * _REPORT_SHARE), n_temperature, round(n * _DESIGN_SHARE)])
    report, temperature, design, test = (np.sort(part) for part in np.split(order, ends))
    return RowSplit(temperature, design, test, report, duplicates)


def first_of_texts(rows: Rows) -> NDArray[np.intp]:
    """Ascending indices of the first row of every distinct text."""
    first: dict[Text, int] = {}
    for i, text in enumerate(rows.texts):
        first.setdefault(text, i)
    return np.array(list(first.values()), dtype=np.intp)
