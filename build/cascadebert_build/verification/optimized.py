"""Compares a reloaded optimised or quantised graph with the FP32 graph on real, padded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..graphs.logits import Run, StageInput
from .comparison import CallsReport, ComparedCalls, calls_of_rows, compare_calls
from .onnx import TOLERANCE
from .reference import Reference

# Increase it when the comparison changes: graphs are then checked again.
CHECK_VERSION = 2


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a graph may differ from the FP32 graph. Differences are in units of `spread`.

    Attributes:
        max_difference: Of every logit.
        p99_difference: Of 99% of the logits.
        min_agreement: The smallest share of rows with the FP32 graph's label.
        batch_difference: Of a row's logit alone and in any batch.
    """

    max_difference: float
    p99_difference: float
    min_agreement: float
    batch_difference: float


# Only the order of summation differs, as everywhere in FP32.
FP32 = Tolerance(TOLERANCE, TOLERANCE, 1.0 - 1e-3, TOLERANCE)

# The values of a token are rounded to 1/254 of its largest one. BERT has outliers ten times as
# large as the other values, so this is 2% of a typical value. Errors average out in the products
# and add up from layer to layer: 0.1 of the spread is typical, and 0.3 in the worst row of
# fine-tuned members of 2 to 6 layers. A lost token or a wrong mask gives differences of the spread
# itself. Labels change if logits nearly tie: in 0 to 0.7% of the rows of fine-tuned members, and in
# up to 4% of those of random members.
# A row has the same integers alone and in a batch, unless FP32 sums in the attention differ in the
# last digit and round to another integer: a change of 1/254 in one of many elements.
INT8 = Tolerance(0.5, 0.25, 0.95, 1e-2)

# Weights of 7 bits have steps twice as large. The worst fine-tuned member has 0.45 of the spread in
# its worst row and 0.27 in 1% of the logits; 8 bits give 0.21 and 0.15.
INT8_OF_7_BITS = Tolerance(0.75, 0.4, 0.95, 1e-2)


def tolerance_of(precision: str, weight_bits: int) -> Tolerance:
    """The tolerance for a precision ("fp32" or "int8") and the bits of its weights."""
    if precision != "int8":
        return FP32
    return INT8_OF_7_BITS if weight_bits == 7 else INT8


@dataclass(frozen=True, slots=True)
class GraphCase(ComparedCalls):
    """The result for calls of one padded length and one batch size.

    Attributes:
        batch_difference: The largest difference between a row's logit in these calls and alone in
            its own bucket.
    """

    batch_difference: float


@dataclass(frozen=True, slots=True)
class GraphReport(CallsReport[GraphCase]):
    """How a graph differs from the FP32 graph; true if it is within tolerance.

    Attributes:
        member: The name of the member.
        precision: "fp32" or "int8".
        spread: The unit of the tolerance. For INT8 it is the standard deviation of the FP32 logits,
            at least 1; for FP32 it is 1.
        tolerance: See `Tolerance`.
        cases: Every row alone in its own bucket, then by length and batch size.
    """

    member: str
    precision: str
    spread: float
    tolerance: Tolerance
    cases: tuple[GraphCase, ...]

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        unit, tolerance = self.spread, self.tolerance
        allowed = tolerance.batch_difference * unit
        for case in self.cases:
            found += case.failures(tolerance.max_difference * unit, tolerance.p99_difference * unit)
            if not case.batch_difference <= allowed:  # NaN too
                found.append(
                    f"{case.where}: a row's logit depends on the rest of its batch, by "
                    f"{case.batch_difference:.1e} (tolerance {allowed:.2g})"
                )
        return found + self.agreement_failures(tolerance.min_agreement)

    def __str__(self) -> str:
        return (
            f"{len(self.cases)} kinds of calls, {self.rows} rows, largest logit difference "
            f"{self.max_difference:.1e} "
            f"(tolerance {self.tolerance.max_difference * self.spread:.2g}), of a row alone and in "
            f"a batch {max(case.batch_difference for case in self.cases):.1e}, label agreement "
            f"{self.label_agreement:.2%}"
        )


def verify_graph(
    run: Run,
    reference: Reference,
    stage: StageInput,
    *,
    member: str,
    precision: str,
    max_batch_size: int,
    weight_bits: int = 8,
) -> GraphReport:
    """Call the graph with every row alone, and at several lengths with 1, 8 and the most rows.

    A call has rows of all lengths that fit it, so nearly all of its rows are padded.

    Args:
        run: The reloaded graph.
        reference: Rows with the FP32 graph's logits; one of them is truncated.
        stage: How rows become batches.
        member: The name of the member.
        precision: "fp32" or "int8".
        max_batch_size: Rows of a full batch.
        weight_bits: Bits of the weights of "int8", 8 or 7.
    """
    alone = np.concatenate([run(stage.batch([row])) for row in reference.rows])
    each = [[i] for i in range(len(reference.rows))]
    cases = [
        _case(alone, reference, alone, each, None),
        *(
            _padded_case(run, reference, alone, stage, shape=(batch, length))
            for length in _lengths(reference, stage)
            for batch in sorted({1, min(8, max_batch_size), max_batch_size})
        ),
    ]
    spread = max(1.0, float(reference.logits.std())) if precision == "int8" else 1.0
    return GraphReport(
        member=member,
        precision=precision,
        spread=spread,
        tolerance=tolerance_of(precision, weight_bits),
        cases=tuple(cases),
    )


def _padded_case(
    run: Run,
    reference: Reference,
    alone: NDArray[np.float32],
    stage: StageInput,
    *,
    shape: tuple[int, int],
) -> GraphCase:
    batch, length = shape
    calls = calls_of_rows(reference.rows, length, batch)
    logits = np.concatenate(
        [run(stage.batch([reference.rows[i] for i in call], length)) for call in calls]
    )
    return _case(logits, reference, alone, calls, length)


def _case(
    logits: NDArray[np.float32],
    reference: Reference,
    alone: NDArray[np.float32],
    calls: Sequence[Sequence[int]],
    length: int | None,
) -> GraphCase:
    indices = [i for call in calls for i in call]
    return GraphCase(
        **asdict(compare_calls(logits, reference, calls, length)),
        batch_difference=float(np.abs(logits - alone[indices]).max()),
    )


def _lengths(reference: Reference, stage: StageInput) -> list[int]:
    """The shortest bucket with a row, the bucket of the median row, and the longest bucket."""
    buckets: Sequence[int] = stage.buckets
    lengths = sorted(len(row) for row in reference.rows)
    wanted = (lengths[0], lengths[len(lengths) // 2], buckets[-1])
    return sorted({next(bucket for bucket in buckets if bucket >= n) for n in wanted})
