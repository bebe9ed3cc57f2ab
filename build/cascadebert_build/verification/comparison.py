"""Compares the logits of a reloaded artefact with FP32 logits of the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.tokenization import EncodedRow

from ..errors import UsageError
from .reference import Reference

# The number of calls to compare, for calls of one row and for larger ones.
_SINGLE_CALLS, _BATCH_CALLS = 12, 2


@dataclass(frozen=True, slots=True)
class ComparedCalls:
    """The result for calls of one padded length and one batch size.

    Differences are absolute differences of a logit.

    Attributes:
        length: Padded length in tokens; None: each row's own bucket.
        batch: Rows in a call.
        rows: Number of rows in all calls.
        truncated_rows: Number of rows that were truncated to the maximum length.
        max_difference: The largest difference.
        p50_difference: The median difference.
        p99_difference: The 99th percentile of the differences.
        mean_difference: The mean difference.
        label_agreement: Share of rows with the FP32 graph's label.
        non_finite: Number of NaN and infinite logits.
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
        """The calls in words, for messages."""
        rows = "1 row" if self.batch == 1 else f"{self.batch} rows"
        length = "its own bucket" if self.length is None else f"{self.length} tokens"
        return f"{rows} of {length}"

    def failures(self, max_difference: float, p99_difference: float) -> list[str]:
        """A sentence for every difference that is out of tolerance."""
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
    """Compare calls of one size.

    Args:
        logits: Of the artefact, shape (n, n_labels): the rows of all calls in order.
        reference: The rows with the FP32 graph's logits.
        calls: Indices of the rows of each call.
        length: Padded length in tokens; None: each row's own bucket.
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
    """Choose the rows of a few calls, each with `batch` rows of at most `length` tokens.

    The longest and the shortest row are the first. Rows are repeated if there are too few.

    Raises:
        UsageError: No row fits the length.
    """
    fitting = _fitting(rows, length)
    calls = _SINGLE_CALLS if batch == 1 else _BATCH_CALLS
    return [
        [fitting[(call * batch + i) % len(fitting)] for i in range(batch)] for call in range(calls)
    ]


def _fitting(rows: Sequence[EncodedRow], length: int) -> list[int]:
    """Rows that fit a length: the longest, the shortest, and the rest in their order."""
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
    """The differences, as fields of `ComparedCalls`, of logits of shape (n, n_labels)."""
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
    """The mean of one value per case, weighted by the rows."""
    return float(np.average(values, weights=[case.rows for case in cases]))


Case = TypeVar("Case", bound=ComparedCalls)


class CallsReport(ABC, Generic[Case]):
    """Base of the reports on several cases; true if everything is within tolerance."""

    __slots__ = ()
    cases: tuple[Case, ...]

    def __bool__(self) -> bool:
        return not self.failures()

    @abstractmethod
    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""

    @property
    def rows(self) -> int:
        """The number of rows in all cases."""
        return sum(case.rows for case in self.cases)

    @property
    def max_difference(self) -> float:
        """The largest difference of a logit in all cases."""
        return max(case.max_difference for case in self.cases)

    @property
    def label_agreement(self) -> float:
        """Share of the rows of all cases with the FP32 graph's label."""
        return mean_over_rows(self.cases, [case.label_agreement for case in self.cases])

    def agreement_failures(self, minimum: float) -> list[str]:
        """A sentence if the label agreement is below `minimum`."""
        if self.label_agreement >= minimum:
            return []
        return [
            f"{1 - self.label_agreement:.1%} of the rows get another label than in FP32 "
            f"(tolerance {100 * (1 - minimum):.3g}%)"
        ]
