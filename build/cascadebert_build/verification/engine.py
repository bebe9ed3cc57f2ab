"""The saved plan, reloaded, against the FP32 graph, on real padded text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import StageBatch, pad_rows
from cascadebert_engine.manifest import EngineManifest

from .comparison import ComparedCalls, calls_of_rows, compare_calls, mean_over_rows
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


@dataclass(frozen=True, slots=True)
class EngineReport:
    """How far a plan is from the FP32 graph; true when it is within tolerance.

    Attributes:
        member, tensorrt, gpu, precision: what was compared.
        opaque: whether the engine inspector could not tell the precision.
        tolerance_max, tolerance_p99: of a logit's difference.
        cases: by profile and rows in a call: the profile's minimum, optimum or maximum.
    """

    member: str
    tensorrt: str
    gpu: str
    precision: str
    opaque: bool
    tolerance_max: float
    tolerance_p99: float
    cases: tuple[ComparedCalls, ...]

    def __bool__(self) -> bool:
        return not self.failures()

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        for case in self.cases:
            found += case.failures(self.tolerance_max, self.tolerance_p99)
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
        return mean_over_rows(self.cases, [case.mean_difference for case in self.cases])

    @property
    def label_agreement(self) -> float:
        """Share of all rows of all cases with the FP32 graph's label."""
        return mean_over_rows(self.cases, [case.label_agreement for case in self.cases])

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
    cases: list[ComparedCalls] = []
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
            cases.append(compare_calls(logits, reference, calls, profile.length))
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
