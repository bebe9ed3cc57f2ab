"""An optimised or quantised graph, reloaded, against the FP32 graph, on real padded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..graphs.logits import Run, StageInput
from .comparison import ComparedCalls, calls_of_rows, compare_calls, mean_over_rows
from .onnx import TOLERANCE
from .reference import Reference

# Counts the changes of what is compared; a new one checks the graphs anew.
CHECK_VERSION = 2


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a graph may be from the FP32 graph.

    Attributes:
        max_difference, p99_difference: of a logit, in units of `spread`.
        min_agreement: share of rows with the FP32 graph's label.
        batch_difference: of a row's logit alone and in any batch, in the same units.
    """

    max_difference: float
    p99_difference: float
    min_agreement: float
    batch_difference: float


# Other orders of sums, as everywhere in FP32.
FP32 = Tolerance(TOLERANCE, TOLERANCE, 1.0 - 1e-3, TOLERANCE)

# A token's numbers are rounded to 1/254 of its largest, and those of a BERT have outliers ten
# times as large as the rest: 2% of a usual number. The errors of the elements average out in the
# products, and add up from layer to layer: 0.1 of the spread is usual, 0.3 the worst row of
# fine-tuned members of 2 to 6 layers. A lost token or a wrong mask makes differences of the
# spread itself. Labels change where logits nearly tie: in 0 to 0.7% of the rows of fine-tuned
# members, in up to 4% of random ones.
# A row alone and in a batch goes through the same integers, but where FP32 sums of the attention
# differ in their last digit and another integer is the nearest: 1/254 of one element of many.
INT8 = Tolerance(0.5, 0.25, 0.95, 1e-2)

# Weights of 7 bits are rounded to steps twice as large. Of the fine-tuned members the worst one has
# 0.45 of the spread in its worst row and 0.27 in 1% of the logits, where 8 bits give 0.21 and 0.15.
INT8_OF_7_BITS = Tolerance(0.75, 0.4, 0.95, 1e-2)


def tolerance_of(precision: str, weight_bits: int) -> Tolerance:
    """How far a graph of this precision may be from the FP32 graph."""
    if precision != "int8":
        return FP32
    return INT8_OF_7_BITS if weight_bits == 7 else INT8


@dataclass(frozen=True, slots=True)
class GraphCase(ComparedCalls):
    """Calls of one length and one number of rows.

    Attributes:
        batch_difference: largest difference of a row's logit from the same row alone, with as
            little padding as its bucket asks for.
    """

    batch_difference: float


@dataclass(frozen=True, slots=True)
class GraphReport:
    """How far a graph is from the FP32 graph; true when it is within tolerance.

    Attributes:
        member, precision: what was compared.
        spread: the unit of the tolerance: of INT8 the standard deviation of the FP32 logits, at
            least 1; of FP32 1.
        tolerance: see there.
        cases: every row alone in its own bucket, then by length and rows.
    """

    member: str
    precision: str
    spread: float
    tolerance: Tolerance
    cases: tuple[GraphCase, ...]

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        unit, tolerance = self.spread, self.tolerance
        allowed = tolerance.batch_difference * unit
        for case in self.cases:
            found += case.failures(tolerance.max_difference * unit, tolerance.p99_difference * unit)
            if not case.batch_difference <= allowed:  # NaN too
                found.append(
                    f"{case.where}: a row's logit hangs on the rest of its batch by "
                    f"{case.batch_difference:.1e} (tolerance {allowed:.2g})"
                )
        if self.label_agreement < self.tolerance.min_agreement:
            found.append(
                f"{1 - self.label_agreement:.1%} of the rows get another label than in FP32 "
                f"(tolerance {1 - self.tolerance.min_agreement:.1%})"
            )
        return found

    @property
    def label_agreement(self) -> float:
        """Share of all rows of all cases with the FP32 graph's label."""
        return mean_over_rows(self.cases, [case.label_agreement for case in self.cases])

    def __str__(self) -> str:
        rows = sum(case.rows for case in self.cases)
        return (
            f"{len(self.cases)} kinds of calls, {rows} rows, largest logit difference "
            f"{max(case.max_difference for case in self.cases):.1e} "
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
    """Call the graph with every row alone, and at several lengths with 1, 8 and most rows.

    Rows of all lengths that fit a call share it, so that padding is in nearly every one.

    Args:
        run: the reloaded graph.
        reference: rows with the FP32 graph's logits, one truncated row among them.
        stage: how rows become batches.
        member: its name.
        precision: "fp32" or "int8".
        max_batch_size: rows of a full batch.
        weight_bits: of "int8", 8 or 7.
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
    """The shortest bucket that a row fits, the one of the median row, and the longest."""
    buckets: Sequence[int] = stage.buckets
    lengths = sorted(len(row) for row in reference.rows)
    wanted = (lengths[0], lengths[len(lengths) // 2], buckets[-1])
    return sorted({next(bucket for bucket in buckets if bucket >= n) for n in wanted})
