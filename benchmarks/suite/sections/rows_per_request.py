"""Requests of several rows: the cascade beside its members, a few clients at a time."""

from __future__ import annotations

from ...tools.perf_analyzer import Load
from ..bench import TritonSide

SECTION = "rows"
_CLIENTS = 4


def measure_batched(side: TritonSide) -> None:
    """The cascade and the members alone at every number of rows a request of the plan.

    A request counts as deferred where any of its rows was.
    """
    bench, plan = side.bench, side.bench.plan
    loads = [
        Load(_CLIENTS, rows=rows, window_s=plan.window_s, ramp_s=plan.ramp_s)
        for rows in plan.request_rows
    ]
    contenders = [side.cascade(), side.small(), side.large()]
    bench.take_turns(SECTION, side.scene, contenders, loads)
