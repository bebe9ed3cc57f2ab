"""Compares the logits of a reloaded artefact with FP32 logits of the same rows.

It also compares each row's logits with those that the same artefact gives the row alone. If they
differ, an answer depends on the other texts that share its call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch, bucket_of
from cascadebert_core.task import SINGLE_LABEL, set_keys
from cascadebert_core.tokenization import EncodedRow
from cascadebert_engine.errors import EngineError

from ..errors import BuildError, CheckFailed, UsageError, first_cause
from ..graphs.logits import Run
from ..progress import Advance
from .reference import Reference

# The number of calls of one row to compare.
_SINGLE_CALLS = 12

# Rows of a call, for lengths at which nothing else is compared. Two of them are plain, and two have
# special tokens in their text.
FEW_ROWS = 4

# What the other rows of a call are.
_OTHER_LENGTHS = "rows of other lengths"
_SPECIAL_TOKENS = "rows with special tokens in their text"


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
        label_agreement: Share of rows with the FP32 graph's label, or its set of labels.
        non_finite: Number of NaN and infinite logits.
        batch_difference: The largest difference between a row's logit in these calls and alone in
            its own bucket. All other differences are those of the plain rows.
        batch_row: The name of the row with that difference.
        beside: What shares a call with that row; "" if it is alone.
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
    batch_difference: float
    batch_row: str
    beside: str

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
    alone: NDArray[np.float32],
    calls: Sequence[Sequence[int]],
    length: int | None,
) -> ComparedCalls:
    """Compare calls of one size.

    Args:
        logits: Of the artefact, shape (n, n_labels): the rows of all calls in order.
        reference: The rows with the FP32 graph's logits.
        alone: Of the artefact, for every row alone in its own bucket.
        calls: Indices of the rows of each call.
        length: Padded length in tokens; None: each row's own bucket.
    """
    indices = [i for call in calls for i in call]
    plain = np.array(indices) < reference.plain
    with np.errstate(invalid="ignore"):  # infinity in both
        changes = np.abs(logits - alone[indices]).max(axis=1)
    worst = int(changes.argmax())  # NaN, if there is one
    call = calls[worst // len(calls[0])]
    return ComparedCalls(
        length=length,
        batch=len(calls[0]),
        rows=len(indices),
        truncated_rows=sum(bool(reference.rows[i].truncated) for i in indices),
        **{
            # NaN and infinity count in all rows.
            **difference_of_logits(logits[plain], reference.logits[indices][plain], reference.task),
            "non_finite": int((~np.isfinite(logits)).sum()),
        },
        batch_difference=float(changes[worst]),
        batch_row=reference.names[indices[worst]],
        beside=_beside(call, reference),
    )


def calls_of_rows(reference: Reference, length: int, batch: int) -> list[list[int]]:
    """Choose the rows of a few calls, each with `batch` rows of at most `length` tokens.

    The longest and the shortest row are the first. Larger calls are two: one of plain rows, and one
    in which every other row has special tokens. Rows are repeated if there are too few.

    Raises:
        UsageError: No row fits the length.
    """
    plain = _fitting(reference, length)
    special = [
        i for i in range(reference.plain, len(reference.rows)) if len(reference.rows[i]) <= length
    ]
    if batch == 1:
        return [[row] for row in _repeated(plain, _SINGLE_CALLS)]
    if not special:
        both = _repeated(plain, 2 * batch)
        return [both[:batch], both[batch:]]
    first, others = _repeated(plain, batch), _repeated(plain, batch + batch // 2)[batch:]
    mixed = [0] * batch
    mixed[::2] = _repeated(special, (batch + 1) // 2)
    mixed[1::2] = others
    return [first, mixed]


def _repeated(rows: Sequence[int], count: int) -> list[int]:
    return [rows[i % len(rows)] for i in range(count)]


def _fitting(reference: Reference, length: int) -> list[int]:
    """Plain rows that fit a length: the longest, the shortest, and the rest in their order."""
    rows = reference.rows[: reference.plain]
    fitting = [i for i, row in enumerate(rows) if len(row) <= length]
    if not fitting:
        raise UsageError(
            f"no row of the held-out data fits the profile of {length} tokens: the shortest has "
            f"{min(map(len, rows))}; leave that bucket out"
        )
    by_length = sorted(fitting, key=lambda i: -len(rows[i]))
    return list(dict.fromkeys([by_length[0], by_length[-1], *fitting]))


def logits_of_calls(
    run: Run,
    reference: Reference,
    calls: Sequence[Sequence[int]],
    padded: Callable[[Sequence[EncodedRow]], StageBatch],
    member: str,
    *,
    advance: Advance | None = None,
) -> NDArray[np.float32]:
    """The logits of the rows of all calls in order, of shape (n, n_labels).

    Args:
        run: The artefact.
        reference: The rows.
        calls: Indices of the rows of each call.
        padded: Makes a batch of rows.
        member: The name of the member.
        advance: Is called with the rows of each call, and with their tokens as work.

    Raises:
        CheckFailed: The artefact cannot run a call.
    """
    logits: list[NDArray[np.float32]] = []
    for call in calls:
        batch = padded([reference.rows[i] for i in call])
        try:
            logits.append(run(batch))
        except (BuildError, EngineError):
            raise
        except Exception as exc:  # runtimes have exceptions of their own
            rows, length = batch.shape
            kind = _beside(call, reference)
            raise CheckFailed(
                f"{member}: the graph cannot run a call of {rows} x {length} tokens with "
                f"{reference.names[max(call)]}{' beside ' + kind if kind else ''} "
                f"({shorten(first_cause(exc), 160)}){_remedy(kind)}"
            ) from exc
        if advance is not None:
            rows, length = batch.shape
            advance(rows, work=rows * length)
    return np.concatenate(logits)


def padded_tokens(
    reference: Reference,
    calls: Sequence[Sequence[int]],
    buckets: Sequence[int],
    length: int | None = None,
) -> int:
    """The tokens of calls with their padding, which tell how long they take.

    Args:
        reference: The rows.
        calls: Indices of the rows of each call.
        buckets: Padded lengths, ascending.
        length: To which all calls are padded; None: each to its own bucket.
    """
    return sum(
        len(call) * (length or bucket_of(max(len(reference.rows[i]) for i in call), buckets))
        for call in calls
    )


def _beside(call: Sequence[int], reference: Reference) -> str:
    """What shares a call with each of its rows; "" if the row is alone."""
    if len(call) == 1:
        return ""
    return _SPECIAL_TOKENS if max(call) >= reference.plain else _OTHER_LENGTHS


def batch_failures(cases: Sequence[ComparedCalls], allowed: float) -> list[str]:
    """A sentence for each way in which a row's logits change in a call, at its worst.

    Args:
        cases: The calls.
        allowed: The tolerance of a logit's difference.
    """
    found: dict[str, ComparedCalls] = {}
    # The last one is the largest; NaN is larger than all numbers.
    for case in sorted(cases, key=lambda case: np.nan_to_num(case.batch_difference, nan=np.inf)):
        if not case.batch_difference <= allowed:  # NaN too
            found[case.beside] = case
    # If the padding itself changes a row, so does everything that makes its call longer.
    kinds = [kind for kind in ("", _OTHER_LENGTHS, _SPECIAL_TOKENS) if kind in found]
    return [
        f"{case.where}: a row's logit depends on {'the rest of its batch' if kind else 'padding'}, "
        f"by {case.batch_difference:.1e} (tolerance {allowed:.2g}): {case.batch_row}"
        f"{', beside ' + kind if kind else ''}{_remedy(kind) if kind == kinds[0] else ''}"
        for kind, case in ((kind, found[kind]) for kind in kinds)
    ]


def _remedy(kind: str) -> str:
    if not kind:
        return "; serve another checkpoint"
    alone = "max_batch_size = 1 for this member, so that no two texts share a call"
    if kind == _OTHER_LENGTHS:
        return f"; set {alone}, or serve another checkpoint"
    return f'; set special_tokens = "text" in [tokenizer] of cascade.toml, or {alone}'


def difference_of_logits(
    logits: NDArray[np.float32], wanted: NDArray[np.float32], task: str = SINGLE_LABEL
) -> dict[str, Any]:
    """The differences, as fields of `ComparedCalls`, of logits of shape (n, n_labels)."""
    differences = np.abs(logits - wanted)
    finite = differences[np.isfinite(differences)]
    others = _answers(logits, task) != _answers(wanted, task)
    p50, p99 = np.percentile(finite, (50, 99)) if finite.size else (0.0, 0.0)
    return {
        "max_difference": float(finite.max(initial=0.0)),
        "p50_difference": float(p50),
        "p99_difference": float(p99),
        "mean_difference": float(finite.mean()) if finite.size else 0.0,
        "label_agreement": float(1 - others.mean()),
        "non_finite": int((~np.isfinite(logits)).sum()),
    }


def _answers(logits: NDArray[np.float32], task: str) -> NDArray[Any]:
    """The keys of the answers, shape (n,). A temperature would not change them."""
    if task == SINGLE_LABEL:
        return logits.argmax(axis=1)
    return set_keys(logits >= 0)


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
