"""Throughput at every share of deferred rows, beside the members alone: does the saving arrive?"""

from __future__ import annotations

from ..bench import TritonSide
from ..contender import take_turns
from ..scene import point_of_share

SECTION = "shares"


def name_of_share(share: float) -> str:
    """The contender that defers this share of the rows."""
    return f"cascade, {share:.0%} deferred"


def measure_shares(side: TritonSide, shares: tuple[float, ...]) -> None:
    """The cascade at every operating point, and the members alone, all saturated."""
    bench = side.bench
    contenders = [
        side.contender(
            name_of_share(share),
            side.scene.cascade,
            {"operating_point": point_of_share(share)},
        )
        for share in shares
    ]
    contenders += [side.small(), side.large()]
    loads = bench.closed(bench.plan.many)
    take_turns(
        bench.record,
        SECTION,
        side.scene.name,
        contenders=contenders,
        loads=loads,
        repeats=bench.plan.repeats,
    )
