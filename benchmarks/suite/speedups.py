"""Throughput over the large member alone at every share of deferred rows, beside the promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..tools.ratio import Ratio
from .results import Figures
from .sections import limit, shares

LARGE = "large alone"
_OURS = "cascade, "


@dataclass(frozen=True, slots=True)
class Speedup:
    """One operating point.

    Attributes:
        name: of the contender.
        share: of the rows that were deferred.
        measured: throughput over the large member's alone, turn by turn.
        promised: what the cost of the stages promises; None: the limit was not measured.
        kept: measured over promised, turn by turn.
    """

    name: str
    share: float
    measured: Ratio
    expected: float | None
    kept: Ratio | None


def speedups_of(figures: Figures, scene: str) -> list[Speedup]:
    """Operating points that were measured, by their share of deferred rows."""
    large = figures.best_throughput(shares.SECTION, scene, LARGE)
    found: list[Speedup] = []
    for name in points_of(figures, scene):
        share = figures.median(shares.SECTION, scene, name, None, "deferred_share")
        ours = figures.best_throughput(shares.SECTION, scene, name)
        measured = figures.ratio(ours, large)
        if share is None or measured is None:
            continue
        gained = {turn: ours[turn] / large[turn] for turn in set(ours) & set(large)}
        expected = figures.values(limit.SECTION, scene, name, None, "promised_speedup")
        found.append(
            Speedup(
                name,
                share,
                measured,
                figures.median(limit.SECTION, scene, name, None, "promised_speedup"),
                figures.ratio(gained, expected),
            )
        )
    return sorted(found, key=lambda speedup: speedup.share)


def points_of(figures: Figures, scene: str) -> list[str]:
    """Operating points of a scene, as contenders are named."""
    names = figures.contenders(shares.SECTION, scene)
    return [name for name in names if name.startswith(_OURS)]


def share_in_words(name: str) -> str:
    """The share of deferred rows that a contender was asked for: "25%"."""
    return name.removeprefix(_OURS).removesuffix(" deferred")


def where_it_bends(speedups: Sequence[Speedup]) -> str:
    """Up to which share the cascade gains, and how much of the promise arrives, in sentences."""
    gaining = list(takewhile(lambda s: s.measured.median > 1, speedups))
    if not gaining:
        words = "Nowhere faster than the large member alone."
    else:
        words = f"Faster than the large member alone up to {gaining[-1].share:.0%} deferred"
        words += "." if len(gaining) == len(speedups) else ", and no longer at the next point."
    kept = [(s.kept.median, s.share) for s in speedups if s.kept is not None]
    if len(kept) > 1:
        (least, at_least), (most, at_most) = min(kept), max(kept)
        words += (
            f" Of the promised speed-up {least:.2f} arrives at {at_least:.0%} deferred, where it "
            f"is least, and {most:.2f} at {at_most:.0%}, where it is most."
        )
    return words
