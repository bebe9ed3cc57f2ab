"""Held-out rows cut into parts that never share a row: each answers one question."""

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
# A temperature from fewer rows is mostly noise.
MIN_TEMPERATURE_ROWS = 50


@dataclass(frozen=True, slots=True)
class RowSplit:
    """Indices of rows, ascending; together they are all distinct rows.

    Attributes:
        temperature: fit temperatures; empty without labels or with few rows.
        design: say in which order settings are tested, where other rows must.
        test: test them.
        report: have no part in any choice, and are what `evaluate` reports by default.
        duplicates: rows left out, since their text stands further up and somebody said that such
            rows are copies.
    """

    temperature: NDArray[np.intp]
    design: NDArray[np.intp]
    test: NDArray[np.intp]
    report: NDArray[np.intp]
    duplicates: NDArray[np.intp]

    @property
    def thresholds(self) -> NDArray[np.intp]:
        """Rows that may choose thresholds where no order is needed: `design` and `test`."""
        return np.sort(np.concatenate([self.design, self.test]))

    def counts(self) -> dict[str, int]:
        """Rows of each part."""
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
    """Cut rows with `SEED`; the same rows are always cut alike.

    Args:
        rows: held out of the members' training, drawn as inputs will come.
        temperatures: whether temperatures are to be fitted.
        drop_duplicates: let a text count once. Right where rows were copied; wrong where inputs
            repeat themselves, for then the promise is on inputs, and a frequent one counts often.
    """
    distinct = first_of_texts(rows) if drop_duplicates else np.arange(len(rows.texts))
    duplicates = np.setdiff1d(np.arange(len(rows.texts)), distinct)
    order = np.random.default_rng(SEED).permutation(distinct)
    n = len(order)
    n_temperature = round(n * _TEMPERATURE_SHARE)
    if not temperatures or rows.labels is None or n_temperature < MIN_TEMPERATURE_ROWS:
        n_temperature = 0
    # The report comes first: which rows it has must not hang on what else is cut.
    ends = np.cumsum([round(n * _REPORT_SHARE), n_temperature, round(n * _DESIGN_SHARE)])
    report, temperature, design, test = (np.sort(part) for part in np.split(order, ends))
    return RowSplit(temperature, design, test, report, duplicates)


def first_of_texts(rows: Rows) -> NDArray[np.intp]:
    """Indices of the rows whose text stands nowhere before them, ascending."""
    first: dict[Text, int] = {}
    for i, text in enumerate(rows.texts):
        first.setdefault(text, i)
    return np.array(list(first.values()), dtype=np.intp)
