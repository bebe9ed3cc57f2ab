"""Calls of a reloaded artefact on rows whose FP32 logits are known, and how far its logits lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import EncodedRow

from ..errors import UsageError
from .reference import Reference

# Calls that are compared for one size of a call: with real text on every one of their rows.
_CALLS = {1: 12}
_MORE_ROWS_CALLS = 2


@dataclass(frozen=True, slots=True)
class ComparedCalls:
    """Calls of one length and one number of rows.

    Attributes:
        length: padded, in tokens; None: each row's own bucket.
        batch: rows in a call.
        rows: compared in all.
        truncated_rows: those among them that were cut to the maximum length.
        max_difference, p50_difference, p99_difference, mean_difference: of a logit, absolute.
        label_agreement: share of rows with the FP32 graph's label.
        non_finite: NaN and infinite logits.
    """

    length: int | None
    batch: int
    rows: int
    truncated_rows: int
    max_difference: float
    p50_difference: float
    p99_difference: float
    mean_difference: float
    label_agreement: float
    non_finite: int

    @property
    def where(self) -> str:
        """The calls, in words."""
        rows = "1 row" if self.batch == 1 else f"{self.batch} rows"
        length = "its own bucket" if self.length is None else f"{self.length} tokens"
        return f"{rows} of {length}"

    def failures(self, max_difference: float, p99_difference: float) -> list[str]:
        """A sentence for everything that is out of these tolerances of a logit's difference."""
        found: list[str] = []
        if self.non_finite:
            found.append(f"{self.where}: {self.non_finite} logits are NaN or infinite")
        for value, allowed, what in (
            (self.max_difference, max_difference, "a logit differs by"),
            (self.p99_difference, p99_difference, "1% of the logits differ by more than"),
        ):
            if not value <= allowed:  # NaN too
                found.append(f"{self.where}: {what} {value:.1e} (tolerance {allowed:.2g})")
        return found


def compare_calls(
    logits: NDArray[np.float32],
    reference: Reference,
    calls: Sequence[Sequence[int]],
    length: int | None,
) -> ComparedCalls:
    """The figures of calls of one size.

    Args:
        logits: of the artefact, of shape (n, n_labels), the calls' rows end to end.
        reference: the rows with the FP32 graph's logits.
        calls: indices of the rows of each call.
        length: padded; None: each row's own bucket.
    """
    indices = [i for call in calls for i in call]
    return ComparedCalls(
        length=length,
        batch=len(calls[0]),
        rows=len(indices),
        truncated_rows=sum(bool(reference.rows[i].truncated) for i in indices),
        **difference_of_logits(logits, reference.logits[indices]),
    )


def calls_of_rows(rows: Sequence[EncodedRow], length: int, batch: int) -> list[list[int]]:
    """Indices of the rows of a few calls with `batch` rows of `length` tokens or less.

    The longest and the shortest come first; the list starts again where there are too few rows.

    Raises:
        UsageError: no row fits the length.
    """
    fitting = _fitting(rows, length)
    calls = _CALLS.get(batch, _MORE_ROWS_CALLS)
    return [
        [fitting[(call * batch + i) % len(fitting)] for i in range(batch)] for call in range(calls)
    ]


def _fitting(rows: Sequence[EncodedRow], length: int) -> list[int]:
    """Rows that fit a length, the longest and the shortest first and the rest as they come."""
    fitting = [i for i, row in enumerate(rows) if len(row) <= length]
    if not fitting:
        raise UsageError(
            f"no row of the held-out data fits the profile of {length} tokens: the shortest has "
            f"{min(map(len, rows))}; leave that bucket out"
        )
    by_length = sorted(fitting, key=lambda i: -len(rows[i]))
    return list(dict.fromkeys([by_length[0], by_length[-1], *fitting]))


def difference_of_logits(
    logits: NDArray[np.float32], wanted: NDArray[np.float32]
) -> dict[str, Any]:
    """The figures of a case, for logits of shape (n, n_labels)."""
    differences = np.abs(logits - wanted)
    finite = differences[np.isfinite(differences)]
    others = logits.argmax(axis=1) != wanted.argmax(axis=1)
    p50, p99 = np.percentile(finite, (50, 99)) if finite.size else (0.0, 0.0)
    return {
        "max_difference": float(finite.max(initial=0.0)),
        "p50_difference": float(p50),
        "p99_difference": float(p99),
        "mean_difference": float(finite.mean()) if finite.size else 0.0,
        "label_agreement": float(1 - others.mean()),
        "non_finite": int((~np.isfinite(logits)).sum()),
    }


def mean_over_rows(cases: Sequence[ComparedCalls], values: Sequence[float]) -> float:
    """The mean of a value of each case, weighted by its rows."""
    return float(np.average(values, weights=[case.rows for case in cases]))
