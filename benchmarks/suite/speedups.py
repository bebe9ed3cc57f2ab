"""Throughput over the large member alone, by share of deferred rows, beside the cost model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..tools.ratio import Ratio, ratio_by_repeat
from .results import Results
from .sections import limit, shares

LARGE = "large alone"
_OURS = "cascade, "


@dataclass(frozen=True, slots=True)
class Speedup:
    """The speed-up of one operating point.

    Attributes:
        name: The name of the contender.
        share: The share of the rows that were deferred.
        measured: Throughput over the large member's.
        expected: The speed-up by the cost of the stages; None: the limit was not measured.
        kept: `measured` over `expected`.
    """

    name: str
    share: float
    measured: Ratio
    expected: float | None
    kept: Ratio | None


def speedups_of(results: Results, workload: str) -> list[Speedup]:
    """Return the operating points that were measured, by share of deferred rows."""
    large = results.throughput(shares.SECTION, workload, LARGE)
    found: list[Speedup] = []
    for name in operating_points(results, workload):
        share = results.median(shares.SECTION, workload, name, "deferred_share")
        ours = results.throughput(shares.SECTION, workload, name)
        measured = ratio_by_repeat(ours, large)
        if share is None or measured is None:
            continue
        gained = {repeat: ours[repeat] / large[repeat] for repeat in ours if repeat in large}
        key = (limit.SECTION, workload, name, "promised_speedup")
        kept = ratio_by_repeat(gained, results.values(*key))
        found.append(Speedup(name, share, measured, results.median(*key), kept))
    return sorted(found, key=lambda speedup: speedup.share)


def operating_points(results: Results, workload: str) -> list[str]:
    """Return the contenders of a workload that are operating points of the cascade."""
    names = results.contenders(shares.SECTION, workload)
    return [name for name in names if name.startswith(_OURS)]


def share_in_words(name: str) -> str:
    """Return the share of deferred rows in a contender's name: "25%"; "" if it has none."""
    return name.removeprefix(_OURS).removesuffix(" deferred") if name.startswith(_OURS) else ""


def gain_in_words(speedups: Sequence[Speedup]) -> str:
    """Say up to which share the cascade is faster, and how much of the expected gain arrives."""
    gaining = list(takewhile(lambda s: s.measured.median > 1, speedups))
    if not gaining:
        words = "Nowhere faster than the large member alone."
    else:
        words = f"Faster than the large member alone up to {gaining[-1].share:.0%} deferred"
        words += "." if len(gaining) == len(speedups) else ", not at the next point."
    kept = [(s.kept.median, s.share) for s in speedups if s.kept is not None]
    if len(kept) > 1:
        (least, at_least), (most, at_most) = min(kept), max(kept)
        words += (
            f" Between {least:.2f} (at {at_least:.0%} deferred) and {most:.2f} (at {at_most:.0%}) "
            "of the expected speed-up arrives."
        )
    return words
