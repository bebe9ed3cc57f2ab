"""Requests of several rows: the cascade beside its members, with a few clients at a time."""

from __future__ import annotations

from ..bench import TritonSide

SECTION = "rows"
_CLIENTS = 4


def measure_rows_per_request(side: TritonSide) -> None:
    """Measure the cascade and the members alone at every number of rows of the plan.

    A request counts as deferred if any of its rows was.
    """
    bench = side.bench
    loads = [load for rows in bench.plan.request_rows for load in bench.closed(_CLIENTS, rows=rows)]
    contenders = [side.cascade(), side.small(), side.large()]
    bench.take_turns(SECTION, side.workload, contenders, loads)
