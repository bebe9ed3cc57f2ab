"""Closed loops: throughput and latency of every contender from one client to many."""

from __future__ import annotations

from ..bench import TritonSide
from ..contender import Contender

SECTION = "closed"


def measure_closed(side: TritonSide, others: list[Contender], repeat: int) -> None:
    """All contenders at the plan's concurrencies, one turn.

    Args:
        side: the server.
        others: the cascade at other settings, and contenders that are not on Triton.
        repeat: number of the turn.
    """
    bench = side.bench
    contenders = [side.cascade(), side.blocking(), side.small(), side.large(), *others]
    loads = bench.closed(*bench.plan.concurrencies)
    bench.take_turns(SECTION, side.scene, contenders, loads, [repeat])
