"""Throughput over the large member alone, by share of deferred rows, beside the cost model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..tools.ratio import Ratio, ratio_by_repeat
from .names import LARGE, LIMIT, SHARES, share_in_words
from .results import Results


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
    large = results.throughput(SHARES, workload, LARGE)
    found: list[Speedup] = []
    for name in filter(share_in_words, results.contenders(SHARES, workload)):
        share = results.median(SHARES, workload, name, "deferred_share")
        ours = results.throughput(SHARES, workload, name)
        measured = ratio_by_repeat(ours, large)
        if share is not None and measured is not None:
            gained = {repeat: ours[repeat] / large[repeat] for repeat in ours if repeat in large}
            key = (LIMIT, workload, name, "promised_speedup")
            kept = ratio_by_repeat(gained, results.values(*key))
            found.append(Speedup(name, share, measured, results.median(*key), kept))
    return sorted(found, key=lambda speedup: speedup.share)


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
