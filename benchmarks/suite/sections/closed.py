"""Closed loops: throughput and latency of every contender from one client to many."""

from __future__ import annotations

from ..bench import TritonSide
from ..contender import Contender, take_turns

SECTION = "closed"


def measure_closed(side: TritonSide, others: list[Contender]) -> None:
    """All contenders at the plan's concurrencies.

    Args:
        side: the server.
        others: contenders that are not on Triton.
    """
    bench = side.bench
    contenders = [side.cascade(), side.blocking(), side.small(), side.large(), *others]
    loads = bench.closed(*bench.plan.concurrencies)
    take_turns(
        bench.record,
        SECTION,
        side.scene.name,
        contenders=contenders,
        loads=loads,
        repeats=bench.plan.repeats,
    )
