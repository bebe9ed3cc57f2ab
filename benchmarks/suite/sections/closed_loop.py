"""Closed loops: throughput and latency of every contender from one client to many."""

from __future__ import annotations

from ..bench import TritonSide
from ..contender import Contender

SECTION = "closed"


def measure_closed_loop(side: TritonSide, others: list[Contender], repeat: int) -> None:
    """Measure one repeat of all contenders at the plan's concurrencies.

    Args:
        side: The server.
        others: The cascade at other settings, and contenders that are not on Triton.
        repeat: The number of the repeat.
    """
    bench = side.bench
    contenders = [side.cascade(), side.blocking(), side.small(), side.large(), *others]
    loads = bench.closed(*bench.plan.concurrencies)
    bench.take_turns(SECTION, side.workload, contenders, loads, [repeat])
