"""Compares a reloaded optimised or quantised graph with the FP32 graph on real, padded text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..graphs.logits import Run, StageInput
from ..progress import counted
from .allowance import Allowance
from .comparison import (
    FEW_ROWS,
    CallsReport,
    ComparedCalls,
    batch_failures,
    calls_of_rows,
    compare_calls,
    logits_of_calls,
    padded_tokens,
)
from .onnx import TOLERANCE
from .reference import Reference

# Increase it when the comparison changes: graphs are then checked again.
CHECK_VERSION = 3


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
class GraphReport(CallsReport[ComparedCalls]):
    """How a graph differs from the FP32 graph; true if it is within tolerance.

    Attributes:
        member: The name of the member.
        precision: "fp32" or "int8".
        spread: The unit of the tolerance. For INT8 it is the standard deviation of the FP32 logits,
            at least 1; for FP32 it is 1.
        tolerance: See `Tolerance`.
        cases: Every row alone in its own bucket, then by length and batch size.
        left_out: What a check that is short of time has not compared.
    """

    member: str
    precision: str
    spread: float
    tolerance: Tolerance
    cases: tuple[ComparedCalls, ...]
    left_out: tuple[str, ...] = ()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        unit, tolerance = self.spread, self.tolerance
        for case in self.cases:
            found += case.failures(tolerance.max_difference * unit, tolerance.p99_difference * unit)
        found += batch_failures(self.cases, tolerance.batch_difference * unit)
        return found + self.agreement_failures(tolerance.min_agreement)

    def __str__(self) -> str:
        return (
            f"{len(self.cases)} kinds of calls, {self.rows} rows, largest logit difference "
            f"{self.max_difference:.1e} "
            f"(tolerance {self.tolerance.max_difference * self.spread:.2g}), of a row alone and in "
            f"a batch {max(case.batch_difference for case in self.cases):.1e}, label agreement "
            f"{self.label_agreement:.2%}"
            f"{'; left out: ' if self.left_out else ''}{', '.join(self.left_out)}"
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
    seconds: float | None = None,
) -> GraphReport:
    """Call the graph with every row alone, and at every length with several rows.

    A call has rows of all lengths that fit it, so nearly all of its rows are padded. At three
    lengths there are calls of 1, 8 and the most rows.

    Args:
        run: The reloaded graph.
        reference: Rows with the FP32 graph's logits; one of them is truncated.
        stage: How rows become batches.
        member: The name of the member.
        precision: "fp32" or "int8".
        max_batch_size: Rows of a full batch.
        weight_bits: Bits of the weights of "int8", 8 or 7.
        seconds: About how long it may take; None: as long as it takes.

    Raises:
        CheckFailed: The graph cannot run a call.
    """
    each = [[i] for i in range(len(reference.rows))]
    shapes = [
        (length, calls_of_rows(reference, length, batch))
        for length, batch in _shapes(reference, stage, max_batch_size)
    ]
    allowed = Allowance(seconds)
    work = partial(padded_tokens, reference, buckets=stage.buckets)
    n_rows = len(each) + sum(len(call) for _, calls in shapes for call in calls)
    tokens = work(each) + sum(work(calls, length=length) for length, calls in shapes)
    with counted("row", n_rows, what="graph", work=tokens) as advance:

        def logits_of(calls: list[list[int]], length: int | None = None) -> NDArray[np.float32]:
            padded = partial(stage.batch, length=length)
            found = logits_of_calls(run, reference, calls, padded, member, advance=advance)
            allowed.done(work(calls, length=length))
            return found

        alone = logits_of(each)
        cases = [compare_calls(alone, reference, alone, each, None)]
        for length, calls in allowed.in_order(shapes):
            # One shape in any case: padding is what graphs are most often wrong about.
            if len(cases) == 1 or allowed.fits(work(calls, length=length)):
                logits = logits_of(calls, length)
                cases.append(compare_calls(logits, reference, alone, calls, length))
    n_left = 1 + len(shapes) - len(cases)
    left_out = (f"{n_left} of {len(shapes)} shapes of calls",) if n_left else ()
    if reference.left_out:
        left_out = (f"{reference.left_out} rows", *left_out)
    cases.sort(key=lambda case: (case.length or 0, case.batch))
    logits = reference.logits[: reference.plain]
    spread = max(1.0, float(logits.std())) if precision == "int8" else 1.0
    return GraphReport(
        member=member,
        precision=precision,
        spread=spread,
        tolerance=tolerance_of(precision, weight_bits),
        cases=tuple(cases),
        left_out=left_out,
    )


def _shapes(reference: Reference, stage: StageInput, max_batch_size: int) -> list[tuple[int, int]]:
    """Padded lengths and numbers of rows of the calls.

    All sizes are compared at the shortest bucket with a row, at the bucket of the median row, and
    at the longest bucket. Other buckets have one size.
    """
    lengths = sorted(len(row) for row in reference.rows[: reference.plain])
    buckets = [bucket for bucket in stage.sampled_buckets if bucket >= lengths[0]]
    wanted = (lengths[0], lengths[len(lengths) // 2], buckets[-1])
    main = {next(bucket for bucket in buckets if bucket >= n) for n in wanted}
    few, all_sizes = {min(FEW_ROWS, max_batch_size)}, {1, min(8, max_batch_size), max_batch_size}
    return [
        (length, batch)
        for length in buckets
        for batch in sorted(all_sizes if length in main else few)
    ]
