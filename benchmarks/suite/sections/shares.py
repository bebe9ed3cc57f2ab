"""Throughput at every share of deferred rows, beside the members alone: does the saving arrive?"""

from __future__ import annotations

from ..bench import TritonSide
from ..expected_answers import expected_of_cascade
from ..workload import point_of_share

SECTION = "shares"


def name_of_share(share: float) -> str:
    """Return the name of the contender that defers this share of the rows."""
    return f"cascade, {share:.0%} deferred"


def measure_shares(side: TritonSide, shares: tuple[float, ...]) -> None:
    """Measure the cascade at every operating point, and the members alone, all saturated."""
    bench, workload = side.bench, side.workload
    contenders = [
        side.contender(
            name_of_share(share),
            workload.cascade,
            expected=expected_of_cascade(workload, share),
            parameters={"operating_point": point_of_share(share)},
        )
        for share in shares
    ]
    contenders += [side.small(), side.large()]
    bench.take_turns(SECTION, workload, contenders, bench.closed(bench.plan.many))
