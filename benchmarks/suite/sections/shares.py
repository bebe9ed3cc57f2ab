"""Throughput at every share of deferred rows, beside the members alone: does the saving arrive?"""

from __future__ import annotations

from ..bench import TritonSide
from ..expected_answers import expected_of_cascade
from ..workload import point_of_share

SECTION = "shares"


def name_of_share(share: float) -> str:
    """The contender that defers this share of the rows."""
    return f"cascade, {share:.0%} deferred"


def measure_shares(side: TritonSide, shares: tuple[float, ...]) -> None:
    """The cascade at every operating point, and the members alone, all saturated."""
    bench, scene = side.bench, side.scene
    contenders = [
        side.contender(
            name_of_share(share),
            scene.cascade,
            expected=expected_of_cascade(scene, share),
            parameters={"operating_point": point_of_share(share)},
        )
        for share in shares
    ]
    contenders += [side.small(), side.large()]
    bench.take_turns(SECTION, scene, contenders, bench.closed(bench.plan.many))
