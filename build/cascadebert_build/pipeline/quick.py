"""What `build --quick` allows for its checks, a minute in all, and what they left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascadebert_engine.files import read_json

from ..evaluation.verdicts import Verdict
from .context import BuildContext

EXPORTS_S = 20.0
ARTEFACTS_S = 15.0
COSTS_S = 15.0
DECISIONS_S = 10.0

CHECKED_QUICKLY = "checked_quickly"
"""The kind of the verdict in a certificate, beside those of `evaluation.verdicts`."""

_FEWEST_DECISIONS = 20
# An FP32 graph may take this many times as long as the artefact that was timed.
_FP32_FACTOR = 3.0


def seconds_of_member(context: BuildContext, seconds: float) -> float | None:
    """The time of one member's check; None: as long as it takes."""
    return seconds / len(context.config.members) if context.quick else None


def decided_rows(n: int, ms_per_row: float | None) -> int:
    """The number of rows whose decisions a quick build compares.

    Args:
        n: Held-out rows.
        ms_per_row: Of a row that runs through all stages, as it was timed; None: unknown.
    """
    if not ms_per_row:
        return min(n, _FEWEST_DECISIONS)
    fitting = int(1e3 * DECISIONS_S / (_FP32_FACTOR * ms_per_row))
    return min(n, max(_FEWEST_DECISIONS, fitting))


def quick_verdict(context: BuildContext, left_out: Sequence[str]) -> Verdict | None:
    """What a certificate says of a quick build; None if everything fitted in the minute.

    Args:
        context: The build.
        left_out: What timing and the check of decisions have left out.
    """
    workspace = context.workspace
    found: list[str] = []
    for member in context.config.members:
        reports = [("graph", workspace.verify_report(member))]
        folder = workspace.optimized(member, context.config.runtime.precision)
        if context.config.runtime.optimizes:
            reports.append(("optimised graph", folder / "verify.json"))
        for what, path in reports:
            of_report = (read_json(path) or {}).get("left_out") or []
            if of_report:
                found.append(f"{what} of {member.name}: {', '.join(of_report)}")
    found += left_out
    if not found:
        return None
    return Verdict(
        CHECKED_QUICKLY,
        context.config.name,
        f"This version was built with --quick, which left out: {'; '.join(found)}.",
        "Run `cascadebert build` without it for the whole check before it serves.",
    )


def quick_verdicts_of(certificate: Mapping[str, Any] | None) -> tuple[Verdict, ...]:
    """What a certificate says was left out."""
    verdicts = (certificate or {}).get("verdicts", [])
    return tuple(
        Verdict(each["kind"], each["subject"], each["text"], each["help"])
        for each in verdicts
        if each["kind"] == CHECKED_QUICKLY
    )
