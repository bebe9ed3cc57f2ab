"""The saved plan, reloaded, against the FP32 graph, on real padded text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch, pad_rows
from cascadebert_core.tokenization import EncodedRow
from cascadebert_engine.manifest import EngineManifest

from .errors import UsageError
from .reference import Reference

# FP16 rounds to 11 bits, 4.9e-4 of a value. Such errors of the hundred or so operations on a row's
# path add up like a random walk, to about 5e-3 of a value, and logits of fine-tuned classifiers
# lie within +-8: 4e-2. Members of 2 to 6 layers are measured at 5e-4; a wrong mask, a lost token
# or an overflow shows from 0.1 on.
MAX_DIFFERENCE = 5e-2
# Most rows stay well below the worst one.
P99_DIFFERENCE = 2e-2

# Within the tolerances a label can change only where two logits nearly tie, and few rows do.
MIN_AGREEMENT = 0.99

# FP32 kernels that sum in another order differ by 1e-6; FP16 cannot come closer than 1e-5 on
# average. An engine below this computed in FP32, whatever it was asked for.
FP32_FINGERPRINT = 8e-6

# Calls that are compared for one size of a profile: with real text on every one of their rows.
_CALLS = {1: 12}
_MORE_ROWS_CALLS = 2


@dataclass(frozen=True, slots=True)
class EngineCase:
    """Calls of one profile and one number of rows.

    Attributes:
        length: padded length of the profile.
        batch: rows in a call: the profile's minimum, optimum or maximum.
        rows: compared in all.
        truncated_rows: those among them that were cut to the maximum length.
        max_difference, p50_difference, p99_difference, mean_difference: of a logit, absolute.
        label_agreement: share of rows with the FP32 graph's label.
        non_finite: NaN and infinite logits.
    """

    length: int
    batch: int
    rows: int
    truncated_rows: int
    max_difference: float
    p50_difference: float
    p99_difference: float
    mean_difference: float
    label_agreement: float
    non_finite: int


@dataclass(frozen=True, slots=True)
class EngineReport:
    """How far a plan is from the FP32 graph; true when it is within tolerance.

    Attributes:
        member, tensorrt, gpu, precision: what was compared.
        opaque: whether the engine inspector could not tell the precision.
        tolerance_max, tolerance_p99: of a logit's difference.
        cases: by profile and rows.
    """

    member: str
    tensorrt: str
    gpu: str
    precision: str
    opaque: bool
    tolerance_max: float
    tolerance_p99: float
    cases: tuple[EngineCase, ...]

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        for case in self.cases:
            where = f"{case.batch} rows of {case.length} tokens"
            if case.non_finite:
                found.append(f"{where}: {case.non_finite} logits are NaN or infinite")
            if case.max_difference > self.tolerance_max:
                found.append(
                    f"{where}: a logit differs by {case.max_difference:.1e} "
                    f"(tolerance {self.tolerance_max:.0e})"
                )
            if case.p99_difference > self.tolerance_p99:
                found.append(
                    f"{where}: 1% of the logits differ by more than {case.p99_difference:.1e} "
                    f"(tolerance {self.tolerance_p99:.0e})"
                )
        if self.label_agreement < MIN_AGREEMENT:
            found.append(
                f"{1 - self.label_agreement:.1%} of the rows get another label than in FP32 "
                f"(tolerance {1 - MIN_AGREEMENT:.0%})"
            )
        if self.opaque and self.mean_difference < FP32_FINGERPRINT:
            found.append(
                f"the mean difference of {self.mean_difference:.1e} is that of FP32 arithmetic: "
                "the engine fell back to FP32"
            )
        return found

    @property
    def max_difference(self) -> float:
        """The largest difference of a logit in any case."""
        return max(case.max_difference for case in self.cases)

    @property
    def mean_difference(self) -> float:
        """The mean difference over all rows of all cases."""
        return self._mean([case.mean_difference for case in self.cases])

    @property
    def label_agreement(self) -> float:
        """Share of all rows of all cases with the FP32 graph's label."""
        return self._mean([case.label_agreement for case in self.cases])

    def _mean(self, values: Sequence[float]) -> float:
        return float(np.average(values, weights=[case.rows for case in self.cases]))

    def __str__(self) -> str:
        rows = sum(case.rows for case in self.cases)
        return (
            f"{len(self.cases)} kinds of calls, {rows} rows, largest logit difference "
            f"{self.max_difference:.1e}, label agreement {self.label_agreement:.2%} "
            f"(tolerance {self.tolerance_max:.0e})"
        )

    def to_markdown(self) -> str:
        """The report for people."""
        verdict = "passed" if self else "FAILED"
        lines = [
            f"# {self.member}: {verdict}",
            "",
            f"TensorRT {self.tensorrt} on {self.gpu}; {self.precision}.",
            f"Compared with the FP32 ONNX graph on real text; tolerance {self.tolerance_max:g} for "
            f"every logit, {self.tolerance_p99:g} for 99% of them.",
            "",
            "| length | rows a call | rows | truncated | max | p99 | p50 | agreement | NaN/Inf |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
            *(
                f"| {c.length} | {c.batch} | {c.rows} | {c.truncated_rows} | "
                f"{c.max_difference:.1e} | {c.p99_difference:.1e} | {c.p50_difference:.1e} | "
                f"{c.label_agreement:.2%} | {c.non_finite} |"
                for c in self.cases
            ),
            "",
            *(f"- {failure}" for failure in self.failures()),
        ]
        return "\n".join(lines).rstrip() + "\n"


def verify_engine(
    run: Callable[[StageBatch], NDArray[np.float32]],
    manifest: EngineManifest,
    reference: Reference,
    pad_id: int,
    *,
    tolerance_max: float = MAX_DIFFERENCE,
    tolerance_p99: float = P99_DIFFERENCE,
) -> EngineReport:
    """Call every profile with its minimum, optimum and maximum of rows, and compare the logits.

    Rows of all lengths that fit a profile share its calls, so that padding is in nearly every one.

    Args:
        run: the reloaded plan.
        manifest: of the plan.
        reference: rows with the FP32 graph's logits, one truncated row among them.
        pad_id: the token id of padding.
        tolerance_max: of every logit's difference.
        tolerance_p99: of 99% of them.

    Raises:
        UsageError: no row fits a profile.
    """
    cases: list[EngineCase] = []
    for profile in manifest.profiles:
        for batch in profile.batches:
            calls = calls_of_rows(reference.rows, profile.length, batch)
            # This profile's bucket alone: short rows are padded to it as well.
            batches = [
                pad_rows(
                    [reference.rows[i] for i in call], manifest.inputs, [profile.length], pad_id
                )
                for call in calls
            ]
            logits = np.concatenate([run(stage_batch) for stage_batch in batches])
            indices = [i for call in calls for i in call]
            truncated = sum(bool(reference.rows[i].truncated) for i in indices)
            cases.append(
                EngineCase(
                    length=profile.length,
                    batch=batch,
                    rows=len(indices),
                    truncated_rows=truncated,
                    **difference_of_logits(logits, reference.logits[indices]),
                )
            )
    return EngineReport(
        member=manifest.member,
        tensorrt=manifest.tensorrt,
        gpu=manifest.gpu,
        precision=str(manifest.precision),
        opaque=manifest.precision.is_opaque,
        tolerance_max=tolerance_max,
        tolerance_p99=tolerance_p99,
        cases=tuple(cases),
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
