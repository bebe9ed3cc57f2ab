"""Compares a reloaded TensorRT plan with the FP32 graph on real, padded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cascadebert_core.batching import pad_rows
from cascadebert_engine.manifest import EngineManifest

from ..graphs.logits import Run
from ..progress import counted
from .comparison import (
    CallsReport,
    ComparedCalls,
    batch_failures,
    calls_of_rows,
    compare_calls,
    logits_of_calls,
    mean_over_rows,
)
from .reference import Reference

# FP16 rounds to 11 bits, 4.9e-4 of a value. Over about a hundred operations such errors add up like
# a random walk, to about 5e-3 of a value; logits of fine-tuned classifiers are within +-8, so this
# is 4e-2. Members of 2 to 6 layers are measured at 5e-4. A wrong mask, a lost token or an overflow
# gives differences of 0.1 or more.
MAX_DIFFERENCE = 5e-2
# Most logits differ much less than the worst one.
P99_DIFFERENCE = 2e-2

# Within these tolerances, a label changes only if two logits nearly tie, which is rare.
MIN_AGREEMENT = 0.99

# FP32 kernels with another order of summation differ by 1e-6; FP16 differs by at least 1e-5 on
# average. An engine with a mean difference below this has computed in FP32.
FP32_FINGERPRINT = 8e-6


@dataclass(frozen=True, slots=True)
class EngineReport(CallsReport[ComparedCalls]):
    """How a plan differs from the FP32 graph; true if it is within tolerance.

    Attributes:
        member: The name of the member.
        tensorrt: The version of TensorRT.
        gpu: The model of the GPU.
        precision: The precision that the engine inspector found.
        opaque: Whether the engine inspector could not find the precision.
        tolerance_max: Of the difference of every logit.
        tolerance_p99: Of the difference of 99% of the logits.
        cases: By profile and batch size: the profile's minimum, optimum and maximum.
    """

    member: str
    tensorrt: str
    gpu: str
    precision: str
    opaque: bool
    tolerance_max: float
    tolerance_p99: float
    cases: tuple[ComparedCalls, ...]

    def failures(self) -> list[str]:
        """A sentence for everything that is out of tolerance."""
        found: list[str] = []
        for case in self.cases:
            found += case.failures(self.tolerance_max, self.tolerance_p99)
        # Calls of other sizes have other kernels, which round differently.
        found += batch_failures(self.cases, self.tolerance_max)
        found += self.agreement_failures(MIN_AGREEMENT)
        if self.opaque and self.mean_difference < FP32_FINGERPRINT:
            found.append(
                f"the mean difference of {self.mean_difference:.1e} is that of FP32 arithmetic: "
                "the engine fell back to FP32"
            )
        return found

    @property
    def mean_difference(self) -> float:
        """The mean difference of a logit in all cases."""
        return mean_over_rows(self.cases, [case.mean_difference for case in self.cases])

    def __str__(self) -> str:
        return (
            f"{len(self.cases)} kinds of calls, {self.rows} rows, largest logit difference "
            f"{self.max_difference:.1e}, label agreement {self.label_agreement:.2%} "
            f"(tolerance {self.tolerance_max:.0e})"
        )

    def to_markdown(self) -> str:
        """The report in Markdown."""
        verdict = "passed" if self else "FAILED"
        lines = [
            f"# {self.member}: {verdict}",
            "",
            f"TensorRT {self.tensorrt} on {self.gpu}; {self.precision}.",
            f"Compared with the FP32 ONNX graph on real text; tolerance {self.tolerance_max:g} for "
            f"every logit, {self.tolerance_p99:g} for 99% of them.",
            "",
            "| length | batch | rows | truncated | max | p99 | p50 | alone | agreement | NaN |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
            *(
                f"| {c.length} | {c.batch} | {c.rows} | {c.truncated_rows} | "
                f"{c.max_difference:.1e} | {c.p99_difference:.1e} | {c.p50_difference:.1e} | "
                f"{c.batch_difference:.1e} | {c.label_agreement:.2%} | {c.non_finite} |"
                for c in self.cases
            ),
            "",
            *(f"- {failure}" for failure in self.failures()),
        ]
        return "\n".join(lines).rstrip() + "\n"


def verify_engine(
    run: Run,
    manifest: EngineManifest,
    reference: Reference,
    pad_id: int,
    *,
    tolerance_max: float = MAX_DIFFERENCE,
    tolerance_p99: float = P99_DIFFERENCE,
) -> EngineReport:
    """Call every profile with its minimum, optimum and maximum batch size, and compare the logits.

    They are compared with the FP32 graph's, and with the plan's own for the row alone. A call has
    rows of all lengths that fit the profile, so nearly all of its rows are padded.

    Args:
        run: The reloaded plan.
        manifest: The plan's manifest.
        reference: Rows with the FP32 graph's logits; one of them is truncated.
        pad_id: The token id of padding.
        tolerance_max: Of the difference of every logit.
        tolerance_p99: Of the difference of 99% of the logits.

    Raises:
        CheckFailed: The plan cannot run a call.
        UsageError: No row fits a profile.
    """
    calls = [
        (profile.length, calls_of_rows(reference, profile.length, batch))
        for profile in manifest.profiles
        for batch in profile.batches
    ]

    def logits_of(calls: Sequence[Sequence[int]], lengths: Sequence[int]) -> NDArray[np.float32]:
        padded = partial(pad_rows, inputs=manifest.inputs, buckets=lengths, pad_id=pad_id)
        return logits_of_calls(run, reference, calls, padded, manifest.member, advance=advance)

    used = sorted({row for _, of_size in calls for call in of_size for row in call})
    alone = np.full_like(reference.logits, np.nan)
    lengths = sorted(profile.length for profile in manifest.profiles)
    n_rows = len(used) + sum(len(call) for _, of_size in calls for call in of_size)
    with counted("row", n_rows, what="engine") as advance:
        alone[used] = logits_of([[row] for row in used], lengths)
        # Only the profile's bucket, so that short rows are padded to it too.
        cases = [
            compare_calls(logits_of(of_size, [length]), reference, alone, of_size, length)
            for length, of_size in calls
        ]
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
